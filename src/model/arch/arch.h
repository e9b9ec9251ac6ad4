// What narrow knows about one architecture. A new one is a file that fills an Arch, and a row in registry.cc.
// Sources of the facts: the model classes of Hugging Face transformers (config.json, tensor names) and
// https://github.com/ggml-org/ggml/blob/master/docs/gguf.md with llama.cpp's converter (keys, canonical
// layout).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "model/arch/fields.h"
#include "model/config.h"
#include "tensor/tensor.h"

namespace narrow::model {

// How a canonical tensor is made from Hugging Face's. "Rows" are contiguous rows; of a 1-D tensor, its
// elements.
enum class Layout : std::uint8_t {
  kCopy,
  kRopePairs,   // rows of each head reordered from halves (i, i + d/2) to pairs (2i, 2i + 1)
  kFusedHeads,  // rows [head, {q,k,v}, d] reordered to [{q,k,v}, head, d]
  kTranspose,   // Conv1D: stored [n_in, n_out]
  kAddOne,      // a norm's gain stored as an offset from one; f32
  kStack,       // n tensors stacked: [n, n_out, n_in]
  kValues,      // not in the checkpoint: computed from config.json; f32
};

struct TensorRule {
  std::string name;  // canonical (GGUF)
  Shape shape;       // canonical
  Layout layout = Layout::kCopy;
  std::vector<std::string>
      hf;                  // one name, or one per stacked tensor; a leading '@' stands for the body's prefix
  std::int64_t heads = 0;  // for kRopePairs and kFusedHeads
  std::vector<float> values;  // for kValues
};

// Shape of each Hugging Face tensor behind a rule.
Shape hf_shape(const TensorRule& rule);

struct Arch {
  std::string_view name;                        // general.architecture
  bool moe = false;                             // rows that share a name differ in this
  std::vector<std::string_view> model_types;    // config.json model_type
  std::vector<std::string_view> architectures;  // config.json architectures
  // Prefixes that tensors of the body may have, the one to write first; and the embedding's name after it, by
  // which the prefix in use is recognised.
  std::vector<std::string_view> prefixes = {"model.", ""};
  std::string_view embedding = "embed_tokens.weight";
  // Tensors that a checkpoint may hold and that take no part in the text model.
  std::vector<std::string_view> ignored_suffixes = {".rotary_emb.inv_freq"};
  std::vector<std::string_view> ignored_prefixes = {};
  bool needs_output = false;  // llama.cpp has no tied head here: a tied one is written out
  int sliding_period =
      0;  // with a window, layer i is full where i % period == period - 1; 0: all layers slide
  std::int64_t default_window = 0;  // when GGUF does not say
  double default_theta = 10000.0;
  double default_partial = 1.0;  // part of each head that is rotated

  // What every model of this architecture has in common; called first, with arch and nothing else set.
  void (*traits)(ModelConfig&);
  // Fields beyond (or other than) the common ones. `read_hf` reads all of config.json, through common.h.
  void (*read_hf)(HfFields&, const Arch&, ModelConfig&);
  void (*read_gguf)(GgufFields&, ModelConfig&) = nullptr;
  void (*write_gguf)(const ModelConfig&, io::gguf::Metadata&) = nullptr;
  void (*write_hf)(const ModelConfig&, Json&) = nullptr;
  std::vector<TensorRule> (*tensor_map)(const ModelConfig&);
};

}  // namespace narrow::model
