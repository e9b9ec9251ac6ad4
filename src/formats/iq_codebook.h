// Exact nearest-entry search in the codebooks of the iq formats, under a weight per element.
// A weighted squared distance is a sum over elements, so the distance to an entry is the sum of those to its
// two halves, and a half takes few patterns: 3^4 (iq1, iq2) or 8^2 (iq3). A search tabulates the cost of
// every half pattern; entries lie in buckets by their lower half, and buckets that cannot win are skipped.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "formats/iq_grids.h"
#include "formats/lanes.h"

namespace narrow::formats {

// kLevels: distinct values of an element, ascending. kWidth: elements of an entry.
template <int kLevels, int kWidth>
class IqCodebook {
  static_assert((kLevels == 3 && kWidth == 8) || (kLevels == 8 && kWidth == 4));

 public:
  // A half is the outer product of its "slow" and "fast" parts, each of kPart patterns.
  static constexpr int kPart = kLevels == 3 ? 9 : 8;
  static constexpr int kPatterns = kPart * kPart;
  // Rows of kPart values are written as whole vectors, each next row over the last one's padding.
  static constexpr int kRow = (kPart + 7) / 8 * 8;
  static constexpr int kPadded = kPatterns - kPart + kRow;

  // Costs of all half patterns for one target.
  struct Half {
    alignas(32) float cost[kPadded];
    float least;
  };
  struct Costs {
    Half low, high;
  };
  // An entry by its place in the search order (place 0 is a valid start), and its cost.
  struct Best {
    float cost = std::numeric_limits<float>::infinity();
    int place = 0;
  };

  template <std::size_t kEntries>
  IqCodebook(const IqGrid<kEntries, kWidth>& grid, const std::array<int, kLevels>& levels)
      : grid_(grid[0].data()), entries_(kEntries) {
    for (int l = 0; l < kLevels; ++l) levels_[l] = static_cast<float>(levels[static_cast<std::size_t>(l)]);
    int place = 0;
    for (int p = 0; p < kPatterns; ++p) {
      first_[p] = place;
      for (std::size_t i = 0; i < kEntries; ++i) {
        const auto half = [&](int begin) {
          int pattern = 0;
          for (int j = begin + kWidth / 2 - 1; j >= begin; --j) {
            int l = 0;
            while (levels[static_cast<std::size_t>(l)] != grid[i][static_cast<std::size_t>(j)]) ++l;
            pattern = pattern * kLevels + l;
          }
          return pattern;
        };
        if (half(0) != p) continue;
        Entry& e = entries_[static_cast<std::size_t>(place++)];
        e.index = static_cast<std::uint16_t>(i);
        e.low = static_cast<std::uint8_t>(p);
        e.high = static_cast<std::uint8_t>(half(kWidth / 2));
        for (int j = 0; j < kWidth; ++j) e.value[j] = grid[i][static_cast<std::size_t>(j)];
      }
    }
    first_[kPatterns] = place;
    high_.reserve(kEntries);
    for (const Entry& e : entries_) high_.push_back(e.high);
  }

  std::uint16_t index(int place) const { return entries_[static_cast<std::size_t>(place)].index; }
  // Its kWidth values.
  const std::int8_t* values(int place) const { return entries_[static_cast<std::size_t>(place)].value; }
  // The same, of a grid index.
  const std::int8_t* entry(int index) const { return grid_ + index * kWidth; }
  int size() const { return static_cast<int>(entries_.size()); }

  // Costs w * (t - value)^2 of a target t[kWidth]. With `flipped`, also those of the same patterns with one
  // element of the half negated, the one that costs least.
  void tabulate(const float* t, const float* w, Costs* plain, Costs* flipped) const {
    // By element and level, level-major for three levels and element-major for eight.
    alignas(32) float cost[3 * 8 + 8], extra[3 * 8 + 8];
    if constexpr (kLevels == 3) {
      const Lanes tv = load_lanes(t), wv = load_lanes(w);
      for (int l = 0; l < kLevels; ++l) {
        const Lanes r = tv - splat(levels_[l]);
        store(cost + 8 * l, wv * r * r);
        if (flipped != nullptr) store(extra + 8 * l, splat(4 * levels_[l]) * wv * tv);
      }
    } else {
      const Lanes level = load_lanes(levels_);
      for (int j = 0; j < kWidth; ++j) {
        const Lanes r = splat(t[j]) - level;
        store(cost + 8 * j, splat(w[j]) * r * r);
        if (flipped != nullptr) store(extra + 8 * j, splat(4 * w[j] * t[j]) * level);
      }
    }
    for (int h = 0; h < 2; ++h) {
      alignas(32) float fast[kRow], slow[kRow], fast_extra[kRow], slow_extra[kRow];
      const int j = h * kWidth / 2;
      parts<false>(cost, j, fast, slow);
      Half* half = h == 0 ? &plain->low : &plain->high;
      half->least = outer_sum(fast, slow, half->cost);
      if (flipped == nullptr) continue;
      parts<true>(extra, j, fast_extra, slow_extra);
      Half* other = h == 0 ? &flipped->low : &flipped->high;
      Lanes least = splat(std::numeric_limits<float>::infinity());
      for (int s = 0; s < kPart; ++s) {
        for (int f = 0; f < kRow; f += 8) {
          const int at = s * kPart + f;
          const Lanes v = splat(slow[s]) + load_lanes(fast + f) +
                          min_lanes(splat(slow_extra[s]), load_lanes(fast_extra + f));
          store(other->cost + at, v);
          least = min_lanes(least, v);
        }
      }
      other->least = least_lane(least);
    }
  }

