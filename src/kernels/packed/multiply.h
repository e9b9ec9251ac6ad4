// The products of kernels/packed.h over any vector class V and any weights (weights.h). Included by the
// instruction sets' own files only.
//
// Up to V::kFusedTokens tokens, codes go from the panel straight to registers (decode runs at the speed of
// memory). More tokens: a panel is unpacked once to scratch and then met by tiles of V::kTileTokens tokens,
// whose running sums y stay in registers. Tokens of a tile are interleaved group by group first, so that a
// tile is one sequential stream.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/packed.h"
#include "kernels/packed/pack.h"
#include "kernels/packed/weights.h"

namespace narrow::kernels::packed {

// Activations of kTokens tokens, by group: q [k/32, tokens, 32], scale [k/32, tokens],
// start [k/32, runs, tokens] = -offset * (sum of q), shift [k/32, runs, tokens] = scale * (sum of q).
struct Tile {
  const std::int8_t* q;
  const float* scale;
  const std::int32_t* start;
  const float* shift;
};

// Bytes of expanded tokens in scratch that one pass over the panels may use: they stay in the L2 cache.
inline constexpr std::int64_t kTokenBlockBytes = 384 << 10;

static constexpr std::size_t round_up_64(std::size_t n) { return (n + 63) / 64 * 64; }

// One panel times one tile; writes `features` features of `tokens` <= kTokens tokens.
template <class W, bool kStart, int kTokens>
static void multiply_tile(const std::byte* codes, const std::byte* scales, std::int64_t units, Tile x,
                          float* out, std::int64_t out_stride, int tokens, int features) {
  using V = typename W::Vec;
  using Floats = typename V::Floats;
  using Ints = typename V::Ints;
  // Tokens whose integer sums run side by side, to hide the latency of the dot products.
  constexpr int kSide = kTokens % 4 == 0 ? 4 : kTokens;
  constexpr int kVectors = 8 / W::kRuns;
  Floats y[kTokens];
  unroll<kTokens>([&](auto t) NARROW_INLINE_LAMBDA { y[t.value] = V::zero(); });
  for (std::int64_t u = 0; u < units; ++u) {
    typename W::Scales unit_scales;
    W::load_scales(scales, unit_scales);
    scales += W::kScaleBytes;
    for (int g = 0; g < W::kGroups; ++g) {
      typename V::Bytes w[8];
      Floats scale[W::kRuns], neg_min[W::kRuns];
      W::codes(codes, w);
      W::scales(unit_scales, g, scale, neg_min);
      unroll<kTokens / kSide>([&](auto part) NARROW_INLINE_LAMBDA {
        constexpr int kFirst = decltype(part)::value * kSide;
        Ints sum[W::kRuns][kSide];
        unroll<W::kRuns>([&](auto r) NARROW_INLINE_LAMBDA {
          constexpr int kRun = decltype(r)::value;
          unroll<kSide>([&](auto b) NARROW_INLINE_LAMBDA {
            const int at = kRun * kTokens + kFirst + b.value;
            sum[kRun][b.value] = V::broadcast(kStart ? x.start[at] : 0);
          });
          V::template dots<W::kMaxLevel, kVectors, kSide>(w + kRun * kVectors,
                                                          x.q + kFirst * kGroup + kRun * kSumRun, sum[kRun]);
        });
        unroll<kSide>([&](auto b) NARROW_INLINE_LAMBDA {
          constexpr int kToken = kFirst + decltype(b)::value;
          Floats v = V::mul(V::to_float(sum[0][b.value]), scale[0]);
          if constexpr (W::kRuns == 2) v = V::fma(V::to_float(sum[1][b.value]), scale[1], v);
          y[kToken] = V::fma(v, V::broadcast(x.scale[kToken]), y[kToken]);
          if constexpr (W::kMinima) {
            unroll<W::kRuns>([&](auto r) NARROW_INLINE_LAMBDA {
              const float shift = x.shift[r.value * kTokens + kToken];
              y[kToken] = V::fma(neg_min[r.value], V::broadcast(shift), y[kToken]);
            });
          }
        });
      });
      codes += W::kGroupBytes;
      x.q += kTokens * kGroup;
      x.scale += kTokens;
      if constexpr (kStart) x.start += W::kRuns * kTokens;
      if constexpr (W::kMinima) x.shift += W::kRuns * kTokens;
    }
  }
  unroll<kTokens>([&](auto t) NARROW_INLINE_LAMBDA {
    if (t.value < tokens) V::store_first(out + t.value * out_stride, y[t.value], features);
  });
}

// The kernels of one format.
template <class V, Format kFormat>
struct Kernel {
  using W = PackedWeights<V, kFormat>;
  using E = ExpandedWeights<V, W::kRuns, W::kMinima, V::level_class(W::kMaxLevel)>;
  static constexpr int kLanes = V::kLanes, kRuns = W::kRuns;
  static constexpr bool kStart = W::kOffset != 0;

