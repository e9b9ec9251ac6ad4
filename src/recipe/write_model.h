// A trained decoder as a model of floats: a GGUF file or a Hugging Face folder.
#pragma once

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "model/source.h"
#include "narrow/progress.h"
#include "train/decoder.h"

namespace narrow::recipe {

// `base` is what the decoder was made from; its other tensors and its metadata stay. `type`: f32, f16, bf16;
// empty: as the base stores them. Returns the files. Errors as of `narrow convert`.
Result<std::vector<std::filesystem::path>> write_model(const train::Decoder& decoder,
                                                       const std::shared_ptr<const model::ModelSource>& base,
                                                       const std::filesystem::path& output,
                                                       const std::string& type,
                                                       const nlohmann::ordered_json& recipe,
                                                       ProgressSink& progress);

}  // namespace narrow::recipe