  // Lowers `best` to the cheapest entry, if one is cheaper.
  void nearest(const Half& low, const Half& high, Best* best) const {
    // The entry that won last time bounds the search.
    const Entry& start = entries_[static_cast<std::size_t>(best->place)];
    const float c = low.cost[start.low] + high.cost[start.high];
    if (c < best->cost) best->cost = c;
    for_buckets(low, high.least, best->cost, [&](int p) {
      for (int e = first_[p]; e < first_[p + 1]; ++e) {
        const float sum = low.cost[p] + high.cost[high_[static_cast<std::size_t>(e)]];
        if (sum < best->cost) *best = {sum, e};
      }
      return best->cost;
    });
  }

  // The `count` cheapest entries, cheapest first; places and costs. Returns how many there are.
  int nearest_few(const Half& low, const Half& high, int count, Best* out) const {
    nearest(low, high, out);
    if (count == 1) return 1;
    // Most of them lie in the buckets that are about as good as the best entry's; those come first, so that
    // the bound is tight for the others.
    const float near = 1.5f * out[0].cost;
    constexpr float kFar = std::numeric_limits<float>::infinity();
    int n = 0;
    const auto visit = [&](int p) {
      for (int e = first_[p]; e < first_[p + 1]; ++e) {
        const float sum = low.cost[p] + high.cost[high_[static_cast<std::size_t>(e)]];
        if (n == count && !(sum < out[n - 1].cost)) continue;
        int at = n < count ? n++ : n - 1;
        for (; at > 0 && sum < out[at - 1].cost; --at) out[at] = out[at - 1];
        out[at] = {sum, e};
      }
      return n < count ? kFar : out[n - 1].cost;
    };
    for_buckets(low, high.least, near, [&](int p) {
      visit(p);
      return near;
    });
    for_buckets(low, high.least, n < count ? kFar : out[n - 1].cost, [&](int p) {
      if (low.cost[p] + high.least < near) return n < count ? kFar : out[n - 1].cost;
      return visit(p);
    });
    return n;
  }

  // The level nearest to v.
  float nearest_level(float v) const {
    float best = levels_[0];
    for (int l = 1; l < kLevels; ++l) best = v > 0.5f * (levels_[l - 1] + levels_[l]) ? levels_[l] : best;
    return best;
  }

 private:
  struct Entry {
    std::uint16_t index;
    std::uint8_t low, high;  // patterns
    std::int8_t value[8];
  };

  static void store(float* p, Lanes v) { std::memcpy(p, &v, sizeof(v)); }
  static float least_lane(Lanes v) {
    float m = v[0];
    for (int i = 1; i < 8; ++i) m = v[i] < m ? v[i] : m;
    return m;
  }
  static bool any(IntLanes v) {
    using Wide = std::int64_t __attribute__((vector_size(32)));
    Wide q;
    std::memcpy(&q, &v, sizeof(q));
    return (q[0] | q[1] | q[2] | q[3]) != 0;
  }

  // The fast and slow parts of the half that starts at element j: sums, or minima, over their elements.
  template <bool kMinimum>
  static void parts(const float* term, int j, float* fast, float* slow) {
    if constexpr (kLevels == 3) {
      const auto join = [](float a, float b) { return kMinimum ? (a < b ? a : b) : a + b; };
      for (int f = kPart; f < kRow; ++f) fast[f] = std::numeric_limits<float>::infinity();
      for (int b = 0; b < 3; ++b) {
        for (int a = 0; a < 3; ++a) {
          fast[3 * b + a] = join(term[8 * a + j], term[8 * b + j + 1]);
          slow[3 * b + a] = join(term[8 * a + j + 2], term[8 * b + j + 3]);
        }
      }
    } else {
      store(fast, load_lanes(term + 8 * j));
      store(slow, load_lanes(term + 8 * (j + 1)));
    }
  }

  static float outer_sum(const float* fast, const float* slow, float* out) {
    float least = std::numeric_limits<float>::infinity();
    Lanes v0 = load_lanes(fast);
    for (int s = 0; s < kPart; ++s) {
      for (int f = 0; f < kRow; f += 8) store(out + s * kPart + f, splat(slow[s]) + load_lanes(fast + f));
      least = slow[s] < least ? slow[s] : least;
    }
    float least_fast = least_lane(v0);
    for (int f = 8; f < kPart; ++f) least_fast = fast[f] < least_fast ? fast[f] : least_fast;
    return least + least_fast;
  }

  // Calls visit(pattern) for the lower halves that could lie below the bound; visit returns the new bound.
  template <class Visit>
  void for_buckets(const Half& low, float least_high, float bound, Visit visit) const {
    for (int v = 0; v < kPadded; v += 8) {
      if (!any(load_lanes(low.cost + v) + splat(least_high) < splat(bound))) continue;
      for (int p = v; p < v + 8 && p < kPatterns; ++p) {
        if (low.cost[p] + least_high < bound) bound = visit(p);
      }
    }
  }

  alignas(32) float levels_[8] = {};
  int first_[kPatterns + 1];
  const std::int8_t* grid_;
  std::vector<std::uint8_t> high_;  // the upper halves alone, for the scans
  std::vector<Entry> entries_;
};

using IqCodebook8 = IqCodebook<3, 8>;  // iq1, iq2
using IqCodebook4 = IqCodebook<8, 4>;  // iq3

// Built at first use.
const IqCodebook8& iq1_codebook();
const IqCodebook8& iq2_xxs_codebook();
const IqCodebook8& iq2_xs_codebook();
const IqCodebook8& iq2_s_codebook();
const IqCodebook4& iq3_xxs_codebook();
const IqCodebook4& iq3_s_codebook();

}  // namespace narrow::formats
