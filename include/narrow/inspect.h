// What is in a model file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "narrow/result.h"

namespace narrow {

struct InspectedTensor {
  std::string name, type;
  std::vector<std::int64_t> shape;
  std::uint64_t bytes = 0;
  double bpw = 0;
};

struct InspectReport {
  std::string kind;          // "GGUF v3", "GGUF v3, 3 parts", "safetensors folder, 4 shards"
  std::string architecture;  // "" for a lone safetensors file
  std::vector<std::pair<std::string, std::string>> metadata;  // key -> value as text; long arrays shortened
  std::vector<InspectedTensor> tensors;
  std::uint64_t parameters = 0, tensor_bytes = 0, file_bytes = 0;
  double bpw = 0;
  std::string to_json() const;
};

// A GGUF, a Hugging Face folder or a single safetensors file.
Result<InspectReport> inspect(const std::filesystem::path& model);

struct TensorStatistics {
  std::string name, type;
  std::uint64_t elements = 0, non_finite = 0, zeros = 0;
  double min = 0, max = 0, mean = 0, stddev = 0, abs_max = 0, kurtosis = 0;
  std::vector<std::uint64_t> histogram;  // equal bins over [min, max]
  struct Error {
    std::string type;  // quantized to (round-to-nearest with search), or the compared file's type
    double bpw = 0, relative_rms = 0, sqnr_db = 0, max_abs = 0;
  };
  std::vector<Error> errors;
  std::string to_json() const;
};

// `types`: formats to try on this tensor (empty: all that fit its rows). `reference`: instead compare with
// the tensor of the same name there.
Result<TensorStatistics> inspect_tensor(const std::filesystem::path& model, const std::string& tensor,
                                        int bins, const std::vector<std::string>& types,
                                        const std::filesystem::path& reference);

}  // namespace narrow
