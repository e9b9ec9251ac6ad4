// Exact nearest-entry search in the codebooks of the iq formats, under a weight per element.
// A weighted squared distance is a sum over elements, so the distance to an entry is the sum of those to its
// two halves, and a half takes few patterns: 3^4 (iq1, iq2) or 8^2 (iq3). A search tabulates the costs of the
// patterns of the upper half; entries lie in buckets by their lower half, and buckets that cannot win are
// skipped.
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

  // Costs of the two parts of a half, and what turning the sign of one element of the part adds (the
  // cheapest).
  struct Parts {
    alignas(32) float fast[kRow], fast_turn[kRow];
    float slow[kPart], slow_turn[kPart];
    float least_fast, least_fast_turned;
  };
  // All that a search needs to know of a target.
  struct Costs {
    Parts low, high_parts;
    alignas(32) float high[kPadded], high_turned[kPadded];
    float least_high, least_high_turned;
  };
  // The sign of one element turned, the cheapest, in no half or in one.
  enum class Turn : std::uint8_t { kNone, kLow, kHigh };
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

  // Costs w * (t - value)^2 of a target t[kWidth]; `turned`: those of turned signs too.
  void tabulate(const float* t, const float* w, bool turned, Costs* out) const {
    // By element and level, level-major for three levels and element-major for eight.
    alignas(32) float cost[3 * 8 + 8], extra[3 * 8 + 8];
    if constexpr (kLevels == 3) {
      const Lanes tv = load_lanes(t), wv = load_lanes(w);
      for (int l = 0; l < kLevels; ++l) {
        const Lanes r = tv - splat(levels_[l]);
        store(cost + 8 * l, wv * r * r);
        if (turned) store(extra + 8 * l, splat(4 * levels_[l]) * wv * tv);
      }
    } else {
      const Lanes level = load_lanes(levels_);
      for (int j = 0; j < kWidth; ++j) {
        const Lanes r = splat(t[j]) - level;
        store(cost + 8 * j, splat(w[j]) * r * r);
        if (turned) store(extra + 8 * j, splat(4 * w[j] * t[j]) * level);
      }
    }
    out->least_high_turned = 0;
    for (int h = 0; h < 2; ++h) {
      Parts& p = h == 0 ? out->low : out->high_parts;
      parts<false>(cost, h * kWidth / 2, p.fast, p.slow);
      p.least_fast = least_of(p.fast);
      if (!turned) continue;
      parts<true>(extra, h * kWidth / 2, p.fast_turn, p.slow_turn);
      p.least_fast_turned = p.fast[0] + p.fast_turn[0];
      for (int f = 1; f < kPart; ++f) {
        p.least_fast_turned = least(p.least_fast_turned, p.fast[f] + p.fast_turn[f]);
      }
    }
    const Parts& p = out->high_parts;
    for (int s = 0; s < kPart; ++s) {
      for (int f = 0; f < kRow; f += 8) {
        store(out->high + s * kPart + f, splat(p.slow[s]) + load_lanes(p.fast + f));
        if (turned) {
          store(out->high_turned + s * kPart + f,
                splat(p.slow[s]) + load_lanes(p.fast + f) +
                    min_lanes(splat(p.slow_turn[s]), load_lanes(p.fast_turn + f)));
        }
      }
    }
    out->least_high = least_of(p.slow) + p.least_fast;
    if (!turned) return;
    out->least_high_turned = row_least(p, 0, true);
    for (int s = 1; s < kPart; ++s) {
      out->least_high_turned = least(out->least_high_turned, row_least(p, s, true));
    }
  }

  // Lowers `best` to the cheapest entry, if one is cheaper.
  void nearest(const Costs& c, Turn turn, Best* best) const {
    // The entry that won last time bounds the search.
    const float* high = turn == Turn::kHigh ? c.high_turned : c.high;
    const Entry& start = entries_[static_cast<std::size_t>(best->place)];
    const float sum =
        pattern_cost(c.low, start.low / kPart, start.low % kPart, turn == Turn::kLow) + high[start.high];
    if (sum < best->cost) best->cost = sum;
    for_buckets(c, turn, best->cost, [&](int p, float cost) {
      for (int e = first_[p]; e < first_[p + 1]; ++e) {
        const float total = cost + high[high_[static_cast<std::size_t>(e)]];
        if (total < best->cost) *best = {total, e};
      }
      return best->cost;
    });
  }

  // The cheapest entries, at most `count` and at most `factor` times as dear as the cheapest, which comes
  // first. Returns how many there are: at least one.
  int nearest_few(const Costs& c, Turn turn, int count, float factor, Best* out) const {
    *out = {};
    nearest(c, turn, out);
    if (count == 1) return 1;
    const float* high = turn == Turn::kHigh ? c.high_turned : c.high;
    float bound = factor * out[0].cost;
    int n = 1;
    const int cheapest = out[0].place;
    for_buckets(c, turn, bound, [&](int p, float cost) {
      for (int e = first_[p]; e < first_[p + 1]; ++e) {
        const float sum = cost + high[high_[static_cast<std::size_t>(e)]];
        if (!(sum < bound) || e == cheapest) continue;
        int at = n < count ? n++ : n - 1;
        for (; at > 1 && sum < out[at - 1].cost; --at) out[at] = out[at - 1];
        out[at] = {sum, e};
        if (n == count) bound = out[n - 1].cost;
      }
      return bound;
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
  static float least(float a, float b) { return a < b ? a : b; }
  static float least_of(const float* v) {
    float m = v[0];
    for (int i = 1; i < kPart; ++i) m = least(m, v[i]);
    return m;
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

  static float pattern_cost(const Parts& p, int s, int f, bool turned) {
    const float cost = p.slow[s] + p.fast[f];
    return turned ? cost + least(p.slow_turn[s], p.fast_turn[f]) : cost;
  }
  // The least cost of the patterns with slow part s.
  static float row_least(const Parts& p, int s, bool turned) {
    if (!turned) return p.slow[s] + p.least_fast;
    return p.slow[s] + least(p.slow_turn[s] + p.least_fast, p.least_fast_turned);
  }

  // Calls visit(pattern, its cost) for the lower halves that could lie below the bound; visit returns the new
  // bound.
  template <class Visit>
  void for_buckets(const Costs& c, Turn turn, float bound, Visit visit) const {
    const bool turned = turn == Turn::kLow;
    const float rest = turn == Turn::kHigh ? c.least_high_turned : c.least_high;
    for (int s = 0; s < kPart; ++s) {
      if (!(row_least(c.low, s, turned) + rest < bound)) continue;
      for (int f = 0; f < kPart; ++f) {
        const float cost = pattern_cost(c.low, s, f, turned);
        if (cost + rest < bound) bound = visit(s * kPart + f, cost);
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
