#include "narrow/calibrate.h"

#include <nlohmann/json.hpp>

#include "api/guard.h"
#include "pipeline/calibrate.h"

namespace narrow {

Result<CalibrateReport> calibrate(const CalibrateOptions& options, ProgressSink& progress) {
  return api::guarded([&] { return pipeline::run_calibrate(options, progress); });
}

std::string CalibrateReport::to_json() const {
  nlohmann::ordered_json j = {
      {"output", output.string()},
      {"asked_tokens", asked_tokens},
      {"window_tokens", window_tokens},
      {"windows", windows},
      {"texts", nlohmann::ordered_json::array()},
      {"matrices", matrices},
      {"datasets", datasets},
      {"notes", notes},
      {"seconds", seconds},
      {"tokens_per_s", tokens_per_s},
      {"peak_memory_bytes", peak_memory_bytes},
  };
  for (const Text& t : texts) {
    j["texts"].push_back({{"name", t.name},
                          {"available_tokens", t.available_tokens},
                          {"used_tokens", t.used_tokens},
                          {"dropped_tokens", t.dropped_tokens},
                          {"windows", t.windows}});
  }
  // File names may be any bytes.
  return j.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace narrow
