// What the machine could do at most, measured with the threads in use, and what a token costs of it.
#pragma once

#include <cstdint>
#include <span>

#include "model/config.h"
#include "tensor/tensor.h"

namespace narrow::eval {

// Bytes per second that all threads together read from a buffer of `bytes` bytes, cut into one contiguous
// part per thread: the best of several passes over at least `seconds`. bytes >= 1. Throws std::bad_alloc.
double read_bandwidth(std::uint64_t bytes, double seconds);

// int8 operations per second (two per multiplication) of all threads together, with the best dot product of
// the kernels in use and no memory traffic: the best of several runs over at least `seconds`.
double int8_peak(double seconds);

// A size that no cache holds: twice the last-level cache, at least 256 MiB and at most 1 GiB.
std::uint64_t uncached_bytes();

struct Limits {
  double int8_operations_per_s = 0;
  // From memory, over a buffer of uncached_bytes().
  double memory_bytes_per_s = 0;
  std::uint64_t memory_buffer_bytes = 0;
  // Over a buffer as large as what one token reads of the model (at most uncached_bytes()): a model that
  // stays in the last-level cache is read faster than memory is. The limit of decoding.
  double model_bytes_per_s = 0;
  std::uint64_t model_buffer_bytes = 0;
};

// All of them; the buffers are freed again. Throws std::bad_alloc.
Limits measure_limits(std::uint64_t model_bytes);

// Work of one pass through the layers for `rows` tokens at once. With experts, `rows` tokens are taken to
// choose different ones, as far as there are any.
struct PassCost {
  double weight_bytes = 0;    // read once per pass: all weights but the embedding rows that are not used
  double layer_products = 0;  // multiplications by weights of the layers, per token
  double head_products = 0;   // multiplications by the output layer, per row of logits
};
PassCost pass_cost(std::span<const TensorInfo> tensors, const model::ModelConfig& config, std::int64_t rows);

// Positions that the token at `position` (0-based) attends to, its own included, summed over the layers:
// sliding layers see their window only. Bytes of keys and values read are in proportion.
double attended_positions(const model::ModelConfig& config, std::int64_t position);

}  // namespace narrow::eval
