#include "narrow/inspect.h"

#include <nlohmann/json.hpp>

#include "api/guard.h"
#include "pipeline/inspect.h"

namespace narrow {
namespace {

using Json = nlohmann::ordered_json;

// Names in a file may be any bytes.
std::string dump(const Json& j) { return j.dump(2, ' ', false, Json::error_handler_t::replace); }

}  // namespace

Result<InspectReport> inspect(const std::filesystem::path& model) {
  return api::guarded([&] { return pipeline::inspect_model(model); });
}

Result<TensorStatistics> inspect_tensor(const std::filesystem::path& model, const std::string& tensor,
                                        int bins, const std::vector<std::string>& types,
                                        const std::filesystem::path& reference) {
  return api::guarded([&] { return pipeline::inspect_tensor(model, tensor, bins, types, reference); });
}

std::string InspectReport::to_json() const {
  Json j = {{"kind", kind},
            {"architecture", architecture},
            {"parameters", parameters},
            {"tensor_bytes", tensor_bytes},
            {"file_bytes", file_bytes},
            {"bpw", bpw}};
  j["metadata"] = Json::object();
  for (const auto& [key, value] : metadata) j["metadata"][key] = value;
  j["tensors"] = Json::array();
  for (const InspectedTensor& t : tensors) {
    j["tensors"].push_back(
        {{"name", t.name}, {"type", t.type}, {"shape", t.shape}, {"bytes", t.bytes}, {"bpw", t.bpw}});
  }
  return dump(j);
}

std::string TensorStatistics::to_json() const {
  Json j = {{"name", name},     {"type", type},       {"elements", elements}, {"non_finite", non_finite},
            {"zeros", zeros},   {"min", min},         {"max", max},           {"mean", mean},
            {"stddev", stddev}, {"abs_max", abs_max}, {"kurtosis", kurtosis}};
  j["histogram"] = histogram;
  j["errors"] = Json::array();
  for (const Error& e : errors) {
    j["errors"].push_back({{"type", e.type},
                           {"bpw", e.bpw},
                           {"relative_rms", e.relative_rms},
                           {"sqnr_db", e.sqnr_db},
                           {"max_abs", e.max_abs}});
  }
  return dump(j);
}

}  // namespace narrow
