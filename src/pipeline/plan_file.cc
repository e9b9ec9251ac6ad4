#include "pipeline/plan_file.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/atomic_file.h"
#include "io/caps.h"
#include "io/hf_config/json_text.h"
#include "io/printable.h"
#include "pipeline/plan.h"

namespace narrow::pipeline {
namespace {

using io::Json;

constexpr const char* kVersionKey = "narrow_plan";

std::string name_of(Format f) { return std::string(format_info(f).name); }

Json damage_json(const DamageTable& damage) {
  Json tensors = Json::object();
  for (const TensorDamage& t : damage.tensors) {
    Json types = Json::object();
    for (const TypeDamage& d : t.types) types[name_of(d.format)] = d.kl;
    tensors[t.name] = {{"sensitivity", t.sensitivity}, {"measured", t.measured}, {"kl", std::move(types)}};
  }
  return {{"floor", damage.floor}, {"scale", damage.scale}, {"tensors", std::move(tensors)}};
}

// Reads fields of one plan; messages begin with the file's name.
class PlanReader {
 public:
  explicit PlanReader(const std::filesystem::path& path) : path_(path.string()) {}

  Result<PlanFile> read(const Json& j) {
    if (!j.is_object() || !j.contains(kVersionKey)) {
      return make_error(ErrorCode::kCorrupt, "{}: no plan of narrow: it lacks '{}'", path_, kVersionKey);
    }
    if (j[kVersionKey] != kPlanVersion) {
      return make_error(ErrorCode::kCorrupt, "{}: a plan of version {}; this narrow reads version {}", path_,
                        io::printable(j[kVersionKey].dump()), kPlanVersion);
    }
    PlanFile plan;
    const Json model = j.value("model", Json::object());
    NARROW_TRY(text(model, "sha256", plan.digest));
    NARROW_TRY(text(model, "name", plan.model));
    NARROW_TRY(text(model, "architecture", plan.architecture));
    NARROW_TRY(text(j, "target", plan.target));
    NARROW_TRY(number(j, "predicted_kl", plan.predicted_kl));
    if (j.contains("trial_kl")) NARROW_TRY(number(j, "trial_kl", plan.measured_kl.emplace()));
    double bytes = 0;
    NARROW_TRY(number(j, "file_bytes", bytes));
    plan.file_bytes = static_cast<std::uint64_t>(bytes);
    const Json types = j.value("types", Json());
    if (!types.is_object()) return missing("types", "an object of tensor names and types");
    for (const auto& [name, type] : types.items()) {
      NARROW_ASSIGN(const Format format, type_of(name, type));
      plan.types.emplace_back(name, format);
    }
    if (j.contains("damage")) NARROW_TRY(damage(j["damage"], plan.damage));
    return plan;
  }

 private:
  Error missing(std::string_view key, std::string_view what) const {
    return make_error(ErrorCode::kCorrupt, "{}: '{}' must be {}", path_, key, what);
  }

  Status text(const Json& from, const char* key, std::string& out) const {
    if (!from.is_object() || !from.contains(key)) return {};
    if (!from[key].is_string()) return missing(key, "a text");
    out = from[key].get<std::string>();
    return {};
  }

  Status number(const Json& from, const char* key, double& out) const {
    if (!from.contains(key)) return {};
    if (!from[key].is_number() || from[key].get<double>() < 0) return missing(key, "a number, 0 or more");
    out = from[key].get<double>();
    return {};
  }

  Result<Format> type_of(const std::string& tensor, const Json& type) const {
    const std::string where = fmt::format("{}: tensor '{}'", path_, io::printable(tensor));
    if (!type.is_string()) {
      return make_error(ErrorCode::kInvalidArgument, "{}: its type is {}; give a name like \"q4_k\"", where,
                        io::printable(type.dump()));
    }
    return require_tensor_type(where, io::printable(type.get<std::string>()));
  }

