// How large a model file this machine can run.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "model/config.h"

namespace narrow::pipeline {

// What the system would give this process without swapping: Linux's MemAvailable, and what is left of the
// limits of its control groups (v1 or v2). kUnsupported where the system does not tell.
Result<std::uint64_t> available_memory();

// Of a run with `n_ctx` positions, beside the weights: keys and values in f16, the activations of a run of
// tokens, logits, and the program itself. Sliding layers keep their window only.
Result<std::uint64_t> run_memory(const model::ModelConfig& config, std::int64_t n_ctx);

// Bytes that the file may have; weights are in memory once, in about the bytes that they take in the file.
// kInvalidArgument: n_ctx out of range; kOutOfMemory: nothing is left for weights.
Result<std::uint64_t> fitting_file_bytes(const model::ModelConfig& config, std::int64_t n_ctx,
                                         std::uint64_t available);

}  // namespace narrow::pipeline