  static std::size_t bytes_of_panel(std::int64_t k) { return panel_bytes(W::kLayout, kLanes, k); }

  static void pack(const std::byte* rows, std::size_t stride_bytes, std::int64_t n_rows, std::int64_t k,
                   std::byte* panel) {
    pack_panel(W::kLayout, kLanes, V::kUnsignedCodes, rows, stride_bytes, n_rows, k, panel);
  }

  // Scratch of one tile of `tokens` places.
  static constexpr std::size_t tile_bytes(std::int64_t k, std::int64_t tokens) {
    const std::int64_t per_group = kGroup + 4 + 4 * kRuns * ((kStart ? 1 : 0) + (W::kMinima ? 1 : 0));
    return round_up_64(static_cast<std::size_t>(k / kGroup * tokens * per_group));
  }
  static constexpr std::size_t expanded_bytes(std::int64_t k) {
    return static_cast<std::size_t>(k / kGroup) * static_cast<std::size_t>(E::kGroupBytes + E::kScaleBytes);
  }
  // Tiles that meet a panel in one pass.
  static constexpr std::int64_t tiles_per_pass(std::int64_t k) {
    const std::int64_t fit = kTokenBlockBytes / static_cast<std::int64_t>(tile_bytes(k, V::kTileTokens));
    return fit < 4 ? 4 : fit;
  }
  static std::size_t scratch_bytes(std::int64_t k, std::int64_t m) {
    if (k == 0) return 0;
    if (m <= V::kFusedTokens) return tile_bytes(k, V::kFusedTokens);
    const std::int64_t tiles = (m + V::kTileTokens - 1) / V::kTileTokens, pass = tiles_per_pass(k);
    return expanded_bytes(k) +
           static_cast<std::size_t>(tiles < pass ? tiles : pass) * tile_bytes(k, V::kTileTokens);
  }

  // Where the parts of a tile of kTokens places lie in its scratch. One token is its own tile.
  template <int kTokens>
  static Tile tile_at(const QuantizedRows& x, std::int64_t first, const std::byte* scratch) {
    const std::int64_t groups = x.k / kGroup;
    const auto* q = reinterpret_cast<const std::int8_t*>(scratch);
    const auto* scale = reinterpret_cast<const float*>(q + groups * kTokens * kGroup);
    const auto* shift = scale + groups * kTokens;
    const auto* start =
        reinterpret_cast<const std::int32_t*>(shift + (W::kMinima ? groups * kRuns * kTokens : 0));
    if constexpr (kTokens == 1) return {x.q + first * x.k, x.scale + first * groups, start, shift};
    return {q, scale, start, shift};
  }

