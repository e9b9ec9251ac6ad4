#include "pipeline/choice.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>

#include "base/rng.h"

namespace narrow::pipeline {
namespace {

using Classes = std::vector<std::vector<Choice>>;

struct Total {
  double weight = 0, cost = 0;
};

Total total(const Classes& classes, const std::vector<std::size_t>& chosen) {
  Total t;
  for (std::size_t i = 0; i < classes.size(); ++i) {
    t.weight += classes[i][chosen[i]].weight;
    t.cost += classes[i][chosen[i]].cost;
  }
  return t;
}

// The least cost of all combinations; nullopt when none is within the limit.
std::optional<double> brute_force(const Classes& classes, double limit) {
  std::optional<double> best;
  std::vector<std::size_t> at(classes.size(), 0);
  for (;;) {
    const Total t = total(classes, at);
    if (t.weight <= limit && (!best || t.cost < *best)) best = t.cost;
    std::size_t i = 0;
    while (i < at.size() && ++at[i] == classes[i].size()) at[i++] = 0;
    if (i == at.size()) return best;
  }
}

TEST(Choice, IsWhatTryingEverythingFinds) {
  Rng rng(1);
  int feasible = 0, infeasible = 0;
  for (int round = 0; round < 400; ++round) {
    const bool whole = round % 2 == 0;  // small whole numbers have many ties
    const auto number = [&] {
      return whole ? static_cast<double>(rng.next_u64() % 12) : rng.next_double() * 10;
    };
    Classes classes(1 + rng.next_u64() % 6);
    double most = 0;
    for (auto& c : classes) {
      c.resize(1 + rng.next_u64() % 5);
      double heaviest = 0;
      for (Choice& o : c) {
        o = {number(), number()};
        heaviest = std::max(heaviest, o.weight);
      }
      most += heaviest;
    }
    const double limit = most * rng.next_double();
    const auto expected = brute_force(classes, limit);
    const auto chosen = choose(classes, limit);
    ASSERT_EQ(chosen.has_value(), expected.has_value()) << round;
    if (!chosen) {
      ++infeasible;
      continue;
    }
    ++feasible;
    const Total t = total(classes, *chosen);
    EXPECT_LE(t.weight, limit) << round;
    EXPECT_NEAR(t.cost, *expected, 1e-9) << round;
    EXPECT_EQ(choose(classes, limit), chosen) << round;
  }
  EXPECT_GT(feasible, 200);
  EXPECT_GT(infeasible, 10);
}

TEST(Choice, EdgesOfTheLimit) {
  const Classes classes = {{{2, 5}, {4, 1}}, {{3, 7}, {5, 0}}};
  EXPECT_FALSE(choose(classes, 4.999));
  EXPECT_EQ(*choose(classes, 5), (std::vector<std::size_t>{0, 0}));
  EXPECT_EQ(*choose(classes, 7), (std::vector<std::size_t>{0, 1}));  // 5 rather than 8
  EXPECT_EQ(*choose(classes, 9), (std::vector<std::size_t>{1, 1}));
  EXPECT_EQ(*choose(classes, 1e30), (std::vector<std::size_t>{1, 1}));
  EXPECT_EQ(*choose(Classes{}, 0), std::vector<std::size_t>{});
}

// Sizes and losses like those of a model of 80 layers: fills the limit, soon.
TEST(Choice, FillsALargeModelToTheByte) {
  Rng rng(3);
  constexpr double kBits[] = {2.625, 3.4375, 4.25, 4.5, 5.5, 6.5625, 8.5};
  Classes classes;
  double least = 0, most = 0;
  for (int i = 0; i < 560; ++i) {
    const double weights = 1e6 * static_cast<double>(1 + rng.next_u64() % 60);
    const double sensitivity = std::exp(2 * static_cast<double>(rng.normal()));
    auto& c = classes.emplace_back();
    for (const double bits : kBits) {
      c.push_back({weights * bits / 8, sensitivity * std::exp2(-2 * bits) * (0.8 + 0.4 * rng.next_double())});
    }
    least += c.front().weight;
    most += c.back().weight;
  }
  for (const double share : {0.02, 0.3, 0.7}) {
    const double limit = least + share * (most - least);
    const auto start = std::chrono::steady_clock::now();
    const auto chosen = choose(classes, limit);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    ASSERT_TRUE(chosen);
    const Total t = total(classes, *chosen);
    EXPECT_LE(t.weight, limit);
    EXPECT_GT(t.weight, limit * (1 - 1e-4)) << share;
    EXPECT_LT(seconds, 60) << share;
  }
}

}  // namespace
}  // namespace narrow::pipeline
