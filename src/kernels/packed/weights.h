// Reading panels (layout.h) into registers. Included by the instruction sets' own files only; everything is a
// template on the vector class V of the instruction set, whose type makes the instances its own.
//
// V provides (R = kLanes 32-bit lanes, one per row of the panel):
//   kLanes, kUnsignedCodes: whether dots takes levels 0..255; else 8-bit codes come as signed bytes
//   kTilePanels, kTileTokens, kFusedTokens, kBlockBytes: see multiply.h;  level_class(max_level)
//   Bytes (4 R bytes), Ints (R int32), Floats (R fp32)
//   load, store: 4 R bytes at any alignment
//   shift<n>(b): 32-bit lanes right by n bits (left for n < 0)
//   mask(b, m): b & m in every byte;  merge(a, b, m): a | (b & m)
//   lookup(table, b): table[b[i]] within 16 bytes, b[i] < 16;  load_table(t): 16 bytes for lookup
//   subtract(b, v): bytes minus v
//   spread_crumbs(p): 2 R bytes at p, then the same bytes with every 32-bit word shifted right by 2
//   load_f16, load_u8, load_i8 (p): R numbers to Floats;  half_exponents(p): 2^(e - 128) of R bytes
//   load_floats, store_floats(p, f);  load_first(p, n), store_first(p, f, n): the first n lanes
//   broadcast(float), broadcast(int), zero, mul, fma(a, b, c) = a * b + c, negate, to_float(Ints)
//   dots<kMaxLevel, kFirst, N, P, B>(codes, q, sums): sums[p * B + b] += products of the code vectors kFirst
//   ..
//     kFirst + N of panel p (codes.get<p, c>()) and the 4 N int8 at q + 32 b
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/packed/layout.h"
#include "kernels/packed/unroll.h"

namespace narrow::kernels::packed {

// The weights of one format as they lie in a panel.
template <class V, Format kFormat>
struct PackedWeights {
  using Vec = V;
  using Bytes = typename V::Bytes;
  using Floats = typename V::Floats;

  static constexpr Layout kLayout = layout_of(kFormat);
  static constexpr int kLanes = V::kLanes, kPanels = 1;
  static constexpr bool kStreams = true;  // from memory
  static constexpr int kGroups = kLayout.groups(), kRuns = kLayout.runs();
  static constexpr bool kMinima = kLayout.minima;
  static constexpr int kMaxLevel = kLayout.max_level();
  static constexpr int kOffset = kLayout.wide() && !V::kUnsignedCodes ? 0 : kLayout.offset;
  static constexpr int kGroupBytes = kLayout.group_bytes() * kLanes;
  static constexpr int kScaleBytes = kLayout.scale_bytes() * kLanes;

  static constexpr bool kSuper = kLayout.values > 0 && !kLayout.exponent();
  static constexpr bool kUnpacks = kSuper && kLayout.value_bits < 8;
  static constexpr bool kSignedValues = kLayout.value_offset != 0 || kLayout.value_bits == 8;

  // The scales of a unit.
  struct Scales {
    Floats d, neg_min;
    const std::uint8_t* values;
    alignas(64) std::uint8_t unpacked[kUnpacks ? kLayout.values * kLanes : 1];
  };

  [[gnu::always_inline]] static inline void load_scales(const std::byte* p, Scales& s) {
    if constexpr (kLayout.exponent()) {
      s.d = V::half_exponents(p);
    } else {
      s.d = V::load_f16(p);
    }
    if constexpr (kMinima) {
      s.neg_min = V::load_f16(p + 2 * kLanes);
      // q4_1 and q5_1 add their min, the others take dmin * mn off.
      if constexpr (kSuper) s.neg_min = V::negate(s.neg_min);
    }
    if constexpr (kSuper) {
      const std::byte* v = p + 2 * kLayout.halves * kLanes;
      if constexpr (kUnpacks) {
        unpack_values(v, s.unpacked);
        s.values = s.unpacked;
      } else {
        s.values = reinterpret_cast<const std::uint8_t*>(v);
      }
    }
  }

