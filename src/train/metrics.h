// What a run says about itself while it goes on: a JSON object per line, for scripts and for the report's
// curve.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/result.h"

namespace narrow::train {

class MetricsLog {
 public:
  // An empty path: nothing is written. An existing file loses the lines whose "step" is over `step`, what
  // follows them, and a last line that is not whole: a run that begins (step 0) or goes on from a checkpoint
  // of `step` writes them again. A file that holds anything but such lines is kRefused: it is none of ours.
  static Result<MetricsLog> open(const std::filesystem::path& path, std::int64_t step);

  // A line: {"step": 12, "loss": ..., ...}; it has reached the file when this returns. `step`: updates done.
  // What is not finite becomes null.
  Status append(const nlohmann::ordered_json& line);

  MetricsLog(MetricsLog&& o) noexcept { *this = std::move(o); }
  MetricsLog& operator=(MetricsLog&& o) noexcept;
  MetricsLog(const MetricsLog&) = delete;
  MetricsLog& operator=(const MetricsLog&) = delete;
  ~MetricsLog();

 private:
  MetricsLog() = default;
  std::filesystem::path path_;
  int fd_ = -1;
  std::uint64_t end_ = 0;
};

}  // namespace narrow::train
