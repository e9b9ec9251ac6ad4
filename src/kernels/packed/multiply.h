// The products of kernels/packed.h over any vector class V and any weights (weights.h). Included by the
// instruction sets' own files only.
//
// Up to V::kFusedTokens tokens, codes go from the panel straight to registers (decode runs at the speed of
// memory). More tokens: V::kTilePanels panels at a time, a stretch of k of at most V::kBlockBytes is unpacked
// to scratch, where it stays in L1 while tiles of V::kTileTokens tokens meet it. The sums y of panels x
// tokens stay in registers within a stretch and wait in `out` between stretches. Tokens of a tile are
// interleaved group by group first, so that a tile is one sequential stream.
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

// How far ahead of its use a panel is fetched when it streams from memory: about 250 ns at the bandwidth of
// two cores. The hardware's prefetcher starts anew at every page, this does not.
inline constexpr std::int64_t kAheadBytes = 8192;

template <std::int64_t kBytes>
[[gnu::always_inline]] static inline void fetch_ahead(const std::byte* p) {
  for (std::int64_t i = 0; i < kBytes; i += 64) __builtin_prefetch(p + kAheadBytes + i);
}

static constexpr std::size_t round_up_64(std::size_t n) { return (n + 63) / 64 * 64; }

// kPanels panels (or one stretch of them) times one tile. Adds to what `out` holds, or starts from zero.
// Writes `tokens` <= kTokens tokens of `features` features.
template <class W, bool kStart, int kTokens>
static void multiply_tile(const std::byte* codes, const std::byte* scales, std::int64_t units, Tile x,
                          bool from_zero, float* out, std::int64_t out_stride, int tokens, int features) {
  using V = typename W::Vec;
  using Floats = typename V::Floats;
  using Ints = typename V::Ints;
  constexpr int kPanels = W::kPanels, kRuns = W::kRuns, kVectors = 8 / kRuns;
  // Tokens whose integer sums run side by side, to hide the latency of the dot products.
  constexpr int kSide = kTokens % 3 == 0 && kRuns == 2 ? 3 : kTokens % 4 == 0 ? 4 : kTokens;
  Floats y[kPanels * kTokens];
  const auto each_sum = [&](auto f) NARROW_INLINE_LAMBDA {
    unroll<kPanels * kTokens>([&](auto i) NARROW_INLINE_LAMBDA {
      constexpr int kPanel = decltype(i)::value / kTokens, kToken = decltype(i)::value % kTokens;
      const int left = features - kPanel * V::kLanes;
      if (kToken < tokens && left > 0) {
        f(y[i.value], out + kToken * out_stride + kPanel * V::kLanes, left < V::kLanes ? left : V::kLanes);
      }
    });
  };
  if constexpr (!W::kStreams) {
    // The outputs of many tokens exceed the L2 cache: their lines are asked for before the sums are ready.
    unroll<kPanels * kTokens>([&](auto i) NARROW_INLINE_LAMBDA {
      constexpr int kPanel = decltype(i)::value / kTokens, kToken = decltype(i)::value % kTokens;
      if (kToken < tokens) __builtin_prefetch(out + kToken * out_stride + kPanel * V::kLanes, 1);
    });
  }
  unroll<kPanels * kTokens>([&](auto i) NARROW_INLINE_LAMBDA { y[i.value] = V::zero(); });
  if (!from_zero) {
    each_sum([](Floats& sum, const float* at, int n) NARROW_INLINE_LAMBDA { sum = V::load_first(at, n); });
  }
  for (std::int64_t u = 0; u < units; ++u) {
    typename W::Scales unit_scales;
    W::load_scales(scales, unit_scales);
    scales += W::kScaleBytes;
    for (int g = 0; g < W::kGroups; ++g) {
      typename W::Codes w;
      Floats scale[kPanels * kRuns], neg_min[kPanels * kRuns];
      W::codes(codes, w);
      W::scales(unit_scales, g, scale, neg_min);
      if constexpr (W::kStreams) fetch_ahead<W::kGroupBytes>(codes);
      unroll<kTokens / kSide>([&](auto part) NARROW_INLINE_LAMBDA {
        constexpr int kFirst = decltype(part)::value * kSide;
        Ints sum[kRuns][kPanels * kSide];
        unroll<kRuns>([&](auto r) NARROW_INLINE_LAMBDA {
          constexpr int kRun = decltype(r)::value;
          unroll<kPanels * kSide>([&](auto i) NARROW_INLINE_LAMBDA {
            const int at = kRun * kTokens + kFirst + i.value % kSide;
            sum[kRun][i.value] = V::broadcast(kStart ? x.start[at] : 0);
          });
          V::template dots<W::kMaxLevel, kRun * kVectors, kVectors, kPanels, kSide>(
              w, x.q + kFirst * kGroup + kRun * kSumRun, sum[kRun]);
        });
        unroll<kPanels * kSide>([&](auto i) NARROW_INLINE_LAMBDA {
          constexpr int kPanel = decltype(i)::value / kSide, kToken = kFirst + decltype(i)::value % kSide;
          Floats& sum_y = y[kPanel * kTokens + kToken];
          Floats v = V::mul(V::to_float(sum[0][i.value]), scale[kPanel * kRuns]);
          if constexpr (kRuns == 2) v = V::fma(V::to_float(sum[1][i.value]), scale[kPanel * kRuns + 1], v);
          sum_y = V::fma(v, V::broadcast(x.scale[kToken]), sum_y);
          if constexpr (W::kMinima) {
            unroll<kRuns>([&](auto r) NARROW_INLINE_LAMBDA {
              const float shift = x.shift[r.value * kTokens + kToken];
              sum_y = V::fma(neg_min[kPanel * kRuns + r.value], V::broadcast(shift), sum_y);
            });
          }
        });
      });
      codes += W::kGroupBytes;
      x.q += kTokens * kGroup;
      x.scale += kTokens;
      if constexpr (kStart) x.start += kRuns * kTokens;
      if constexpr (W::kMinima) x.shift += kRuns * kTokens;
    }
  }
  each_sum([](Floats& sum, float* at, int n) NARROW_INLINE_LAMBDA { V::store_first(at, sum, n); });
}

