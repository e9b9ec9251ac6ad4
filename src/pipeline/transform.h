// Changes of a model's weights that leave what it computes as it is and make it easier to quantize: rotations
// and scales, folded into the neighbours of the matrices that they help.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "calib/stats.h"
#include "model/source.h"
#include "narrow/progress.h"

namespace narrow::pipeline {

struct TransformOptions {
  std::vector<Format> types;  // that each tensor of the source will be stored in
  bool search = true;         // of block scales, as the matrices will be quantized
  std::uint64_t seed = 0;     // of rotations
  // By tensor, of the inputs in the source: become those of the result. Inputs that were rotated lose theirs.
  std::map<std::string, std::vector<calib::Moments>, std::less<>>* moments = nullptr;
};

struct TransformInfo {
  std::string_view name, description;
  bool needs_statistics = false;
};
std::span<const TransformInfo> all_transforms();
std::vector<std::string_view> transform_names();
const TransformInfo* find_transform(std::string_view name);  // null: there is none
bool is_transform(std::string_view name);
bool needs_statistics(std::string_view transform);

// The source with the transforms in the order of `names`; its changed tensors are computed as they are read,
// one at a time. `stats` are of the inputs in `source`; may be null for rotations. What was done, and what an
// architecture refuses and why, goes to progress.note. Errors: kInvalidArgument for an unknown name, for
// missing statistics, and for rotations together with what needs statistics (rotate first, calibrate the
// result, then transform that); kCancelled.
Result<std::shared_ptr<const model::ModelSource>> transform(std::shared_ptr<const model::ModelSource> source,
                                                            std::span<const std::string> names,
                                                            const calib::ModelStats* stats,
                                                            const TransformOptions& options,
                                                            ProgressSink& progress);

}  // namespace narrow::pipeline
