// What a quantization will do to every tensor, decided from names, shapes and options alone.
#pragma once

#include <filesystem>
#include <vector>

#include "io/gguf/metadata.h"
#include "model/source.h"
#include "narrow/quantize.h"
#include "pipeline/method_spec.h"
#include "pipeline/mixes.h"
#include "quant/quantizer.h"

namespace narrow::pipeline {

struct Plan {
  QuantizePlan report;
  std::vector<Format> types;  // one per source tensor
  std::vector<bool> asked;    // one per source tensor: a rule or an option names its type
  const Mix* mix = nullptr;
  MethodSpec method;
  std::vector<TensorInfo> outputs;  // one per source tensor
};

// Types and reasons; sizes and bpw. Touches no file: `source_name` is for messages. Errors:
// kInvalidArgument: unknown type or method, a bad rule, a rule that matches or changes nothing, a rule whose
// type cannot hold a matched tensor's rows; kUnsupported: a type without encoder; kRefused: requantizing, or
// fallbacks with `strict`.
Result<Plan> decide_types(std::string_view source_name, const ModelTraits& traits,
                          std::span<const TensorInfo> tensors, const QuantizeOptions& options);

// decide_types for an open model, then output size (with `metadata`), peak memory and free disk.
Result<Plan> make_plan(const model::ModelSource& source, const QuantizeOptions& options,
                       const io::gguf::Metadata& metadata);

// kRefused: a tensor of the source is in `from`, a quantized format, already.
Error requantize_error(std::string_view source_name, Format from);

// kInvalidArgument when `output` is the model at `source`, one of its files, or a link to one.
Status refuse_same_file(const std::filesystem::path& source, const std::filesystem::path& output);

// kRefused for an existing file unless `overwrite`; kInvalidArgument for a folder and kNotFound for a missing
// one.
Status check_output_path(const std::filesystem::path& output, bool overwrite);

// kNoSpace when `needed` bytes do not fit where `output` goes.
Status check_free_disk(const std::filesystem::path& output, std::uint64_t needed);

// A format that GGUF can hold and narrow can write, for options that name one; `option` is for messages.
Result<Format> require_tensor_type(std::string_view option, std::string_view name);

ModelTraits traits_of(const model::ModelConfig& config);

// Rows of one tensor that are worked on at a time: a fixed share of memory, whatever the number of threads.
std::int64_t rows_per_chunk(std::int64_t row_length);

}  // namespace narrow::pipeline
