#include "formats/iq_unit.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "formats/iq_fit.h"
#include "formats/lanes.h"

namespace narrow::formats {
namespace {

constexpr int kFew = 8;         // candidates per list
constexpr int kFewPerPart = 4;  // of each entry of a pair
// How much dearer than the first, on their own, candidates may be.
constexpr float kSpread = 2, kPartSpread = 4;
constexpr int kRounds = 6;
constexpr float kLeastPivot = 1e-6f;  // of the diagonal entry: keeps factors of singular metrics finite

bool odd(std::uint32_t signs) { return (std::popcount(signs) & 1) != 0; }

// e^T M e = sum_p pivot[p] (e_p + sum_{i < p} mix[p][i] e_i)^2, e in the natural or the reverse order.
struct Factor {
  float pivot[8] = {};
  alignas(32) float mix[8][8] = {};

  void decompose(const float* metric, int n, bool reverse) {
    float m[8][8];
    for (int i = 0; i < n; ++i) {
      for (int j = 0; j < n; ++j) m[i][j] = reverse ? metric[(n - 1 - i) * n + n - 1 - j] : metric[i * n + j];
    }
    for (int p = n - 1; p >= 0; --p) {
      const float least = kLeastPivot * (reverse ? metric[(n - 1 - p) * (n + 1)] : metric[p * (n + 1)]);
      pivot[p] = std::max(m[p][p], least);
      const float inverse = pivot[p] > 0 ? 1.0f / pivot[p] : 0.0f;
      for (int i = 0; i < p; ++i) mix[p][i] = m[p][i] * inverse;
      for (int i = 0; i < p; ++i) {
        for (int j = 0; j <= i; ++j) m[i][j] -= m[p][i] * mix[p][j];
      }
    }
  }
};

// A target in units of the scale, the metric, and the best code so far. Candidates are compared eight at a
// time.
class Problem {
 public:
  // n: 4 or 8.
  Problem(int n, float scale, const float* x, const float* metric) : n_(n) {
    const float inverse = 1.0f / scale;
    for (int j = 0; j < n; ++j) wanted_[j] = x[j] * inverse;
    bool mixed = false;
    if (metric == nullptr) {
      for (int j = 0; j < n; ++j) factor_[0].pivot[j] = 1;
    } else {
      factor_[0].decompose(metric, n, false);
      for (int i = 1; i < n; ++i) {
        for (int j = 0; j < i; ++j) mixed |= metric[i * n + j] != 0;
      }
      if (mixed) factor_[1].decompose(metric, n, true);
    }
    // Without mixing the search itself is exact.
    rounds = mixed ? kRounds : 1;
    few = mixed ? kFew : 1;
    few_per_part = mixed ? kFewPerPart : 1;
  }

  // Levels q[n] and their code.
  void offer(const float* q, const IqChoice& choice) {
    for (int j = 0; j < n_; ++j) pending_[j][count_] = q[j];
    choices_[count_] = choice;
    if (++count_ == 8) settle();
  }

  // Compares what was offered. Whether a better code was found since the last call.
  bool improved() {
    if (count_ > 0) settle();
    const bool found = found_;
    found_ = false;
    return found;
  }

  // The separable search of a round: each element's target given the codes of those before it, under the
  // conditional precisions. Orders alternate. The codes before are those of the best code; in the first round
  // of either order, greedy ones by nearest(value) -> level.
  template <class Nearest>
  void aim(int round, Nearest nearest) {
    const bool reverse = round % 2 != 0;
    const Factor& f = factor_[round % 2];
    float error[8];
    for (int p = 0; p < n_; ++p) {
      const int j = reverse ? n_ - 1 - p : p;
      float pull = 0;
      for (int i = 0; i < p; ++i) pull += f.mix[p][i] * error[i];
      target[j] = wanted_[j] + pull;
      weight[j] = f.pivot[p];
      error[p] = wanted_[j] - (round < 2 ? nearest(target[j]) : best_[j]);
    }
  }

  const IqChoice& choice() const { return choice_; }

  alignas(32) float target[8] = {};
  alignas(32) float weight[8] = {};
  int rounds, few, few_per_part;

 private:
  void settle() {
    Lanes error[8], loss{};
    const Factor& f = factor_[0];
    for (int p = 0; p < n_; ++p) {
      error[p] = splat(wanted_[p]) - load_lanes(pending_[p]);
      Lanes sum = error[p];
      for (int i = 0; i < p; ++i) sum += splat(f.mix[p][i]) * error[i];
      loss += splat(f.pivot[p]) * sum * sum;
    }
    for (int c = 0; c < count_; ++c) {
      if (!(loss[c] < loss_)) continue;
      loss_ = loss[c];
      choice_ = choices_[c];
      for (int j = 0; j < n_; ++j) best_[j] = pending_[j][c];
      found_ = true;
    }
    count_ = 0;
  }

