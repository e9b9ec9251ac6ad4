// A plan of types as a JSON file that can be read, edited, kept and run again (docs/allocation.md).
#pragma once

#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "model/source.h"
#include "pipeline/damage.h"

namespace narrow::pipeline {

inline constexpr int kPlanVersion = 1;

struct PlanFile {
  std::string model, architecture;  // names, for the reader
  std::string digest;               // of the source: "sha256:..."
  std::string target;               // what was asked for, for the reader: "90000000 bytes"
  double predicted_kl = 0;
  std::optional<double> measured_kl;  // of a trial with these types, round to nearest
  std::uint64_t file_bytes = 0;
  std::vector<std::pair<std::string, Format>> types;  // one per quantizable tensor, in the model's order
  DamageTable damage;                                 // may be empty
};

// Appears whole or not at all.
Status write_plan(const std::filesystem::path& path, const PlanFile& plan);
// kCorrupt: not JSON, not a plan, or another version; kInvalidArgument names an unknown type and its tensor.
// Keys that are not known are left alone.
Result<PlanFile> read_plan(const std::filesystem::path& path);

// The plan's type for every tensor of this model; nullopt for those that stay as they are. kInvalidArgument:
// made for another model (`digest`), a tensor that the model does not have or that is no weight matrix, one
// that the plan lacks, or a type that a tensor's rows or narrow's encoders cannot take.
Result<std::vector<std::optional<Format>>> types_of_plan(const std::filesystem::path& path,
                                                         const PlanFile& plan,
                                                         std::span<const TensorInfo> tensors,
                                                         const std::string& digest);

}  // namespace narrow::pipeline
