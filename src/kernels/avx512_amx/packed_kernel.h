// Products of packed weights (kernels/packed.h) with many tokens through AMX, for any format.
//
// Two panels are unpacked to signed levels, S and -M, some groups at a time so that they stay in the L1
// cache, and meet tiles of 16 tokens. Each run of a group is one tile product; its int32 sums [16 tokens, 16
// features] pass through memory to vector registers, where the 16 running sums y stay.
//
// What bounds it on Sapphire Rapids, per tile and group of 8192 products: multiplications and fused ones on
// vectors of 512 bits run at half their rate, one per cycle, as long as tile instructions are among them
// (additions do not); 2 per token are 32 cycles, one more per minimum. So int32 sums become floats by an
// integer addition: as a float, the bits of 1.5 * 2^23 plus a small integer are 1.5 * 2^23 + that integer,
// and fma(that, S, -1.5 * 2^23 * S) is float(sum) * S rounded once, because S has at most 22 significant bits
// and the constant times S is exact. The matrix unit is busy for 16 cycles, storing a tile takes 16. Its
// latency of 52 cycles is hidden by working four tiles ahead.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/avx512_amx/tile.h"
#include "kernels/avx512_vnni/packed_vector.h"
#include "kernels/packed.h"
#include "kernels/packed/multiply.h"
#include "kernels/packed/pack.h"
#include "kernels/packed/weights.h"

namespace narrow::kernels::avx512_amx {

// A type of its own makes the templates' instances this folder's own.
struct Vector : avx512_vnni::PackedVector {};

inline constexpr int kLanes = 16, kTileTokens = 16, kTileBytes = 1024;
// Up to this many tokens the time is that of reading weights, and avx512_vnni's kernels read them as fast.
inline constexpr std::int64_t kFewTokens = 8;
// Panels that a tile of tokens meets while it is in the L1 cache, beside which they must fit.
inline constexpr std::int64_t kPanels = 2;
// Activations that one pass over the panels may use: they stay in the L2 cache.
inline constexpr std::int64_t kPassBytes = 1 << 20;
// Tile products in flight, each with a sum tile of its own.
inline constexpr int kAhead = 4;
inline constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23

template <Format kFormat, const PackedKernel* kFew>
struct Kernel {
  using W = packed::PackedWeights<Vector, kFormat>;
  static constexpr packed::Layout kLayout = W::kLayout;
  static constexpr int kGroup = packed::kGroup, kRuns = W::kRuns;
  static constexpr std::uint64_t kPrepared = 0x100 + static_cast<std::uint64_t>(kFormat);
  // Factors of a token and group: its scale, and with minima scale * sum of q for each run.
  static constexpr int kFactors = W::kMinima ? 1 + kRuns : 1;
  static constexpr int kCodeBytes = kGroup * kLanes;  // of one group, unpacked
  // Per group: S of each run, -kMagic * S of the first, -M of each run.
  static constexpr int kScaleVectors = kRuns + 1 + (W::kMinima ? kRuns : 0);
  // Where S is a power of two that may overflow with the constant, sums are converted.
  static constexpr bool kConvert = kLayout.exponent();

  // Most groups per visit of a tile, a multiple of the unit's: with their scales 10 to 13 KB per panel.
  static constexpr std::int64_t kMostGroups = W::kGroups == 1 ? 20 : 16;

  // Work memory.
  struct Memory {
    std::byte *sums, *codes, *scales, *tail;
    float* factors;
  };
  static Memory cut(std::byte* p, std::int64_t k) {
    Memory m{};
    m.sums = p;
    m.codes = m.sums + kAhead * kTileBytes;
    m.scales = m.codes + kPanels * kMostGroups * kCodeBytes;
    m.tail = m.scales + kPanels * kMostGroups * kScaleVectors * 64;
    m.factors = reinterpret_cast<float*>(m.tail + kTileTokens * k);
    return m;
  }
  static std::size_t scratch_bytes(std::int64_t k, std::int64_t m) {
    const std::int64_t tiles = (m + kTileTokens - 1) / kTileTokens;
    const auto own =
        kPreparedBytes + static_cast<std::size_t>(kAhead * kTileBytes +
                                                  kPanels * kMostGroups * (kCodeBytes + kScaleVectors * 64) +
                                                  kTileTokens * k + tiles * (k / kGroup) * kFactors * 64);
    const std::size_t few = kFew->scratch_bytes(k, m);
    return m <= kFewTokens || few > own ? few : own;
  }