  int n_, count_ = 0;
  bool found_ = false;
  float wanted_[8] = {}, best_[8] = {};
  float loss_ = std::numeric_limits<float>::infinity();
  Factor factor_[2];
  alignas(32) float pending_[8][8] = {};
  IqChoice choices_[8], choice_;
};

// Rounds until both orders bring nothing. `list` offers candidates for problem.target and problem.weight.
template <class Nearest, class List>
void search(Problem* problem, Nearest nearest, List list) {
  int idle = 0;
  problem->improved();
  for (int round = 0; round < problem->rounds && idle < 2; ++round) {
    problem->aim(round, nearest);
    list();
    idle = problem->improved() || round < 2 ? 0 : idle + 1;
  }
}

template <class Book>
auto nearest_signed(const Book& book) {
  return [&book](float v) { return std::copysign(book.nearest_level(std::fabs(v)), v); };
}

// Magnitudes and signs of a target.
std::uint8_t split_signs(const float* target, float* magnitude) {
  std::uint32_t signs = 0;
  for (int j = 0; j < 8; ++j) {
    signs |= static_cast<std::uint32_t>(target[j] < 0) << j;
    magnitude[j] = std::fabs(target[j]);
  }
  return static_cast<std::uint8_t>(signs);
}

void signed_levels(const std::int8_t* level, std::uint32_t signs, int n, float* q) {
  for (int j = 0; j < n; ++j) {
    const float v = static_cast<float>(level[j]);
    q[j] = (signs >> j) & 1u ? -v : v;
  }
}

// A candidate for half of a group.
struct Part {
  float q[4];
  std::uint16_t index;
  std::uint8_t signs;  // bits 0 to 3
};

// The cheapest entries of a half under magnitudes t and weights w, straight ones and, if wanted, ones with a
// sign turned. Returns the counts.
struct PartLists {
  Part straight[kFewPerPart], turned[2 * kFewPerPart];
  int n_straight = 0, n_turned = 0;

