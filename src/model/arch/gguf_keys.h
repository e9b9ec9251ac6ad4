// The GGUF keys that architectures share, to and from a configuration.
#pragma once

#include "model/arch/arch.h"

namespace narrow::model {

// All of n_layer, n_embd, ... rope, sliding windows, softcaps, experts; sizes c.layers.
void read_gguf_keys(GgufFields& f, const Arch& arch, ModelConfig& c);
// Every key that llama.cpp reads for these architectures, and narrow's own where GGUF has none (ignored
// elsewhere): <arch>.rope.scaling.llama3.*, and the sliding window of architectures to which llama.cpp gives
// none.
void write_gguf_keys(const ModelConfig& c, const Arch& arch, io::gguf::Metadata& m);

}  // namespace narrow::model