  static std::size_t panel_bytes(std::int64_t k) { return packed::panel_bytes(kLayout, kLanes, k); }
  static void pack(const std::byte* rows, std::size_t stride_bytes, std::int64_t n_rows, std::int64_t k,
                   std::byte* panel) {
    packed::pack_panel(kLayout, kLanes, Vector::kUnsignedCodes, rows, stride_bytes, n_rows, k, panel);
  }

  static constexpr TileConfig config() {
    TileConfig c;
    for (int i = 0; i < 4; ++i) c.set(i, kTileTokens, 64);
    for (int i = 4; i < 6; ++i) c.set(i, kTileTokens, kGroup / kRuns);
    for (int i = 6; i < 8; ++i) c.set(i, kGroup / kRuns / 4, 64);
    return c;
  }

  // Groups first .. first + count of one panel.
  static void expand(const std::byte* panel, std::int64_t k, std::int64_t first, std::int64_t count,
                     std::byte* codes, std::byte* scales) {
    const std::byte* from = panel + first * W::kGroupBytes;
    const std::byte* units = panel + k / kGroup * W::kGroupBytes + first / W::kGroups * W::kScaleBytes;
    for (std::int64_t g = 0; g < count; units += W::kScaleBytes) {
      typename W::Scales unit_scales;
      W::load_scales(units, unit_scales);
      for (int i = 0; i < W::kGroups; ++i, ++g) {
        typename W::Codes w;
        __m512 scale[kRuns], neg_min[kRuns];
        W::codes(from, w);
        W::scales(unit_scales, i, scale, neg_min);
        packed::unroll<8>([&](auto c) NARROW_INLINE_LAMBDA {
          Vector::store(codes + c.value * 64, Vector::subtract(w.w[c.value], W::kOffset));
        });
        packed::unroll<kRuns>([&](auto r) NARROW_INLINE_LAMBDA {
          _mm512_storeu_ps(scales + r.value * 64, scale[r.value]);
          if constexpr (W::kMinima) {
            _mm512_storeu_ps(scales + (kRuns + 1 + r.value) * 64, neg_min[r.value]);
          }
        });
        _mm512_storeu_ps(scales + kRuns * 64, _mm512_mul_ps(scale[0], _mm512_set1_ps(-kMagic)));
        from += W::kGroupBytes;
        codes += kCodeBytes;
        scales += kScaleVectors * 64;
      }
    }
  }

