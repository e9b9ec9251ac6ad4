#include "runtime/sampling/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "testing/testing.h"

namespace narrow::runtime {
namespace {

SamplerOptions plain() {
  SamplerOptions o;
  o.temperature = 1.0f;
  o.top_k = 0;
  o.top_p = 1.0f;
  o.min_p = 0.0f;
  return o;
}

std::vector<float> logs(std::vector<double> p) {
  std::vector<float> out;
  for (const double v : p) out.push_back(static_cast<float>(std::log(v)));
  return out;
}

// How often each id is drawn.
std::map<std::int32_t, int> draw(const SamplerOptions& options, const std::vector<float>& logits, int n,
                                 const std::vector<std::int32_t>& history = {}) {
  std::map<std::int32_t, int> counts;
  auto sampler = Sampler::create(options);
  EXPECT_TRUE(sampler.ok());
  for (int i = 0; i < n; ++i) {
    const auto id = sampler->sample(logits, history);
    EXPECT_TRUE(id.ok());
    ++counts[*id];
  }
  return counts;
}

std::vector<std::int32_t> ids(const std::map<std::int32_t, int>& counts) {
  std::vector<std::int32_t> out;
  for (const auto& [id, n] : counts) out.push_back(id);
  return out;
}

TEST(Sampler, GreedyTakesTheLowestIdOfATie) {
  SamplerOptions o;
  o.temperature = 0.0f;
  EXPECT_EQ(ids(draw(o, {1.0f, 3.0f, 2.0f, 3.0f}, 5)), std::vector<std::int32_t>{1});
  EXPECT_EQ(ids(draw(o, {-std::numeric_limits<float>::infinity(), -5.0f, std::nanf("")}, 5)),
            std::vector<std::int32_t>{1});
}

TEST(Sampler, FrequenciesMatchTheSoftmax) {
  const std::vector<double> p = {0.5, 0.25, 0.125, 0.0625, 0.0625};
  for (const float temperature : {0.5f, 1.0f, 2.0f}) {
    SamplerOptions o = plain();
    o.temperature = temperature;
    const int n = 40000;
    auto counts = draw(o, logs(p), n);
    double total = 0;
    for (const double v : p) total += std::pow(v, 1.0 / temperature);
    double chi2 = 0;
    for (std::size_t i = 0; i < p.size(); ++i) {
      const double expected = n * std::pow(p[i], 1.0 / temperature) / total;
      const double diff = counts[static_cast<std::int32_t>(i)] - expected;
      chi2 += diff * diff / expected;
    }
    EXPECT_LT(chi2, 18.47) << "temperature " << temperature;  // 99.9 % quantile, 4 degrees of freedom
  }
}

// What each filter leaves of known probabilities.
TEST(Sampler, FiltersKeepWhatTheyShould) {
  const std::vector<float> logits = logs({0.05, 0.4, 0.2, 0.25, 0.1});
  struct Case {
    const char* what;
    int top_k;
    float top_p, min_p;
    std::vector<std::int32_t> kept;
  };
  const Case cases[] = {
      {"nothing", 0, 1.0f, 0.0f, {0, 1, 2, 3, 4}},
      {"top-k 1", 1, 1.0f, 0.0f, {1}},
      {"top-k 3", 3, 1.0f, 0.0f, {1, 2, 3}},
      {"top-k above the vocabulary", 9, 1.0f, 0.0f, {0, 1, 2, 3, 4}},
      {"top-p 0.3 needs one", 0, 0.3f, 0.0f, {1}},
      {"top-p 0.64 needs two", 0, 0.64f, 0.0f, {1, 3}},
      {"top-p 0.66 needs three", 0, 0.66f, 0.0f, {1, 2, 3}},
      {"min-p 0.6 of 0.4 is 0.24", 0, 1.0f, 0.6f, {1, 3}},
      {"min-p 0.2 of 0.4 is 0.08", 0, 1.0f, 0.2f, {1, 2, 3, 4}},
      // Of the best two (0.4, 0.25) the first has 0.615 of their probability: top-p comes after top-k.
      {"top-k then top-p", 2, 0.6f, 0.0f, {1}},
      // top-p divides by all that top-k left, whatever min-p removes.
      {"top-p before min-p", 0, 0.6f, 0.6f, {1, 3}},
  };
  for (const Case& c : cases) {
    SamplerOptions o = plain();
    o.top_k = c.top_k;
    o.top_p = c.top_p;
    o.min_p = c.min_p;
    EXPECT_EQ(ids(draw(o, logits, 2000)), c.kept) << c.what;
  }
}

// Temperature comes last: it must not change which tokens top-p keeps.
TEST(Sampler, TemperatureDoesNotWidenTopP) {
  SamplerOptions o = plain();
  o.top_p = 0.64f;
  o.temperature = 100.0f;
  EXPECT_EQ(ids(draw(o, logs({0.05, 0.4, 0.2, 0.25, 0.1}), 2000)), (std::vector<std::int32_t>{1, 3}));
}

TEST(Sampler, PenaltyMovesBothSigns) {
  SamplerOptions o;
  o.temperature = 0.0f;
  o.repeat_penalty = 2.0f;
  EXPECT_EQ(ids(draw(o, {1.0f, 1.5f}, 1, {1, 1, 1})), std::vector<std::int32_t>{0});  // 1.5 -> 0.75, once
  EXPECT_EQ(ids(draw(o, {-1.5f, -1.0f}, 1, {1})), std::vector<std::int32_t>{0});      // -1 -> -2
  EXPECT_EQ(ids(draw(o, {1.0f, 1.5f}, 1, {0, 7, -1})),
            std::vector<std::int32_t>{1});  // ids outside are ignored
  o.repeat_last = 1;
  EXPECT_EQ(ids(draw(o, {1.0f, 1.5f}, 1, {1, 0})), std::vector<std::int32_t>{1});  // 1 is out of the window
  o.repeat_last = 0;
  EXPECT_EQ(ids(draw(o, {1.0f, 1.5f}, 1, {1})), std::vector<std::int32_t>{1});
}

TEST(Sampler, SeedDecidesTheSequence) {
  const std::vector<float> logits(1000, 0.0f);
  const auto sequence = [&](std::uint64_t seed) {
    SamplerOptions o = plain();
    o.seed = seed;
    auto s = Sampler::create(o);
    std::vector<std::int32_t> out;
    for (int i = 0; i < 20; ++i) out.push_back(*s->sample(logits, {}));
    return out;
  };
  EXPECT_EQ(sequence(1), sequence(1));
  EXPECT_NE(sequence(1), sequence(2));
}

// The partial selection must agree with sorting everything.
TEST(Sampler, LargeVocabularyKeepsTheSortedPrefix) {
  Rng rng(3);
  std::vector<float> logits(262144);
  for (float& v : logits) v = rng.normal();
  std::vector<std::int32_t> order(logits.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::int32_t>(i);
  std::sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    return logits[static_cast<std::size_t>(a)] > logits[static_cast<std::size_t>(b)];
  });
  double total = 0, sum = 0;
  for (const float v : logits) total += std::exp(static_cast<double>(v));
  std::size_t kept = 0;
  while (sum < 0.01 * total)
    sum += std::exp(static_cast<double>(logits[static_cast<std::size_t>(order[kept++])]));
  const std::set<std::int32_t> allowed(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(kept));
  SamplerOptions o = plain();
  o.top_p = 0.01f;
  for (const auto& [id, n] : draw(o, logits, 50)) EXPECT_TRUE(allowed.count(id)) << id;
}

TEST(Sampler, BadOptionsAreNamed) {
  const float nan = std::nanf("");
  struct Case {
    const char* option;
    SamplerOptions o;
  };
  std::vector<Case> cases;
  const auto add = [&](const char* option, auto change) {
    SamplerOptions o;
    change(o);
    cases.push_back({option, o});
  };
  add("temperature", [](auto& o) { o.temperature = -0.1f; });
  add("temperature", [&](auto& o) { o.temperature = nan; });
  add("top-k", [](auto& o) { o.top_k = -1; });
  add("top-p", [](auto& o) { o.top_p = 0.0f; });
  add("top-p", [](auto& o) { o.top_p = 1.5f; });
  add("min-p", [](auto& o) { o.min_p = -0.5f; });
  add("repetition penalty", [](auto& o) { o.repeat_penalty = 0.0f; });
  add("repeat-last", [](auto& o) { o.repeat_last = -1; });
  for (const Case& c : cases) {
    const auto s = Sampler::create(c.o);
    ASSERT_FALSE(s.ok()) << c.option;
    EXPECT_EQ(s.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(s.error().message.find(c.option), std::string::npos) << s.error().message;
  }
}

TEST(Sampler, NoFiniteLogitIsNumeric) {
  auto s = Sampler::create({});
  const std::vector<float> logits = {std::nanf(""), -std::numeric_limits<float>::infinity()};
  const auto id = s->sample(logits, {});
  ASSERT_FALSE(id.ok());
  EXPECT_EQ(id.error().code, ErrorCode::kNumeric);
  EXPECT_FALSE(s->sample({}, {}).ok());
}

}  // namespace
}  // namespace narrow::runtime
