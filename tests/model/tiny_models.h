// The 15 folders of shared/data/tiny-models, and small helpers around them.
#pragma once

#include <array>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "io/gguf/writer.h"
#include "io/safetensors/reader.h"
#include "model/arch/registry.h"
#include "model/source.h"
#include "testing/testing.h"

namespace narrow::model {

inline constexpr std::array kTinyModels = {"gemma2", "gemma3",      "gpt2",    "gpt_neox",  "granite",
                                           "llama",  "llama3-rope", "mistral", "mixtral",   "olmo2",
                                           "phi3",   "qwen2",       "qwen3",   "qwen3_moe", "smollm3"};

inline std::filesystem::path tiny(const std::string& name) {
  return narrow::testing::shared_data() / "tiny-models" / name;
}

inline std::vector<float> read_all(const ModelSource& source, std::size_t i) {
  const TensorInfo& t = source.tensors()[i];
  std::vector<float> x(static_cast<std::size_t>(t.shape.elements()));
  EXPECT_OK(source.read_f32(i, 0, t.shape.rows(), x.data()));
  return x;
}

// The source's tensors and metadata as a GGUF file, as convert does it.
inline Status write_gguf(const ModelSource& source, const std::filesystem::path& file) {
  NARROW_ASSIGN(io::gguf::Metadata m, source.gguf_metadata());
  NARROW_ASSIGN(auto writer, io::gguf::Writer::create(file, m, source.tensors()));
  for (std::size_t i = 0; i < source.tensors().size(); ++i) {
    std::vector<std::byte> bytes(source.tensors()[i].bytes());
    NARROW_TRY(source.read_raw(i, 0, source.tensors()[i].shape.rows(), bytes.data()));
    NARROW_TRY(writer->write(i, 0, bytes));
  }
  return writer->finish();
}

}  // namespace narrow::model
