// What Gemma 2 and 3 share.
#pragma once

#include "model/arch/common.h"

namespace narrow::model {

// Norms around each block with gains stored as offsets from one; GGUF holds the sums.
std::vector<TensorRule> gemma_tensors(const ModelConfig& c);
void gemma_traits(ModelConfig& c);
// embedding_scale, and attn_scale from query_pre_attn_scalar.
void gemma_read_scales(HfFields& f, ModelConfig& c);
void gemma_write_hf(const ModelConfig& c, Json& j);
// GGUF keeps no query_pre_attn_scalar: llama.cpp takes n_embd / n_head for the 27B (known by its number of
// layers), head_dim for all others. narrow writes <arch>.attention.scale where that would be wrong, and reads
// it back.
void gemma_read_gguf_scales(GgufFields& f, std::int64_t layers_of_27b, ModelConfig& c);
void gemma_write_gguf_scales(const ModelConfig& c, std::int64_t layers_of_27b, io::gguf::Metadata& m);

}  // namespace narrow::model
