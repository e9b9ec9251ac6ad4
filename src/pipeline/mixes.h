// The named mixes of types ("q4_k_m"): which format each tensor of a model gets, as llama-quantize chooses,
// with or without an importance matrix (https://github.com/ggml-org/llama.cpp, src/llama-quant.cpp), so that
// a name means the same file everywhere.
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
  kFfnGate,
  kFfnUp,
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
  kMiddle,        // all but the first and last eighth
  kSharedKv,      // four or more query heads share one key/value head
  kFourExperts,   // or more
  kEightExperts,  // Mixtral's shape
  kSpreadOfEightExperts,
};

// Whether a rule asks for importances of the weights, or for their absence.
enum class Needs : std::uint8_t { kNothing, kImportance, kNoImportance };

struct MixRule {
  Role role;
  When when;
  Format format;
  Needs needs = Needs::kNothing;
};

struct Mix {
  std::string_view name;           // lower case
  std::uint32_t file_type;         // GGUF's general.file_type (llama.cpp's LLAMA_FTYPE)
  Format base;                     // of every tensor without an exception
  std::span<const MixRule> rules;  // first match wins
  std::string_view description;
  std::string_view alias_of = {};
};

// Every name that `--type` takes, in order of file size within each family.
std::span<const Mix> all_mixes();
// Any case. Null for an unknown name.
const Mix* find_mix(std::string_view name);
// The same; kInvalidArgument listing the known ones for an unknown name.
Result<const Mix*> require_mix(std::string_view name);

// Types of `tensors` (all of them quantizable; canonical names) before any fallback for row lengths. `tied`:
// the embedding also serves as the output head. `importance`: the encoders get importances of the weights,
// for which llama-quantize chooses other types in places.
std::vector<Format> mix_types(const Mix& mix, const ModelTraits& traits, std::span<const TensorInfo> tensors,
                              bool tied, bool importance = false);

// The format that takes the place of `wanted` for rows of `row_length`; `wanted` itself when they fit.
Format fitting_format(Format wanted, std::int64_t row_length);

// bpw on Llama 3.1 8B's shapes, all tensors counted.
double typical_bpw(const Mix& mix);

// The number in "blk.<n>."; -1 for tensors outside the layers.
std::int64_t layer_of(std::string_view name);

}  // namespace narrow::pipeline
