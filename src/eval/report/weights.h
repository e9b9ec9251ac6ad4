// The weights of a model beside its reference's: errors, what a larger type would change, and close-ups.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "eval/report/measurements.h"
#include "model/source.h"
#include "narrow/progress.h"

namespace narrow::eval::report {

// What is known of the inputs of one weight matrix; members may be empty. [k], or [n_expert * k] for a stack
// of experts.
struct InputStatistics {
  std::span<const float> mean_square;  // E[x^2]
  std::span<const float> absmax;
};
// By canonical tensor name. May be empty, or know nothing of a tensor.
using StatisticsOf = std::function<InputStatistics(const std::string& tensor)>;

// kInvalidArgument where the models differ in architecture or a size, or a matrix in shape: names the first
// difference.
Status check_same_shapes(const model::ModelSource& model, const model::ModelSource& reference);

// Every weight matrix of `model`, in the file's order. kNumeric names a tensor with a NaN or infinity,
// kInvalidArgument one whose statistics have another length than its rows.
Result<std::vector<TensorDamage>> compare_weights(const model::ModelSource& model,
                                                  const model::ModelSource& reference,
                                                  const StatisticsOf& statistics, ProgressSink& progress);

// What the next larger type would change, for the tensors with the largest share per byte and per tensor:
// the model's KL divergence taken as a sum of kl_share, each in proportion to the square of its tensor's
// error. The largest change first. The new error is that of round-to-nearest on a sample of rows.
Result<std::vector<Advice>> advise(const model::ModelSource& model, const model::ModelSource& reference,
                                   const std::vector<TensorDamage>& damages, const StatisticsOf& statistics,
                                   ProgressSink& progress);

// kNotFound names a tensor that the model lacks.
Result<CloseUp> close_up(const model::ModelSource& model, const model::ModelSource& reference,
                         const std::string& tensor, const StatisticsOf& statistics);

// The tensors to look at when none are named: those with the largest kl_share.
std::vector<std::string> most_damaged(const std::vector<TensorDamage>& damages, std::size_t count);

// The reference's tensor of that name (a tied head is the embedding), or kInvalidArgument.
Result<std::size_t> counterpart(const model::ModelSource& model, const TensorInfo& tensor,
                                const model::ModelSource& reference);

}  // namespace narrow::eval::report