// Whether scratch already holds what `kernel` makes of the rows x; notes that it will.
[[gnu::always_inline]] static inline bool is_prepared(const QuantizedRows& x, std::uint64_t kernel,
                                                      std::byte* scratch) {
  auto* at = reinterpret_cast<PreparedFor*>(scratch);
  const bool same = x.id != 0 && at->id == x.id && at->kernel == kernel;
  at->id = x.id;
  at->kernel = kernel;
  return same;
}

// The kernels of one format.
template <class V, Format kFormat>
struct Kernel {
  using W = PackedWeights<V, kFormat>;
  template <int kPanels>
  using Expanded = ExpandedWeights<V, kPanels, W::kRuns, W::kMinima, V::level_class(W::kMaxLevel)>;
  using E = Expanded<V::kTilePanels>;
  static constexpr int kLanes = V::kLanes, kRuns = W::kRuns;
  static constexpr bool kStart = W::kOffset != 0;
  static constexpr auto kPrepared = static_cast<std::uint64_t>(kFormat);

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
  // Groups of a stretch: whole units, as equal as can be, few enough to stay in L1.
  static constexpr std::int64_t stretch_groups(std::int64_t k) {
    constexpr std::int64_t kFit = V::kBlockBytes / (E::kGroupBytes + E::kScaleBytes) / W::kGroups;
    constexpr std::int64_t kMost = kFit < 1 ? 1 : kFit;
    const std::int64_t units = k / W::kLayout.unit, stretches = (units + kMost - 1) / kMost;
    return (units + stretches - 1) / stretches * W::kGroups;
  }
  static constexpr std::size_t expanded_bytes(std::int64_t k) {
    return static_cast<std::size_t>(stretch_groups(k) * (E::kGroupBytes + E::kScaleBytes));
  }
  // Tiles that meet a panel in one pass.
  static constexpr std::int64_t tiles_per_pass(std::int64_t k) {
    const std::int64_t fit = kTokenBlockBytes / static_cast<std::int64_t>(tile_bytes(k, V::kTileTokens));
    return fit < 4 ? 4 : fit;
  }
  static std::size_t scratch_bytes(std::int64_t k, std::int64_t m) {
    if (k == 0) return 0;
    if (m <= V::kFusedTokens) return kPreparedBytes + tile_bytes(k, V::kFusedTokens);
    const std::int64_t tiles = (m + V::kTileTokens - 1) / V::kTileTokens, pass = tiles_per_pass(k);
    return kPreparedBytes + expanded_bytes(k) +
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
    const bool ready = is_prepared(x, kPrepared, scratch);
    scratch += kPreparedBytes;
    if (!ready) make_tile<kTokens>(x, 0, tokens, scratch);
    const Tile tile = tile_at<kTokens>(x, 0, scratch);
    const std::int64_t codes_bytes = x.k / kGroup * W::kGroupBytes;
    const auto step = static_cast<std::int64_t>(bytes_of_panel(x.k));
    for (std::int64_t n = 0; n < n_rows; n += kLanes, panels += step) {
      const int features = static_cast<int>(n_rows - n < kLanes ? n_rows - n : kLanes);
      // The loop over codes leaves out as many bytes as the scales take, before the next panel's share.
      for (std::int64_t i = codes_bytes; i < step; i += 64) fetch_ahead<64>(panels + i);
      multiply_tile<W, kStart, kTokens>(panels, panels + codes_bytes, x.k / W::kLayout.unit, tile, true,
                                        out + n, out_stride, tokens, features);
    }
  }

