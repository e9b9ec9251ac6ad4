// Types tensor by tensor: the least damage within a size, or the smallest file within a damage.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "calib/stats.h"
#include "calib/walk.h"
#include "io/gguf/metadata.h"
#include "model/overlay.h"
#include "narrow/progress.h"
#include "narrow/quantize.h"
#include "pipeline/damage.h"
#include "pipeline/plan.h"
#include "pipeline/plan_file.h"
#include "pipeline/probe.h"

namespace narrow::pipeline {

// True when the options ask for a size, a KL or free memory: such runs need held-out windows.
bool asks_for_allocation(const QuantizeOptions& options);
// kInvalidArgument: more than one of the four targets, or one of them or a plan together with `type` or
// `pure`; a target out of range; a plan to save without a target.
Status check_targets(const QuantizeOptions& options);

// Windows to quantize with, and others, every few, to judge by.
struct HeldOut {
  calib::TokenWindows fit, judge;
};
HeldOut hold_out(const calib::TokenWindows& all, std::int64_t judge_windows = 8);

struct AllocateInputs {
  std::shared_ptr<const model::ModelSource> source;
  std::string digest;                            // of the source, for the plan
  const QuantizeOptions* options = nullptr;      // target, rules, search
  const io::gguf::Metadata* metadata = nullptr;  // of the output; placeholders must have their final length
  const calib::ModelStats* stats = nullptr;      // of HeldOut::fit; null: unweighted
  calib::TokenWindows windows;                   // HeldOut::judge
  // Quantizes the tensors whose type differs from the overlay's, for a trial run. Empty: to nearest,
  // weighted.
  std::function<Status(std::span<const std::optional<Format>> types, model::OverlaySource& out)> encode;
  // Damage measured before (of a plan file); null: it is measured.
  const DamageTable* damage = nullptr;
};

// All that the options say about types beyond a mix: runs the plan file, or allocates for the target (by the
// damage in the plan file where both are given), and saves the plan. Also errors of reading and writing
// plans.
Result<PlanFile> plan_types(const AllocateInputs& inputs, Plan& plan, ProgressSink& progress);

// Measures, solves, tries and corrects. `plan` (from make_plan) says which types rules and options give; the
// others are replaced, and its sizes with them. kInvalidArgument: a target that cannot be met says what can.
Result<PlanFile> allocate(const AllocateInputs& inputs, Plan& plan, ProgressSink& progress);

// The plan's types become these (nullopt: as it is), with this reason, and its sizes follow. Types that rules
// and options gave stay.
Status set_types(std::span<const std::optional<Format>> types, std::string_view reason,
                 const QuantizeOptions& options, const io::gguf::Metadata& metadata, Plan& plan);

// The mix whose file type fits best: of the type that holds most weights.
const Mix* dominant_mix(std::span<const TensorInfo> outputs);

}  // namespace narrow::pipeline