  Status damage(const Json& j, DamageTable& out) const {
    if (!j.is_object()) return missing("damage", "an object");
    NARROW_TRY(number(j, "floor", out.floor));
    NARROW_TRY(number(j, "scale", out.scale));
    const Json tensors = j.value("tensors", Json::object());
    if (!tensors.is_object()) return missing("damage.tensors", "an object");
    for (const auto& [name, entry] : tensors.items()) {
      if (!entry.is_object() || !entry.value("kl", Json()).is_object()) {
        return missing("damage.tensors." + io::printable(name), "an object with 'kl'");
      }
      TensorDamage t;
      t.name = name;
      NARROW_TRY(number(entry, "sensitivity", t.sensitivity));
      t.measured = entry.value("measured", Json(false)) == Json(true);
      for (const auto& [type, kl] : entry["kl"].items()) {
        NARROW_ASSIGN(const Format format, type_of(name, Json(type)));
        if (!kl.is_number() || kl.get<double>() < 0) {
          return missing("damage.tensors." + io::printable(name), "numbers, 0 or more");
        }
        t.types.push_back({format, kl.get<double>(), 0});
      }
      out.tensors.push_back(std::move(t));
    }
    return {};
  }

  std::string path_;
};

}  // namespace

Status write_plan(const std::filesystem::path& path, const PlanFile& plan) {
  Json types = Json::object();
  for (const auto& [name, format] : plan.types) types[name] = name_of(format);
  Json j = {{kVersionKey, kPlanVersion},
            {"model", {{"name", plan.model}, {"architecture", plan.architecture}, {"sha256", plan.digest}}},
            {"target", plan.target},
            {"file_bytes", plan.file_bytes},
            {"predicted_kl", plan.predicted_kl}};
  if (plan.measured_kl) j["trial_kl"] = *plan.measured_kl;
  j["types"] = std::move(types);
  if (!plan.damage.tensors.empty()) j["damage"] = damage_json(plan.damage);
  NARROW_ASSIGN(AtomicFile file, AtomicFile::create(path));
  NARROW_TRY(file.write(j.dump(1, ' ', false, Json::error_handler_t::replace) + "\n"));
  return file.commit();
}

Result<PlanFile> read_plan(const std::filesystem::path& path) {
  NARROW_ASSIGN(const std::string text, read_text_file(path, io::caps::kMaxJsonBytes));
  NARROW_ASSIGN(const Json j, io::parse_json(text, path.string(), io::DuplicateKeys::kError));
  return PlanReader(path).read(j);
}

Result<std::vector<std::optional<Format>>> types_of_plan(const std::filesystem::path& path,
                                                         const PlanFile& plan,
                                                         std::span<const TensorInfo> tensors,
                                                         const std::string& digest) {
  const std::string file = path.string();
  if (!plan.digest.empty() && plan.digest != digest) {
    return make_error(ErrorCode::kInvalidArgument,
                      "{}: a plan for another model ({}, {}); this one is {}: make a plan for it", file,
                      plan.model.empty() ? "no name" : io::printable(plan.model), io::printable(plan.digest),
                      digest);
  }
  std::vector<std::optional<Format>> out(tensors.size());
  for (const auto& [name, format] : plan.types) {
    const auto it = std::find_if(tensors.begin(), tensors.end(),
                                 [n = &name](const TensorInfo& t) { return t.name == *n; });
    if (it == tensors.end()) {
      return make_error(ErrorCode::kInvalidArgument,
                        "{}: the model has no tensor '{}'; `narrow inspect` lists the names", file,
                        io::printable(name));
    }
    const FormatInfo& info = format_info(format);
    if (!model::is_quantizable(*it)) {
      return make_error(ErrorCode::kInvalidArgument,
                        "{}: tensor '{}' is no weight matrix: it keeps its type; take it out of the plan",
                        file, name);
    }
    if (it->shape.row_length() % info.block_size != 0) {
      return make_error(ErrorCode::kInvalidArgument,
                        "{}: tensor '{}' cannot be {}: its rows of {} are no multiple of blocks of {}", file,
                        name, info.name, it->shape.row_length(), info.block_size);
    }
    out[static_cast<std::size_t>(it - tensors.begin())] = format;
  }
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (!model::is_quantizable(tensors[i]) || out[i]) continue;
    return make_error(ErrorCode::kInvalidArgument,
                      "{}: the plan has no type for tensor '{}'; add it to 'types'", file, tensors[i].name);
  }
  return out;
}

}  // namespace narrow::pipeline