  // The factors of tokens first .. first + tokens: [group, factor, 16 tokens], 0 for those that are missing.
  static void make_factors(const QuantizedRows& x, std::int64_t first, std::int64_t tokens, float* out) {
    const std::int64_t groups = x.k / kGroup;
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i row = _mm512_mullo_epi32(lane, _mm512_set1_epi32(static_cast<int>(groups)));
    const __m512i row_of_sums = _mm512_slli_epi32(row, 1);
    const auto mask = static_cast<__mmask16>(tokens >= kTileTokens ? 0xffff : (1 << tokens) - 1);
    const float* scales = x.scale + first * groups;
    const std::int32_t* sums = x.sums + first * groups * 2;
    for (std::int64_t g = 0; g < groups; ++g, out += kFactors * kTileTokens) {
      const __m512 scale = _mm512_mask_i32gather_ps(_mm512_setzero_ps(), mask, row, scales + g, 4);
      _mm512_storeu_ps(out, scale);
      if constexpr (W::kMinima) {
        const auto sum = [&](int half) {
          return _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), mask, row_of_sums, sums + 2 * g + half,
                                             4);
        };
        const __m512i low = sum(0), high = sum(1);
        if constexpr (kRuns == 1) {
          _mm512_storeu_ps(out + 16, _mm512_mul_ps(scale, _mm512_cvtepi32_ps(_mm512_add_epi32(low, high))));
        } else {
          _mm512_storeu_ps(out + 16, _mm512_mul_ps(scale, _mm512_cvtepi32_ps(low)));
          _mm512_storeu_ps(out + 32, _mm512_mul_ps(scale, _mm512_cvtepi32_ps(high)));
        }
      }
    }
  }

  // `count` groups of one panel times 16 tokens (q: their rows, stride apart), of which `tokens` rows and the
  // features of `lanes` are stored; adds to out unless this is the first visit.
  static void multiply_tile(const std::int8_t* q, std::int64_t stride, const float* factors,
                            std::int64_t count, const std::byte* codes, const std::byte* scales,
                            std::byte* sums, bool first, float* out, std::int64_t out_stride,
                            std::int64_t tokens, __mmask16 lanes) {
    // The outputs of many tokens exceed the L2 cache: their lines are asked for before the sums are ready.
    packed::unroll<kTileTokens>([&](auto t) NARROW_INLINE_LAMBDA {
      if (t.value < tokens) __builtin_prefetch(out + t.value * out_stride, 1);
    });
    __m512 y[kTileTokens];
    packed::unroll<kTileTokens>([&](auto t) NARROW_INLINE_LAMBDA {
      y[t.value] = first || t.value >= tokens ? _mm512_setzero_ps()
                                              : _mm512_maskz_loadu_ps(lanes, out + t.value * out_stride);
    });
    // A step is one run: started kAhead steps and stored kRuns steps before its sums are used, because a
    // store waits for the products' whole latency, and with it all later uses of the tile.
    std::int64_t to_start = count * kRuns, to_store = to_start;
    const auto start = [&](auto slot) NARROW_INLINE_LAMBDA {
      constexpr int kSlot = decltype(slot)::value, kA = 4 + kSlot % 2, kB = 6 + kSlot % 2;
      if (to_start == 0) return;
      --to_start;
      load_tile<kA>(q, stride);
      load_tile<kB>(codes, 64);
      zero_tile<kSlot>();
      multiply_signed<kSlot, kA, kB>();
      q += kGroup / kRuns;
      codes += kCodeBytes / kRuns;
    };
    const auto store_and_start = [&](auto slot) NARROW_INLINE_LAMBDA {
      constexpr int kSlot = decltype(slot)::value;
      if (to_store == 0) return;
      --to_store;
      store_tile<kSlot>(sums + kSlot * kTileBytes, 64);
      start(slot);
    };
    const __m512 magic = _mm512_set1_ps(kMagic);
    const __m512i magic_bits = kConvert ? _mm512_setzero_si512() : _mm512_castps_si512(magic);
    const auto add_group = [&](auto first_slot) NARROW_INLINE_LAMBDA {
      constexpr int kSlot = decltype(first_slot)::value;
      __m512 scale[kScaleVectors];
      packed::unroll<kScaleVectors>(
          [&](auto v) NARROW_INLINE_LAMBDA { scale[v.value] = _mm512_load_ps(scales + v.value * 64); });
      packed::unroll<kTileTokens>([&](auto t) NARROW_INLINE_LAMBDA {
        constexpr int kToken = decltype(t)::value;
        const __m512i sum = load_sums(sums + kSlot * kTileBytes + kToken * 64, magic_bits);
        __m512 v;
        if constexpr (kConvert) {
          v = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale[0]);
        } else {
          v = _mm512_fmadd_ps(_mm512_castsi512_ps(sum), scale[0], scale[kRuns]);
        }
        if constexpr (kRuns == 2) {
          const __m512i high = load_sums(sums + (kSlot + 1) * kTileBytes + kToken * 64, magic_bits);
          v = _mm512_fmadd_ps(_mm512_sub_ps(_mm512_castsi512_ps(high), magic), scale[1], v);
        }
        y[kToken] = _mm512_fmadd_ps(v, _mm512_set1_ps(factors[kToken]), y[kToken]);
        if constexpr (W::kMinima) {
          packed::unroll<kRuns>([&](auto r) NARROW_INLINE_LAMBDA {
            y[kToken] = _mm512_fmadd_ps(scale[kRuns + 1 + r.value],
                                        _mm512_set1_ps(factors[(1 + r.value) * 16 + kToken]), y[kToken]);
          });
        }
      });
      scales += kScaleVectors * 64;
      factors += kFactors * kTileTokens;
    };
    packed::unroll<kAhead>([&](auto s) NARROW_INLINE_LAMBDA { start(s); });
    packed::unroll<kRuns>([&](auto s) NARROW_INLINE_LAMBDA { store_and_start(s); });
    for (std::int64_t g = 0; g < count; g += kAhead / kRuns) {
      packed::unroll<kAhead / kRuns>([&](auto u) NARROW_INLINE_LAMBDA {
        constexpr int kFirst = decltype(u)::value * kRuns;
        if (g + u.value >= count) return;
        packed::unroll<kRuns>([&](auto r) NARROW_INLINE_LAMBDA {
          store_and_start(packed::Index<(kFirst + kRuns + decltype(r)::value) % kAhead>{});
        });
        add_group(packed::Index<kFirst>{});
      });
    }
    packed::unroll<kTileTokens>([&](auto t) NARROW_INLINE_LAMBDA {
      if (t.value < tokens) _mm512_mask_storeu_ps(out + t.value * out_stride, lanes, y[t.value]);
    });
  }

  static void multiply(const std::byte* panels, std::int64_t n_rows, const QuantizedRows& x, float* out,
                       std::int64_t out_stride, std::byte* scratch) {
    if (x.m <= kFewTokens || x.k == 0) {
      kFew->multiply(panels, n_rows, x, out, out_stride, scratch);
      return;
    }
    const bool ready = packed::is_prepared(x, kPrepared, scratch);
    const Memory memory = cut(scratch + kPreparedBytes, x.k);
    const std::int64_t groups = x.k / kGroup, tile_factors = groups * kFactors * kTileTokens;
    for (std::int64_t t = 0; t < x.m && !ready; t += kTileTokens) {
      make_factors(x, t, x.m - t, memory.factors + t / kTileTokens * tile_factors);
    }
    // The last tokens, filled up to a tile with zeros.
    const std::int64_t whole = x.m / kTileTokens * kTileTokens, tail = x.m - whole;
    if (tail > 0 && !ready) {
      __builtin_memcpy(memory.tail, x.q + whole * x.k, static_cast<std::size_t>(tail * x.k));
      __builtin_memset(memory.tail + tail * x.k, 0, static_cast<std::size_t>((kTileTokens - tail) * x.k));
    }
    const std::int64_t fit = kPassBytes / (x.k * kTileTokens) * kTileTokens;
    const std::int64_t pass = fit < kTileTokens ? kTileTokens : fit;
    const auto panel_step = static_cast<std::int64_t>(panel_bytes(x.k));
    // Chunks of equal length.
    const std::int64_t chunks = (groups + kMostGroups - 1) / kMostGroups;
    const std::int64_t chunk = ((groups + chunks - 1) / chunks + W::kGroups - 1) / W::kGroups * W::kGroups;
    static constexpr TileConfig kConfig = config();
    load_config(kConfig);
    for (std::int64_t begin = 0; begin < x.m; begin += pass) {
      const std::int64_t end = x.m - begin < pass ? x.m : begin + pass;
      for (std::int64_t n = 0; n < n_rows; n += kPanels * kLanes) {
        for (std::int64_t g = 0; g < groups; g += chunk) {
          const std::int64_t count = groups - g < chunk ? groups - g : chunk;
          for (std::int64_t p = 0; p < kPanels && n + p * kLanes < n_rows; ++p) {
            expand(panels + (n / kLanes + p) * panel_step, x.k, g, count,
                   memory.codes + p * kMostGroups * kCodeBytes,
                   memory.scales + p * kMostGroups * kScaleVectors * 64);
          }
          fence();
          for (std::int64_t t = begin; t < end; t += kTileTokens) {
            const std::int8_t* q =
                t < whole ? x.q + t * x.k : reinterpret_cast<const std::int8_t*>(memory.tail);
            const float* factors =
                memory.factors + t / kTileTokens * tile_factors + g * kFactors * kTileTokens;
            for (std::int64_t p = 0; p < kPanels && n + p * kLanes < n_rows; ++p) {
              const std::int64_t at = n + p * kLanes, features = n_rows - at;
              const auto lanes = static_cast<__mmask16>(features >= kLanes ? 0xffff : (1 << features) - 1);
              multiply_tile(q + g * kGroup, x.k, factors, count, memory.codes + p * kMostGroups * kCodeBytes,
                            memory.scales + p * kMostGroups * kScaleVectors * 64, memory.sums, g == 0,
                            out + t * out_stride + at, out_stride, t < whole ? kTileTokens : tail, lanes);
            }
          }
          fence();
        }
      }
    }
    release_tiles();
  }

  static constexpr PackedKernel kKernel{panel_bytes, pack, scratch_bytes, multiply};
};

}  // namespace narrow::kernels::avx512_amx
