// What a model's matrices see on calibration texts, kept in llama.cpp's importance matrix files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "narrow/progress.h"
#include "narrow/quantize.h"
#include "narrow/result.h"

namespace narrow {

struct CalibrateOptions {
  std::filesystem::path model;               // GGUF file or Hugging Face folder; empty: only `merge`
  CalibrationOptions calibration;            // its texts, and how they are cut
  std::vector<std::filesystem::path> merge;  // statistics of earlier runs, of narrow or llama-imatrix, to add
  std::filesystem::path output;
  std::string format =
      "imatrix";          // "imatrix": GGUF; "dat": as llama.cpp wrote before, loses means and maxima
  bool overwrite = true;  // an existing output is replaced (atomically)
};

struct CalibrateReport {
  struct Text {
    std::string name;
    std::int64_t available_tokens = 0, used_tokens = 0, dropped_tokens = 0, windows = 0;
  };
  std::filesystem::path output;
  std::int64_t asked_tokens = 0;  // 0: all
  std::vector<Text> texts;
  std::int64_t window_tokens = 0, windows = 0;  // of this run
  std::int64_t matrices = 0;                    // with statistics, in the output
  std::vector<std::string> datasets;            // in the output
  std::vector<std::string> notes;  // starved experts, inputs that are always 0, rows left out, missing data
  double seconds = 0, tokens_per_s = 0;
  std::uint64_t peak_memory_bytes = 0;
  std::string to_json() const;
};

// Runs the model on the texts, layer by layer, adds the files to merge and writes the output.
Result<CalibrateReport> calibrate(const CalibrateOptions& options, ProgressSink& progress = null_progress());

}  // namespace narrow
