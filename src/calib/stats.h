// What calibration knows about the inputs of a model's matrices.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/result.h"
#include "ops/matrix.h"

namespace narrow::calib {

constexpr std::size_t kNamed = 6;  // matrices that a note lists before it only counts

// Sums beyond fp32's range end at its largest value.
float to_float(double x);

// Sums over the rows (tokens) that entered one matrix; in fp64, so that a million rows lose nothing.
struct InputStats {
  std::int64_t k = 0;
  std::int64_t rows = 0;           // that were counted: without those that are not finite
  std::int64_t dropped = 0;        // rows with a NaN or infinity
  std::vector<double> sum_square;  // [k]
  std::vector<double> sum;         // [k]; empty where a file does not say
  std::vector<float> abs_max;      // [k]; empty where a file does not say
  // [k, k] sums of x x^T; empty unless asked for.
  AlignedBuffer<float> gram;

  static InputStats of_width(std::int64_t k);  // without rows
  // Adds rows of x [m, k]; rows with a NaN or infinity are dropped and counted. with_gram: Hessians too.
  Status add(ops::ConstMatrix x, bool with_gram = false);
  // Adds another one's sums; what one of the two does not know, the result does not. kInvalidArgument for
  // another k.
  Status merge(const InputStats& other);
  InputStats copy() const;
};

// By canonical tensor name ("blk.0.ffn_up.weight"): one entry, or one per expert.
struct ModelStats {
  std::map<std::string, std::vector<InputStats>> inputs;
  std::vector<std::string> datasets;  // names of the texts
  std::int64_t chunk_tokens = 0;      // tokens of a window
  std::int64_t chunks = 0;            // windows

  // Adds another one's sums. kInvalidArgument names the tensor that differs in its inputs or experts.
  Status merge(const ModelStats& other);
};

// One entry for all experts, as older files have it, becomes one per expert. False: k does not divide.
bool split_experts(std::vector<InputStats>& stats, std::int64_t n_expert);

// Rows below which an expert's own statistics are not trusted alone.
inline constexpr std::int64_t kFewRows = 64;

// What algorithms weigh with. mean_square is finite and positive.
struct Moments {
  std::vector<float> mean_square;  // [k] E[x^2]
  std::vector<float> mean;         // [k] E[x]; empty where it is not known
  std::vector<float> abs_max;      // [k]; empty where it is not known
};

// One for every entry, with the neutral treatment of what calibration did not see, so that no algorithm needs
// one of its own:
//  - an expert with fewer than kFewRows rows: its own moments and those of all experts together, by its share
//    of kFewRows; its abs_max is the largest of all;
//  - inputs that are (almost) always 0: a millionth of the mean over the inputs;
//  - no rows, or nothing but zeros: 1 for every input, mean and abs_max unknown.
std::vector<Moments> moments(const std::vector<InputStats>& stats);

// Lines for the reader about starved experts, inputs that are always 0, dropped rows and matrices without
// data; a line for each kind at most.
std::vector<std::string> findings(const ModelStats& stats);

}  // namespace narrow::calib
