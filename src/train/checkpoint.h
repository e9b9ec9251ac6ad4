// A training run on disk: named tensors and what a loop needs to go on exactly, in one safetensors file.
#pragma once

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/result.h"
#include "train/nodes/node.h"
#include "train/torch.h"

namespace narrow::train {

struct Checkpoint {
  // What decides the result of a run, as it was when the checkpoint was made: an object of options.
  nlohmann::ordered_json recipe;
  nlohmann::ordered_json state;  // step, losses so far, and the like
  std::map<std::string, at::Tensor> tensors;
};

// Replaces `path` as a whole or not at all: when writing fails (kNoSpace, checked before it begins; kIo), the
// checkpoint of before stays. Tensors: f32, f64, f16, bf16, i64, i32, i8, u8 or bool, any device, rank at
// most 4.
Status write_checkpoint(const std::filesystem::path& path, const nlohmann::ordered_json& recipe,
                        const nlohmann::ordered_json& state, const std::vector<NamedTensor>& tensors);

// kNotFound, kCorrupt (also: no checkpoint of narrow's), or kRefused: it was made with another recipe than
// `recipe`, whose first different option the message names with both values. A null recipe matches all.
Result<Checkpoint> read_checkpoint(const std::filesystem::path& path, const nlohmann::ordered_json& recipe);

// Copies a checkpoint's tensor into `into`. kCorrupt names what is missing, or has another shape or dtype.
Status restore(const Checkpoint& from, const std::string& name, at::Tensor into);

}  // namespace narrow::train
