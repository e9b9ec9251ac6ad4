#include "pipeline/choice.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>

namespace narrow::pipeline {
namespace {

struct Option {
  double weight = 0, cost = 0;
  std::size_t index = 0;  // in the caller's class
  double reduced = 0;     // cost + lambda * weight above the least of its class
};

// Options of one class that no other beats: weights ascend, costs descend.
std::vector<Option> undominated(const std::vector<Choice>& options) {
  std::vector<Option> sorted;
  for (std::size_t i = 0; i < options.size(); ++i) sorted.push_back({options[i].weight, options[i].cost, i});
  std::stable_sort(sorted.begin(), sorted.end(), [](const Option& a, const Option& b) {
    return a.weight != b.weight ? a.weight < b.weight : a.cost < b.cost;
  });
  std::vector<Option> kept;
  for (const Option& o : sorted) {
    if (kept.empty() || o.cost < kept.back().cost) kept.push_back(o);
  }
  return kept;
}

// From one corner of the lower convex hull of a class to the next.
struct Step {
  std::size_t cls = 0, from = 0, to = 0;
  double weight = 0, gain = 0;
  double slope() const { return gain / weight; }
};

void add_hull_steps(std::size_t cls, const std::vector<Option>& options, std::vector<Step>& out) {
  std::size_t at = 0;
  while (at + 1 < options.size()) {
    Step best;
    for (std::size_t to = at + 1; to < options.size(); ++to) {
      const Step s{cls, at, to, options[to].weight - options[at].weight, options[at].cost - options[to].cost};
      if (best.weight == 0 || s.slope() >= best.slope()) best = s;
    }
    out.push_back(best);
    at = best.to;
  }
}

// A sum over the first classes.
struct Sum {
  double weight = 0, cost = 0, reduced = 0;
  std::uint32_t parent = 0, option = 0;
};

class Solver {
 public:
  Solver(std::span<const std::vector<Choice>> classes, double limit) : limit_(limit) {
    for (const auto& c : classes) classes_.push_back(undominated(c));
  }

  std::optional<std::vector<std::size_t>> solve() {
    double least = 0;
    for (const auto& c : classes_) least += c.front().weight;
    if (least > limit_) return std::nullopt;
    greedy(least);
    if (!at_best_) exact();
    std::vector<std::size_t> out;
    for (std::size_t i = 0; i < classes_.size(); ++i) out.push_back(classes_[i][chosen_[i]].index);
    return out;
  }

 private:
  // Steps in order of gain per weight while they fit: a feasible choice, and the multiplier at which the
  // first one does not.
  void greedy(double weight) {
    std::vector<Step> steps;
    for (std::size_t i = 0; i < classes_.size(); ++i) add_hull_steps(i, classes_[i], steps);
    std::stable_sort(steps.begin(), steps.end(),
                     [](const Step& a, const Step& b) { return a.slope() > b.slope(); });
    chosen_.assign(classes_.size(), 0);
    at_best_ = true;
    for (const Step& s : steps) {
      if (chosen_[s.cls] != s.from) continue;  // a step before it did not fit
      if (weight + s.weight > limit_) {
        if (at_best_) lambda_ = s.slope();
        at_best_ = false;
        continue;
      }
      chosen_[s.cls] = s.to;
      weight += s.weight;
    }
  }

  void exact() {
    const std::size_t n = classes_.size();
    // Heavy classes first: light ones then fill what is left.
    std::vector<std::size_t> order(n);
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
      return classes_[a].back().weight > classes_[b].back().weight;
    });
    double bound = -lambda_ * limit_, best = 0;
    for (std::size_t i = 0; i < n; ++i) {
      double least = std::numeric_limits<double>::infinity();
      for (const Option& o : classes_[i]) least = std::min(least, o.cost + lambda_ * o.weight);
      for (Option& o : classes_[i]) o.reduced = o.cost + lambda_ * o.weight - least;
      bound += least;
      best += classes_[i][chosen_[i]].cost;
    }
    std::vector<double> rest(n + 1, 0.0);  // least weight of the classes still to come
    for (std::size_t i = n; i > 0; --i) rest[i - 1] = rest[i] + classes_[order[i - 1]].front().weight;

    std::vector<std::vector<Sum>> stages(n + 1);
    stages[0].push_back({});
    for (std::size_t i = 0; i < n; ++i) {
      // Nothing can come of a sum whose bound is no better than what is already known.
      const auto hopeless = [&](const Sum& s) {
        return s.weight + rest[i + 1] > limit_ || bound + s.reduced >= best;
      };
      stages[i + 1] = extend(stages[i], classes_[order[i]], hopeless);
      if (stages[i + 1].empty()) return;  // the greedy choice is the best there is
    }
    // Costs descend along the last stage.
    std::uint32_t at = static_cast<std::uint32_t>(stages[n].size()) - 1;
    if (stages[n][at].cost >= best) return;
    for (std::size_t i = n; i > 0; --i) {
      const Sum& s = stages[i][at];
      chosen_[order[i - 1]] = s.option;
      at = s.parent;
    }
  }

  template <class Hopeless>
  std::vector<Sum> extend(const std::vector<Sum>& from, const std::vector<Option>& options,
                          const Hopeless& hopeless) const {
    std::vector<Sum> all;
    for (std::size_t o = 0; o < options.size(); ++o) {
      for (std::size_t p = 0; p < from.size(); ++p) {
        const Sum s{from[p].weight + options[o].weight, from[p].cost + options[o].cost,
                    from[p].reduced + options[o].reduced, static_cast<std::uint32_t>(p),
                    static_cast<std::uint32_t>(o)};
        if (!hopeless(s)) all.push_back(s);
      }
    }
    std::stable_sort(all.begin(), all.end(), [](const Sum& a, const Sum& b) {
      return a.weight != b.weight ? a.weight < b.weight : a.cost < b.cost;
    });
    std::vector<Sum> kept;
    for (const Sum& s : all) {
      if (kept.empty() || s.cost < kept.back().cost) kept.push_back(s);
    }
    if (kept.size() > kMaxSums) thin_out(kept);
    return kept;
  }

  // The best bound of each of kMaxSums ranges of weights.
  static void thin_out(std::vector<Sum>& sums) {
    const double low = sums.front().weight, width = (sums.back().weight - low) / kMaxSums;
    std::vector<Sum> kept;
    std::size_t range = std::numeric_limits<std::size_t>::max();
    for (const Sum& s : sums) {
      const auto r = std::min(kMaxSums - 1, static_cast<std::size_t>((s.weight - low) / width));
      if (r != range) {
        kept.push_back(s);
        range = r;
      } else if (s.reduced < kept.back().reduced) {
        kept.back() = s;
      }
    }
    sums = std::move(kept);
  }

  double limit_, lambda_ = 0;
  bool at_best_ = false;  // every class has its least cost
  std::vector<std::vector<Option>> classes_;
  std::vector<std::size_t> chosen_;
};

}  // namespace

std::optional<std::vector<std::size_t>> choose(std::span<const std::vector<Choice>> classes, double limit) {
  return Solver(classes, limit).solve();
}

}  // namespace narrow::pipeline
