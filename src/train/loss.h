// The loss at the end of the decoder, without all its logits in memory: rows go through the head, the loss
// and the head's backward pass a few at a time (the vocabulary is what makes logits large).
#pragma once

#include <cstdint>
#include <optional>

#include "train/torch.h"

namespace narrow::train {

// What the teacher said at a row: all of it, through its own head, or its likeliest tokens, stored.
struct TeacherHead {
  at::Tensor hidden;  // [m, n_embd]
  at::Tensor weight;  // [n_vocab, n_embd]
};
struct TeacherTopK {
  at::Tensor ids;        // [m, k] int32
  at::Tensor log_probs;  // [m, k]; what is missing to 1 belongs to all other tokens together
};

struct LossInput {
  at::Tensor hidden;       // [m, n_embd], after the final norm and the head's input node
  at::Tensor head_weight;  // [n_vocab, n_embd]
  at::Tensor targets;      // [m] int64: the next tokens
  std::optional<TeacherHead> teacher;
  std::optional<TeacherTopK> top_k;
};

struct LossOptions {
  double kl_weight = 1.0;    // of KL(teacher || student), Hinton et al. 2015; needs a teacher
  double ce_weight = 0.0;    // of next-token cross-entropy
  double temperature = 1.0;  // of both distributions in the KL divergence; its gradient is scaled by T^2
  double logit_scale = 1.0, softcap = 0.0;  // ModelConfig's, of student and teacher
  double rows = 0;                          // the sums are divided by it: the rows of the whole step; 0: m
};

struct Loss {
  at::Tensor value;  // scalar, differentiable in hidden and head_weight: kl_weight * kl + ce_weight * ce
  double kl = 0;     // sum over rows / rows, at temperature 1 only if that is the option's
  double ce = 0;
};

Loss head_loss(const LossInput& input, const LossOptions& options);

}  // namespace narrow::train
