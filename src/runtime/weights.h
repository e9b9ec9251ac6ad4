// The weights of a model in the places where the layer graph uses them.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/result.h"
#include "model/source.h"
#include "ops/weight.h"
#include "runtime/session.h"
#include "tensor/tensor.h"

namespace narrow::runtime {

struct Norm {
  std::vector<float> gain, bias;  // bias is empty when there is none
  bool present() const { return !gain.empty(); }
};

// y = x * weight^T + bias; weight [n, k].
struct Linear {
  ops::Weight weight;
  std::vector<float> bias;  // empty when there is none
  bool present() const { return !weight.empty(); }
};

struct LayerWeights {
  Norm attn_norm, post_attn_norm, ffn_norm, post_ffn_norm, q_norm, k_norm;
  // Either qkv, rows [q; k; v], or the three.
  Linear qkv, q, k, v, attn_out;
  // Gated without a gate of its own: up holds the rows [gate; up].
  Linear gate, up, down;
  // Mixture of experts: router [n_expert, n_embd], the others one matrix per expert.
  ops::Weight router;
  std::vector<ops::Weight> gate_experts, up_experts, down_experts;
};

struct ModelWeights {
  TensorView embedding;  // [n_vocab, n_embd]
  TensorView positions;  // [n_ctx_train, n_embd], learned positions only
  ops::Weight head;      // [n_vocab, n_embd]; the embedding when tied
  Norm final_norm;
  std::vector<LayerWeights> layers;
  std::uint64_t bytes = 0;     // of the tensors bound, as stored
  bool any_quantized = false;  // among them
  // Set when the embedding is mapped while its packed form is the head: rows that were looked up are then in
  // memory twice until they are given back (LoadedModel::release_embedding).
  std::optional<std::size_t> twice_mapped;
  std::vector<AlignedBuffer<std::byte>> storage;  // behind the views that the source could not map
  ops::PackedWeights packed;                      // behind the packed forms
};

// Finds every tensor that the config asks for. Errors name tensor, shape and the expected shape; a tensor
// that has no place in the graph is kUnsupported, as results without it would be wrong.
// Matrices with integer kernels are packed; mapped pages that only packing has read are given back, so that
// memory holds the weights once.
Result<ModelWeights> bind_weights(const model::ModelSource& source, const LoadOptions& options = {});
}  // namespace narrow::runtime
