// The sampler's selection against sorting everything.
#include "runtime/sampling/selection.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "base/rng.h"
#include "runtime/sampling/sampler.h"
#include "testing/testing.h"

namespace narrow::runtime {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

// sampler.h's rules in their plainest form.
class SortingSampler {
 public:
  explicit SortingSampler(const SamplerOptions& o) : o_(o), rng_(o.seed) {}

  std::int32_t sample(std::vector<float> logits, const std::vector<std::int32_t>& history) {
    std::vector<bool> seen(logits.size(), false);
    for (std::size_t i = 0; i < history.size(); ++i) {
      if (history.size() - i > static_cast<std::size_t>(o_.repeat_last)) continue;
      const auto id = static_cast<std::size_t>(history[i]);
      if (seen[id]) continue;
      seen[id] = true;
      logits[id] = logits[id] > 0 ? logits[id] / o_.repeat_penalty : logits[id] * o_.repeat_penalty;
    }
    std::vector<Candidate> c;
    for (std::size_t i = 0; i < logits.size(); ++i) {
      if (std::isfinite(logits[i])) c.push_back({logits[i], static_cast<std::int32_t>(i), 0.0});
    }
    std::sort(c.begin(), c.end(), Better());
    const float best = c.front().logit;
    if (o_.temperature == 0.0f) return c.front().id;
    const bool top_k = o_.top_k > 0 && static_cast<std::size_t>(o_.top_k) < logits.size();
    if (top_k) c.resize(std::min(c.size(), static_cast<std::size_t>(o_.top_k)));
    double total = 0;
    for (const Candidate& x : c) total += std::exp(static_cast<double>(x.logit - best));
    if (o_.top_p < 1.0f) {
      double sum = 0;
      std::size_t n = 0;
      while (n < c.size() && sum < o_.top_p * total) {
        sum += std::exp(static_cast<double>(c[n++].logit - best));
      }
      c.resize(n);
    }
    if (o_.min_p > 0) {
      std::erase_if(c, [&](const Candidate& x) { return x.logit < best + std::log(o_.min_p); });
    }
    if (!top_k && o_.top_p >= 1.0f) {
      std::sort(c.begin(), c.end(), [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
    }
    const auto weight = [&](const Candidate& x) {
      return std::exp((x.logit - static_cast<double>(best)) / o_.temperature);
    };
    total = 0;
    for (const Candidate& x : c) total += weight(x);
    double left = rng_.next_double() * total;
    for (const Candidate& x : c) {
      left -= weight(x);
      if (left < 0) return x.id;
    }
    return c.back().id;
  }

 private:
  SamplerOptions o_;
  Rng rng_;
};

template <class T>
T any_of(Rng& rng, std::initializer_list<T> values) {
  return *(values.begin() + rng.next_u64() % values.size());
}

std::vector<float> random_logits(Rng& rng, std::size_t n) {
  const float spread = any_of(rng, {0.0f, 0.01f, 1.0f, 4.0f, 30.0f, 1000.0f});
  const bool ties = rng.next_u64() % 2 == 0, odd = rng.next_u64() % 3 == 0;
  std::vector<float> logits(n);
  for (float& v : logits) {
    v = spread * rng.normal();
    if (ties) v = std::round(v);
    if (odd && rng.next_u64() % 8 == 0) v = any_of(rng, {kInf, -kInf, std::nanf(""), -0.0f});
  }
  logits[rng.next_u64() % n] = 0.5f;  // at least one is finite
  return logits;
}

TEST(Selection, SamplerEqualsSortingEverything) {
  Rng rng(1);
  for (int trial = 0; trial < 1000; ++trial) {
    const auto n = any_of<std::size_t>(rng, {1, 2, 15, 16, 17, 255, 256, 257, 1000, 5000});
    SamplerOptions o;
    o.temperature = any_of(rng, {0.0f, 0.05f, 0.8f, 1.0f, 3.0f});
    o.top_k = any_of(rng, {0, 0, 1, 2, 5, 40, 300, 6000});
    o.top_p = any_of(rng, {1.0f, 1.0f, 0.95f, 0.5f, 0.999f, 0.01f});
    o.min_p = any_of(rng, {0.0f, 0.0f, 0.05f, 0.5f, 1.0f, 1e-5f});
    o.repeat_penalty = any_of(rng, {1.0f, 1.3f, 0.7f});
    o.repeat_last = any_of(rng, {0, 3, 64});
    o.seed = rng.next_u64();
    ASSERT_OK_AND_ASSIGN(Sampler sampler, Sampler::create(o));
    SortingSampler oracle(o);
    std::vector<std::int32_t> history;
    for (int i = 0; i < 8; ++i) {
      const std::vector<float> logits = random_logits(rng, n);
      ASSERT_OK_AND_ASSIGN(const std::int32_t id, sampler.sample(logits, history));
      ASSERT_EQ(id, oracle.sample(logits, history))
          << "n " << n << " temperature " << o.temperature << " top-k " << o.top_k << " top-p " << o.top_p
          << " min-p " << o.min_p << " penalty " << o.repeat_penalty << " trial " << trial << " draw " << i;
      history.push_back(id);
      history.push_back(static_cast<std::int32_t>(rng.next_u64() % n));
    }
  }
}

TEST(Selection, LargeVocabularyEqualsSortingEverything) {
  Rng rng(2);
  for (const float spread : {1.0f, 3.0f}) {
    std::vector<float> logits(262144);
    for (float& v : logits) v = spread * rng.normal();
    SamplerOptions settings[4];
    settings[0].top_k = 0, settings[0].min_p = 0;
    settings[1].top_k = 0, settings[1].min_p = 0, settings[1].top_p = 1.0f;
    settings[2].top_k = 2000;  // more than there are blocks
    settings[3].top_k = 0, settings[3].top_p = 1.0f;
    for (const SamplerOptions& o : settings) {
      ASSERT_OK_AND_ASSIGN(Sampler sampler, Sampler::create(o));
      SortingSampler oracle(o);
      for (int i = 0; i < 2; ++i) {
        ASSERT_OK_AND_ASSIGN(const std::int32_t id, sampler.sample(logits, {}));
        EXPECT_EQ(id, oracle.sample(logits, {})) << "spread " << spread << " top-k " << o.top_k;
      }
    }
  }
}

TEST(Selection, ExponentialIsAccurate) {
  double worst = 0;
  for (double x = 0.0; x > -708.0; x -= 0.0317) {
    worst = std::max(worst, std::abs(exp_of_negative(x) / std::exp(x) - 1.0));
  }
  EXPECT_LT(worst, 4e-16);
  EXPECT_EQ(exp_of_negative(0.0), 1.0);
  EXPECT_EQ(exp_of_negative(-709.0), 0.0);
  EXPECT_EQ(exp_of_negative(-std::numeric_limits<double>::infinity()), 0.0);
}

TEST(Selection, PrefixIsTheShortestThatReachesTheTarget) {
  Rng rng(3);
  for (int trial = 0; trial < 300; ++trial) {
    std::vector<Candidate> c(1 + rng.next_u64() % 2000);
    const float outlier = any_of(rng, {0.0f, 1e30f, -1e30f});
    const auto kinds = any_of<std::uint64_t>(rng, {1, 50, 100000});
    double total = 0;
    for (std::size_t i = 0; i < c.size(); ++i) {
      // Weights that add up without rounding; many ties.
      c[i] = {static_cast<float>(rng.next_u64() % kinds), static_cast<std::int32_t>(i),
              static_cast<double>(rng.next_u64() % 8)};
      total += c[i].weight;
    }
    c[0].logit += outlier;
    std::vector<Candidate> sorted = c;
    std::sort(sorted.begin(), sorted.end(), Better());
    for (const bool exceed : {false, true}) {
      const double target = std::floor(rng.next_double() * (total + 3));
      std::size_t want = 0;
      double sum = 0;
      while (want < sorted.size()) {
        sum += sorted[want++].weight;
        if (exceed ? sum > target : sum >= target) break;
      }
      EXPECT_EQ(last_of_prefix(c, target, exceed).id, sorted[want - 1].id) << trial;
    }
  }
}

}  // namespace
}  // namespace narrow::runtime