  // Interleaves tokens first .. first + tokens of x into a tile of kTokens places; the rest are zero.
  template <int kTokens>
  static void make_tile(const QuantizedRows& x, std::int64_t first, int tokens, std::byte* scratch) {
    const std::int64_t groups = x.k / kGroup;
    auto* q = reinterpret_cast<std::int8_t*>(scratch);
    auto* scale = reinterpret_cast<float*>(q + groups * kTokens * kGroup);
    auto* shift = scale + groups * kTokens;
    auto* start = reinterpret_cast<std::int32_t*>(shift + (W::kMinima ? groups * kRuns * kTokens : 0));
    for (int t = 0; t < kTokens; ++t) {
      const bool real = t < tokens;
      const std::int8_t* row = x.q + (first + t) * x.k;
      const float* row_scale = x.scale + (first + t) * groups;
      const std::int32_t* row_sums = x.sums + (first + t) * groups * 2;
      for (std::int64_t g = 0; g < groups; ++g) {
        if constexpr (kTokens != 1) {
          std::int8_t* to = q + (g * kTokens + t) * kGroup;
          if (real) {
            __builtin_memcpy(to, row + g * kGroup, kGroup);
          } else {
            __builtin_memset(to, 0, kGroup);
          }
          scale[g * kTokens + t] = real ? row_scale[g] : 0.0f;
        }
        if constexpr (kStart || W::kMinima) {
          const std::int32_t low = real ? row_sums[2 * g] : 0, high = real ? row_sums[2 * g + 1] : 0;
          for (int r = 0; r < kRuns; ++r) {
            const std::int32_t sum = kRuns == 1 ? low + high : r == 0 ? low : high;
            const std::int64_t at = (g * kRuns + r) * kTokens + t;
            if constexpr (kStart) start[at] = -W::kOffset * sum;
            if constexpr (W::kMinima) shift[at] = real ? row_scale[g] * static_cast<float>(sum) : 0.0f;
          }
        }
      }
    }
  }

  template <int kTokens>
  static void multiply_fused(const std::byte* panels, std::int64_t n_rows, const QuantizedRows& x, float* out,
                             std::int64_t out_stride, std::byte* scratch) {
    const int tokens = static_cast<int>(x.m);
    make_tile<kTokens>(x, 0, tokens, scratch);
    const Tile tile = tile_at<kTokens>(x, 0, scratch);
    const std::int64_t codes_bytes = x.k / kGroup * W::kGroupBytes;
    const auto step = static_cast<std::int64_t>(bytes_of_panel(x.k));
    for (std::int64_t n = 0; n < n_rows; n += kLanes, panels += step) {
      const int features = static_cast<int>(n_rows - n < kLanes ? n_rows - n : kLanes);
      multiply_tile<W, kStart, kTokens>(panels, panels + codes_bytes, x.k / W::kLayout.unit, tile, out + n,
                                        out_stride, tokens, features);
    }
  }

  static void expand(const std::byte* panel, std::int64_t k, std::byte* out) {
    const std::byte* scales = panel + k / kGroup * W::kGroupBytes;
    auto* out_scales = reinterpret_cast<float*>(out + k / kGroup * E::kGroupBytes);
    for (std::int64_t u = 0; u < k / W::kLayout.unit; ++u, scales += W::kScaleBytes) {
      typename W::Scales unit_scales;
      W::load_scales(scales, unit_scales);
      for (int g = 0; g < W::kGroups; ++g) {
        typename V::Bytes w[8];
        typename V::Floats scale[kRuns], neg_min[kRuns];
        W::codes(panel, w);
        W::scales(unit_scales, g, scale, neg_min);
        unroll<8>([&](auto c) NARROW_INLINE_LAMBDA { V::store(out + c.value * 4 * kLanes, w[c.value]); });
        unroll<kRuns>([&](auto r) NARROW_INLINE_LAMBDA {
          V::store_floats(out_scales + r.value * kLanes, scale[r.value]);
          if constexpr (W::kMinima)
            V::store_floats(out_scales + (kRuns + r.value) * kLanes, neg_min[r.value]);
        });
        panel += W::kGroupBytes;
        out += E::kGroupBytes;
        out_scales += E::kScaleBytes / 4;
      }
    }
  }

