// Low-rank updates (LoRA, Hu et al. 2021) for chosen matrices of a decoder; Decoder::merge_loras() adds them
// to the weights at the end.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/result.h"
#include "train/decoder.h"

namespace narrow::train {

struct LoraSpec {
  std::int64_t rank = 16;
  double alpha = 32;  // the update is alpha / rank * b * a
  std::uint64_t seed = 0;
  std::function<bool(const std::string&)> wanted;  // by canonical name; null: is_layer_matrix
};

// What gets an update when nothing else is said: products of the layers, neither embedding nor head.
bool is_layer_matrix(const std::string& name);

// Attaches an update to every matrix of `student` that is wanted: a [rank, k] uniform in +-1/sqrt(k)
// (Kaiming's rule with gain sqrt(1/3), as in the paper's code), by seed and name alone, and b [n, rank] zero,
// so that nothing changes at first. Both require gradients; the matrices themselves no longer do.
// kInvalidArgument: a rank that is no smaller than a matrix, or no matrix wanted.
Status add_loras(Decoder& student, const LoraSpec& spec);

}  // namespace narrow::train