  // Groups first .. first + groups of one panel, as panel number `index` of an Expanded<kPanels>.
  template <int kPanels>
  static void expand(const std::byte* panel, std::int64_t k, std::int64_t first, std::int64_t groups,
                     int index, std::byte* out) {
    using X = Expanded<kPanels>;
    const std::byte* codes = panel + first * W::kGroupBytes;
    const std::byte* scales = panel + k / kGroup * W::kGroupBytes + first / W::kGroups * W::kScaleBytes;
    auto* out_scales = reinterpret_cast<float*>(out + groups * X::kGroupBytes) + index * X::kPanelScales;
    out += index * X::kPanelGroupBytes;
    for (std::int64_t u = 0; u < groups / W::kGroups; ++u, scales += W::kScaleBytes) {
      typename W::Scales unit_scales;
      W::load_scales(scales, unit_scales);
      for (int g = 0; g < W::kGroups; ++g) {
        typename W::Codes w;
        typename V::Floats scale[kRuns], neg_min[kRuns];
        W::codes(codes, w);
        W::scales(unit_scales, g, scale, neg_min);
        unroll<8>([&](auto c) NARROW_INLINE_LAMBDA { V::store(out + c.value * 4 * kLanes, w.w[c.value]); });
        unroll<kRuns>([&](auto r) NARROW_INLINE_LAMBDA {
          V::store_floats(out_scales + r.value * kLanes, scale[r.value]);
          if constexpr (W::kMinima)
            V::store_floats(out_scales + (kRuns + r.value) * kLanes, neg_min[r.value]);
        });
        codes += W::kGroupBytes;
        out += X::kGroupBytes;
        out_scales += X::kScaleBytes / 4;
      }
    }
  }

  // f(Index<size>) for the smallest size of 1, 2, 4, kTileTokens that holds `tokens`.
  template <class F>
  [[gnu::always_inline]] static inline void with_tile_size(int tokens, F&& f) {
    if (tokens == 1) return f(Index<1>{});
    if (tokens == 2) return f(Index<2>{});
    if constexpr (V::kTileTokens > 4) {
      if (tokens > 4) return f(Index<V::kTileTokens>{});
    }
    f(Index<4>{});
  }

