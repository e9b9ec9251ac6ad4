// The list of architectures, and configurations from and to files through it.
#pragma once

#include <filesystem>
#include <functional>
#include <span>

#include "base/result.h"
#include "io/gguf/metadata.h"
#include "model/arch/arch.h"

namespace narrow::model {

// In a stable order; names of GGUF may repeat (llama: dense and with experts).
std::span<const Arch* const> all_archs();

// The row of a configuration that one of the readers below made.
const Arch& arch_of(const ModelConfig& config);

// `file` is named in errors. kUnsupported for an unknown model_type or general.architecture lists those
// known; kCorrupt names a missing or senseless key and its value.
Result<ModelConfig> config_from_hf(const Json& config, const std::string& file);
// Metadata does not tell which tensors are there: refine_from_tensors() adds that.
Result<ModelConfig> config_from_gguf(const io::gguf::Metadata& metadata, const std::string& file);

// What only the tensors tell: vocabulary size, tied head, biases, expert layers, rope factors.
struct TensorFacts {
  std::function<bool(const std::string& name)> has;
  std::function<std::vector<float>(const std::string& name)> values;  // of a small f32 tensor that is there
  std::int64_t embedding_rows = 0;
};
void refine_from_tensors(ModelConfig& config, const TensorFacts& facts);

// general.architecture and the architecture's own keys.
void config_to_gguf(const ModelConfig& config, io::gguf::Metadata& metadata);
// config.json without dtype and token ids. kUnsupported where the Hugging Face class cannot say it.
Result<Json> config_to_hf(const ModelConfig& config);

// All tensors of such a model, in the order in which files list them.
std::vector<TensorRule> tensor_map(const ModelConfig& config);

}  // namespace narrow::model
