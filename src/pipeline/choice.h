// The multiple-choice knapsack: one option of each class, least cost, within a limit.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

namespace narrow::pipeline {

struct Choice {
  double weight = 0, cost = 0;  // both >= 0 and finite
};

// Which option of every class to take so that the sum of costs is least while the sum of weights is at most
// `limit`; nullopt when even the lightest options weigh more. Classes must not be empty. Bounds come from the
// Lagrangian relaxation, the rest from dynamic programming over sums that no other beats (Pisinger 1995, "A
// minimal algorithm for the multiple-choice knapsack problem"): exact as long as at most kMaxSums sums remain
// at a time; beyond that, sums nearly as heavy as each other are told apart by their bound alone. Ties go to
// the earlier option: the result depends on nothing but the arguments.
std::optional<std::vector<std::size_t>> choose(std::span<const std::vector<Choice>> classes, double limit);

inline constexpr std::size_t kMaxSums = 20000;

}  // namespace narrow::pipeline