  // S and -M of the runs of group g of the unit.
  [[gnu::always_inline]] static inline void scales(const Scales& s, int g, Floats* scale, Floats* neg_min) {
    if constexpr (!kSuper) {
      scale[0] = s.d;
      if constexpr (kMinima) neg_min[0] = s.neg_min;
    } else {
      unroll<kRuns>([&](auto r) NARROW_INLINE_LAMBDA {
        const std::uint8_t* v = s.values + (g * kRuns + r.value) * kLanes;
        scale[r.value] = V::mul(s.d, kSignedValues ? V::load_i8(v) : V::load_u8(v));
        if constexpr (kMinima) {
          neg_min[r.value] = V::mul(s.neg_min, V::load_u8(v + kLayout.values / 2 * kLanes));
        }
      });
    }
  }

  // The eight code vectors of a group, unpacked.
  struct Codes {
    Bytes w[8];
    template <int kPanel, int kVector>
    [[gnu::always_inline]] inline Bytes get() const {
      return w[kVector];
    }
  };
  [[gnu::always_inline]] static inline void codes(const std::byte* p, Codes& out) {
    Bytes* w = out.w;
    constexpr int kBits = kLayout.bits, kVector = 4 * kLanes;
    if constexpr (kBits == 8) {
      unroll<8>([&](auto c) NARROW_INLINE_LAMBDA { w[c.value] = V::load(p + c.value * kVector); });
    } else {
      constexpr int kLow = kBits >= 4 ? 4 : 2;
      if constexpr (kLow == 4) {
        unroll<4>([&](auto v) NARROW_INLINE_LAMBDA {
          const Bytes pairs = V::load(p + v.value * kVector);
          w[v.value] = V::mask(pairs, 15);
          w[v.value + 4] = V::mask(V::template shift<4>(pairs), 15);
        });
      } else {
        unroll<8>([&](auto c) NARROW_INLINE_LAMBDA {
          constexpr int kShift = 2 * (decltype(c)::value % 4);
          w[c.value] = V::mask(V::template shift<kShift>(V::load(p + c.value / 4 * kVector)), 3);
        });
      }
      const std::byte* rest = p + kLow * kVector;
      constexpr int kRest = kBits - kLow;
      if constexpr (kRest != 0) {
        unroll<8>([&](auto c) NARROW_INLINE_LAMBDA {
          constexpr int kCode = decltype(c)::value;
          constexpr int kAt = kRest == 1 ? kCode : 2 * (kCode % 4);  // lowest bit of this code in the plane
          const Bytes plane = V::load(rest + (kRest == 1 ? 0 : kCode / 4) * kVector);
          w[kCode] = V::merge(w[kCode], V::template shift<kAt - kLow>(plane), ((1 << kRest) - 1) << kLow);
        });
      }
      if constexpr (kLayout.levels != Levels::kNone) {
        constexpr LevelTable kTable = level_table();
        const Bytes table = V::load_table(kTable.bytes);
        unroll<8>([&](auto c) NARROW_INLINE_LAMBDA { w[c.value] = V::lookup(table, w[c.value]); });
      }
    }
  }

 private:
  struct LevelTable {
    std::uint8_t bytes[16];
  };
  static constexpr LevelTable level_table() {
    LevelTable t{};
    for (int i = 0; i < 16; ++i) {
      const int level = kLayout.levels == Levels::kE2M1 ? kE2M1[i] : kNonLinear[i];
      t.bytes[i] = static_cast<std::uint8_t>(level + kOffset);
    }
    return t;
  }

