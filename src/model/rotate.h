// Rotations that fold into a model's weights (QuaRot, Ashkboos et al. 2024,
// https://arxiv.org/abs/2404.00456): what flows through the model is turned, and turned back by the weights
// that take it in. Only weights change, so the file runs wherever the original ran.
#pragma once

#include <cstdint>
#include <string>

#include "model/transformed.h"

namespace narrow::model {

// Values and their way back: R on every head of v, R^T on every head of attn_output's inputs, a rotation of
// its own for each layer. Possible in every architecture. kNotFound for tensors that are missing.
Status rotate_heads(std::uint64_t seed, TransformedSource& source);

// Why the residual stream cannot be turned, in one sentence; empty when it can. Reads the norms' gains.
Result<std::string> residual_refusal(const ModelSource& source);

// The residual stream: gains of the norms go into the matrices behind them, then embedding and learned
// positions, and all matrices that read or write the stream, are turned by one rotation (one that leaves the
// mean alone where the norms subtract it). kUnsupported with the sentence of residual_refusal.
Status rotate_residual(std::uint64_t seed, TransformedSource& source);

}  // namespace narrow::model