  // The smallest tile of 1, 2, 4, 8, .. kTileTokens places that holds `tokens`, passed to f.
  template <class F>
  [[gnu::always_inline]] static inline void with_tile_size(int tokens, F&& f) {
    if (tokens == 1) return f(Index<1>{});
    if (tokens == 2) return f(Index<2>{});
    if (V::kTileTokens == 4 || tokens <= 4) return f(Index<4>{});
    if constexpr (V::kTileTokens > 4) {
      if (V::kTileTokens == 8 || tokens <= 8) return f(Index<8>{});
      if constexpr (V::kTileTokens > 8) f(Index<V::kTileTokens>{});
    }
  }

  static void multiply_expanded(const std::byte* panels, std::int64_t n_rows, const QuantizedRows& x,
                                float* out, std::int64_t out_stride, std::byte* scratch) {
    constexpr int kTokens = V::kTileTokens;
    const std::size_t tile_step = tile_bytes(x.k, kTokens);
    const std::int64_t pass_tokens = tiles_per_pass(x.k) * kTokens;
    const auto panel_step = static_cast<std::int64_t>(bytes_of_panel(x.k));
    std::byte* expanded = scratch;
    std::byte* tiles = scratch + expanded_bytes(x.k);
    const std::byte* expanded_scales = expanded + x.k / kGroup * E::kGroupBytes;
    for (std::int64_t begin = 0; begin < x.m; begin += pass_tokens) {
      const std::int64_t end = begin + pass_tokens < x.m ? begin + pass_tokens : x.m;
      for (std::int64_t t = begin; t < end; t += kTokens) {
        const int tokens = static_cast<int>(end - t < kTokens ? end - t : kTokens);
        std::byte* at = tiles + static_cast<std::size_t>((t - begin) / kTokens) * tile_step;
        with_tile_size(tokens, [&](auto size) NARROW_INLINE_LAMBDA {
          make_tile<decltype(size)::value>(x, t, tokens, at);
        });
      }
      const std::byte* panel = panels;
      for (std::int64_t n = 0; n < n_rows; n += kLanes, panel += panel_step) {
        const int features = static_cast<int>(n_rows - n < kLanes ? n_rows - n : kLanes);
        expand(panel, x.k, expanded);
        for (std::int64_t t = begin; t < end; t += kTokens) {
          const int tokens = static_cast<int>(end - t < kTokens ? end - t : kTokens);
          const std::byte* at = tiles + static_cast<std::size_t>((t - begin) / kTokens) * tile_step;
          with_tile_size(tokens, [&](auto size) NARROW_INLINE_LAMBDA {
            constexpr int kSize = decltype(size)::value;
            multiply_tile<E, kStart, kSize>(expanded, expanded_scales, x.k / kGroup, tile_at<kSize>(x, t, at),
                                            out + t * out_stride + n, out_stride, tokens, features);
          });
        }
      }
    }
  }

  static void multiply(const std::byte* panels, std::int64_t n_rows, const QuantizedRows& x, float* out,
                       std::int64_t out_stride, std::byte* scratch) {
    if (x.m == 0) return;
    if (x.m > V::kFusedTokens) return multiply_expanded(panels, n_rows, x, out, out_stride, scratch);
    if (x.m == 1) return multiply_fused<1>(panels, n_rows, x, out, out_stride, scratch);
    if (x.m == 2) return multiply_fused<2>(panels, n_rows, x, out, out_stride, scratch);
    if (V::kFusedTokens == 4 || x.m <= 4) {
      return multiply_fused<4>(panels, n_rows, x, out, out_stride, scratch);
    }
    if constexpr (V::kFusedTokens > 4) multiply_fused<8>(panels, n_rows, x, out, out_stride, scratch);
  }

  static constexpr PackedKernel kKernel{bytes_of_panel, pack, scratch_bytes, multiply};
};

}  // namespace narrow::kernels::packed