  // kPanels panels, of which the last may be filled partly, times tokens begin .. end of x in tiles.
  template <int kPanels>
  static void multiply_panels(const std::byte* panels, int features, const QuantizedRows& x,
                              std::int64_t begin, std::int64_t end, const std::byte* tiles, float* out,
                              std::int64_t out_stride, std::byte* expanded) {
    using X = Expanded<kPanels>;
    const std::int64_t groups = x.k / kGroup, stretch = stretch_groups(x.k);
    const std::size_t tile_step = tile_bytes(x.k, V::kTileTokens);
    for (std::int64_t g = 0; g < groups; g += stretch) {
      const std::int64_t count = groups - g < stretch ? groups - g : stretch;
      for (int p = 0; p < kPanels; ++p) {
        expand<kPanels>(panels + static_cast<std::size_t>(p) * bytes_of_panel(x.k), x.k, g, count, p,
                        expanded);
      }
      const std::byte* tile = tiles;
      for (std::int64_t t = begin; t < end; t += V::kTileTokens, tile += tile_step) {
        const int tokens = static_cast<int>(end - t < V::kTileTokens ? end - t : V::kTileTokens);
        with_tile_size(tokens, [&](auto size) NARROW_INLINE_LAMBDA {
          constexpr int kSize = decltype(size)::value;
          Tile at = tile_at<kSize>(x, t, tile);
          at.q += g * kSize * kGroup;
          at.scale += g * kSize;
          if constexpr (kStart) at.start += g * kRuns * kSize;
          if constexpr (W::kMinima) at.shift += g * kRuns * kSize;
          multiply_tile<X, kStart, kSize>(expanded, expanded + count * X::kGroupBytes, count, at, g == 0,
                                          out + t * out_stride, out_stride, tokens, features);
        });
      }
    }
  }

  static void multiply_expanded(const std::byte* panels, std::int64_t n_rows, const QuantizedRows& x,
                                float* out, std::int64_t out_stride, std::byte* scratch) {
    constexpr int kTokens = V::kTileTokens, kStep = V::kTilePanels * kLanes;
    const std::size_t tile_step = tile_bytes(x.k, kTokens);
    const std::int64_t pass_tokens = tiles_per_pass(x.k) * kTokens;
    // Several passes overwrite each other's tiles.
    const bool ready = is_prepared(x, kPrepared, scratch) && x.m <= pass_tokens;
    scratch += kPreparedBytes;
    std::byte* tiles = scratch + expanded_bytes(x.k);
    for (std::int64_t begin = 0; begin < x.m; begin += pass_tokens) {
      const std::int64_t end = begin + pass_tokens < x.m ? begin + pass_tokens : x.m;
      for (std::int64_t t = begin; t < end && !ready; t += kTokens) {
        const int tokens = static_cast<int>(end - t < kTokens ? end - t : kTokens);
        std::byte* at = tiles + static_cast<std::size_t>((t - begin) / kTokens) * tile_step;
        with_tile_size(tokens, [&](auto size) NARROW_INLINE_LAMBDA {
          make_tile<decltype(size)::value>(x, t, tokens, at);
        });
      }
      for (std::int64_t n = 0; n < n_rows; n += kStep) {
        const std::byte* at = panels + static_cast<std::size_t>(n / kLanes) * bytes_of_panel(x.k);
        const int features = static_cast<int>(n_rows - n < kStep ? n_rows - n : kStep);
        if (V::kTilePanels == 1 || features <= kLanes) {
          multiply_panels<1>(at, features, x, begin, end, tiles, out + n, out_stride, scratch);
        } else {
          multiply_panels<V::kTilePanels>(at, features, x, begin, end, tiles, out + n, out_stride, scratch);
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