  PartLists(const IqCodebook4& book, const float* t, const float* w, std::uint32_t natural, bool turn,
            int few) {
    using Turn = IqCodebook4::Turn;
    IqCodebook4::Costs costs;
    book.tabulate(t, w, turn, &costs);
    const auto add = [&](Turn half, int from, Part* out) {
      IqCodebook4::Best list[kFewPerPart];
      const int found = book.nearest_few(costs, half, few, kPartSpread, list);
      for (int i = 0; i < found; ++i) {
        const std::int8_t* level = book.values(list[i].place);
        std::uint32_t signs = natural;
        if (from >= 0) signs ^= 1u << (from + cheapest_turn(t + from, w + from, level + from, 2));
        out[i].index = book.index(list[i].place);
        out[i].signs = static_cast<std::uint8_t>(signs);
        signed_levels(level, signs, 4, out[i].q);
      }
      return found;
    };
    n_straight = add(Turn::kNone, -1, straight);
    if (!turn) return;
    n_turned = add(Turn::kLow, 0, turned);
    n_turned += add(Turn::kHigh, 2, turned + n_turned);
  }
};

}  // namespace

template <bool kEven>
void decide_iq_group(const IqCodebook8& book, float scale, const float* x, const float* metric,
                     IqChoice* choice) {
  Problem problem(8, scale, x, metric);
  alignas(32) float q[8], t[8];
  signed_levels(book.entry(choice->index[0]), choice->signs, 8, q);
  problem.offer(q, *choice);
  search(&problem, nearest_signed(book), [&] {
    const float* w = problem.weight;
    const std::uint8_t natural = split_signs(problem.target, t);
    const bool turn = kEven && odd(natural);
    using Turn = IqCodebook8::Turn;
    IqCodebook8::Costs costs;
    book.tabulate(t, w, turn, &costs);
    const auto offer_few = [&](Turn half, int from) {
      IqCodebook8::Best list[kFew];
      const int n = book.nearest_few(costs, half, problem.few, kSpread, list);
      for (int i = 0; i < n; ++i) {
        const std::int8_t* level = book.values(list[i].place);
        std::uint32_t signs = natural;
        if (from >= 0) signs ^= 1u << (from + cheapest_turn(t + from, w + from, level + from, 4));
        signed_levels(level, signs, 8, q);
        problem.offer(q, {{book.index(list[i].place), 0}, static_cast<std::uint8_t>(signs)});
      }
    };
    if (turn) {
      offer_few(Turn::kLow, 0);
      offer_few(Turn::kHigh, 4);
    } else {
      offer_few(Turn::kNone, -1);
    }
  });
  *choice = problem.choice();
}

template void decide_iq_group<true>(const IqCodebook8&, float, const float*, const float*, IqChoice*);
template void decide_iq_group<false>(const IqCodebook8&, float, const float*, const float*, IqChoice*);

void decide_iq_pair(const IqCodebook4& book, float scale, const float* x, const float* metric,
                    IqChoice* choice) {
  Problem problem(8, scale, x, metric);
  alignas(32) float q[8], t[8];
  for (int h = 0; h < 2; ++h) {
    signed_levels(book.entry(choice->index[h]), choice->signs >> (4 * h), 4, q + 4 * h);
  }
  problem.offer(q, *choice);
  search(&problem, nearest_signed(book), [&] {
    const std::uint8_t natural = split_signs(problem.target, t);
    const bool turn = odd(natural);
    const int few = problem.few_per_part;
    const PartLists low(book, t, problem.weight, natural & 15u, turn, few);
    const PartLists high(book, t + 4, problem.weight + 4, natural >> 4, turn, few);
    const auto offer_pairs = [&](const Part* a, int n_a, const Part* b, int n_b) {
      for (const Part* p = a; p < a + n_a; ++p) {
        std::memcpy(q, p->q, sizeof(p->q));
        for (const Part* r = b; r < b + n_b; ++r) {
          std::memcpy(q + 4, r->q, sizeof(r->q));
          problem.offer(q, {{p->index, r->index}, static_cast<std::uint8_t>(p->signs | (r->signs << 4))});
        }
      }
    };
    if (turn) {
      offer_pairs(low.turned, low.n_turned, high.straight, high.n_straight);
      offer_pairs(low.straight, low.n_straight, high.turned, high.n_turned);
    } else {
      offer_pairs(low.straight, low.n_straight, high.straight, high.n_straight);
    }
  });
  *choice = problem.choice();
}

void decide_iq_quad(const IqCodebook4& book, float scale, const float* x, const float* metric,
                    IqChoice* choice) {
  Problem problem(4, scale, x, metric);
  alignas(32) float q[8], t[8];
  signed_levels(book.entry(choice->index[0]), choice->signs, 4, q);
  problem.offer(q, *choice);
  search(&problem, nearest_signed(book), [&] {
    const std::uint8_t natural = split_signs(problem.target, t);
    IqCodebook4::Costs costs;
    book.tabulate(t, problem.weight, false, &costs);
    IqCodebook4::Best list[kFew];
    const int n = book.nearest_few(costs, IqCodebook4::Turn::kNone, problem.few, kSpread, list);
    for (int i = 0; i < n; ++i) {
      signed_levels(book.values(list[i].place), natural, 4, q);
      problem.offer(q, {{book.index(list[i].place), 0}, static_cast<std::uint8_t>(natural & 15)});
    }
  });
  *choice = problem.choice();
}

void decide_iq1_group(float scale, const float* x, const float* metric, bool free_shift, IqChoice* choice) {
  const IqCodebook8& book = iq1_codebook();
  Problem problem(8, scale, x, metric);
  alignas(32) float q[8], t[8];
  const auto shift_of = [](int negative) { return negative != 0 ? -kIQ1Delta : kIQ1Delta; };
  const auto offer = [&](const std::int8_t* level, std::uint16_t index, int negative) {
    for (int j = 0; j < 8; ++j) q[j] = static_cast<float>(level[j]) + shift_of(negative);
    problem.offer(q, {{index, 0}, static_cast<std::uint8_t>(negative)});
  };
  const int present = choice->signs;
  offer(book.entry(choice->index[0]), choice->index[0], present);
  const auto nearest = [&](float v) { return book.nearest_level(v - shift_of(present)) + shift_of(present); };
  search(&problem, nearest, [&] {
    for (int negative = 0; negative < 2; ++negative) {
      if (!free_shift && negative != present) continue;
      for (int j = 0; j < 8; ++j) t[j] = problem.target[j] - shift_of(negative);
      IqCodebook8::Costs costs;
      book.tabulate(t, problem.weight, false, &costs);
      IqCodebook8::Best list[kFew];
      const int n = book.nearest_few(costs, IqCodebook8::Turn::kNone, problem.few, kSpread, list);
      for (int i = 0; i < n; ++i) offer(book.values(list[i].place), book.index(list[i].place), negative);
    }
  });
  *choice = problem.choice();
}

}  // namespace narrow::formats