  // values * R small integers to bytes.
  [[gnu::always_inline]] static inline void unpack_values(const std::byte* p, std::uint8_t* out) {
    constexpr int kVector = 4 * kLanes;
    constexpr int kPairs = kLayout.values / 8;  // vectors of nibbles
    unroll<kPairs>([&](auto v) NARROW_INLINE_LAMBDA {
      constexpr int kLow = decltype(v)::value, kHigh = kLow + kPairs;
      const Bytes pairs = V::load(p + kLow * kVector);
      Bytes low = V::mask(pairs, 15), high = V::mask(V::template shift<4>(pairs), 15);
      if constexpr (kLayout.value_bits == 6) {
        static_assert(kPairs <= 2);
        Bytes crumbs;
        if constexpr (kPairs == 1) {
          crumbs = V::spread_crumbs(p + kVector);
          low = V::merge(low, V::template shift<-4>(crumbs), 0x30);
          high = V::merge(high, crumbs, 0x30);
        } else {
          crumbs = V::load(p + kPairs * kVector);
          low = V::merge(low, V::template shift<2 * kLow - 4>(crumbs), 0x30);
          high = V::merge(high, V::template shift<2 * kHigh - 4>(crumbs), 0x30);
        }
      }
      if constexpr (kLayout.value_offset != 0) {
        low = V::subtract(low, kLayout.value_offset);
        high = V::subtract(high, kLayout.value_offset);
      }
      V::store(out + kLow * kVector, low);
      V::store(out + kHigh * kVector, high);
    });
  }
};

// A stretch of kPanelCount panels unpacked to scratch: one byte per level, S and -M as fp32. One type serves
// all formats of the same arithmetic. Codes: per group and panel eight code vectors. Scales, in a region of
// their own: per group and panel the S of its runs, then their -M.
template <class V, int kPanelCount, int kRunsPerGroup, bool kHasMinima, int kLevel>
struct ExpandedWeights {
  using Vec = V;
  using Bytes = typename V::Bytes;
  using Floats = typename V::Floats;

  static constexpr int kLanes = V::kLanes, kPanels = kPanelCount;
  static constexpr bool kStreams = false;
  static constexpr int kGroups = 1, kRuns = kRunsPerGroup;
  static constexpr bool kMinima = kHasMinima;
  static constexpr int kMaxLevel = kLevel;
  static constexpr int kPanelGroupBytes = 8 * 4 * kLanes;
  static constexpr int kPanelScales = kRuns * (kMinima ? 2 : 1) * kLanes;
  static constexpr int kGroupBytes = kPanels * kPanelGroupBytes;
  static constexpr int kScaleBytes = kPanels * kPanelScales * 4;

  struct Scales {
    const float* values;
  };

  [[gnu::always_inline]] static inline void load_scales(const std::byte* p, Scales& s) {
    s.values = reinterpret_cast<const float*>(p);
  }
  // scale [panels, runs], neg_min [panels, runs]
  [[gnu::always_inline]] static inline void scales(const Scales& s, int /*g*/, Floats* scale,
                                                   Floats* neg_min) {
    unroll<kPanels>([&](auto p) NARROW_INLINE_LAMBDA {
      unroll<kRuns>([&](auto r) NARROW_INLINE_LAMBDA {
        const float* at = s.values + p.value * kPanelScales + r.value * kLanes;
        scale[p.value * kRuns + r.value] = V::load_floats(at);
        if constexpr (kMinima) neg_min[p.value * kRuns + r.value] = V::load_floats(at + kRuns * kLanes);
      });
    });
  }

  // Code vectors stay in L1 until they are used: with two panels there are more than registers.
  struct Codes {
    const std::byte* at;
    template <int kPanel, int kVector>
    [[gnu::always_inline]] inline Bytes get() const {
      return V::load(at + kPanel * kPanelGroupBytes + kVector * 4 * kLanes);
    }
  };
  [[gnu::always_inline]] static inline void codes(const std::byte* p, Codes& out) { out.at = p; }
};

}  // namespace narrow::kernels::packed
