// The named mixes of types ("q4_k_m"): which format each tensor of a model gets, as llama-quantize chooses
// without an importance matrix (https://github.com/ggml-org/llama.cpp, src/llama-quant.cpp), so that a name
// means the same file everywhere.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "tensor/tensor.h"

namespace narrow::pipeline {

// What the mixes look at beside names and row lengths.
struct ModelTraits {
  std::string arch;
  std::int64_t n_layer = 0, n_head = 0, n_head_kv = 0, n_expert = 0;
};

// The part of the model that a tensor plays, read off its canonical name.
enum class Role : std::uint8_t {
  kHead,
  kEmbedding,
  kAttnValue,  // attn_v, and what contains it: attn_qkv, attn_kv_b
  kAttnKey,
  kAttnQuery,
  kAttnOutput,
  kFfnDown,
  kOther,
};
Role tensor_role(std::string_view name);

// Where in the model a mix's exception holds.
enum class When : std::uint8_t {
  kAlways,
  kFirstTwo,  // layers 0 and 1
  kFirstFour,
  kFirstEighth,  // of the layers
  kFirstSixteenth,
  kSpread,        // the first and last eighth, and every third layer between
  kSharedKv,      // four or more query heads share one key/value head
  kEightExperts,  // Mixtral's shape
};

struct MixRule {
  Role role;
  When when;
  Format format;
};

struct Mix {
  std::string_view name;           // lower case
  std::uint32_t file_type;         // GGUF's general.file_type (llama.cpp's LLAMA_FTYPE)
  Format base;                     // of every tensor without an exception
  std::span<const MixRule> rules;  // first match wins
  std::string_view description;
  std::string_view alias_of = {};
  bool encodable() const { return format_info(base).can_encode(); }
};

// Every name that `--type` takes, in order of file size within each family; some only known, not encodable.
std::span<const Mix> all_mixes();
// Any case. Null for an unknown name.
const Mix* find_mix(std::string_view name);
// The mix, if narrow can write it; else kInvalidArgument listing the known ones, or kUnsupported.
Result<const Mix*> require_mix(std::string_view name);

// Types of `tensors` (all of them quantizable; canonical names) before any fallback for row lengths. `tied`:
// the embedding also serves as the output head.
std::vector<Format> mix_types(const Mix& mix, const ModelTraits& traits, std::span<const TensorInfo> tensors,
                              bool tied);

// The format that takes the place of `wanted` for rows of `row_length`; `wanted` itself when they fit.
Format fitting_format(Format wanted, std::int64_t row_length);

// bpw on Llama 3.1 8B's shapes, all tensors counted.
double typical_bpw(const Mix& mix);

}  // namespace narrow::pipeline
