#include "pipeline/calibrate.h"

#include <algorithm>
#include <chrono>
#include <memory>

#include "base/cpu_features.h"
#include "calib/collect.h"
#include "calib/imatrix.h"
#include "model/source.h"
#include "pipeline/calibration_text.h"
#include "pipeline/plan.h"

namespace narrow::pipeline {
namespace {

using Clock = std::chrono::steady_clock;

Result<calib::ImatrixFormat> format_named(const std::string& name) {
  if (name == "imatrix") return calib::ImatrixFormat::kGguf;
  if (name == "dat") return calib::ImatrixFormat::kDat;
  return make_error(ErrorCode::kInvalidArgument, "--format '{}': use imatrix (GGUF) or dat", name);
}

// What can be told before anything is read.
Status check(const CalibrateOptions& o) {
  const CalibrationOptions& c = o.calibration;
  if (o.output.empty()) {
    return make_error(ErrorCode::kInvalidArgument, "calibrate needs a file to write: give -o FILE");
  }
  if (c.texts.empty() && o.merge.empty()) {
    return make_error(ErrorCode::kInvalidArgument,
                      "calibrate needs a text to run the model on: give --text FILE, or files to --merge");
  }
  if (!c.texts.empty() && o.model.empty()) {
    return make_error(ErrorCode::kInvalidArgument,
                      "calibrate needs the model to run on {}: name it before the options",
                      c.texts.front().string());
  }
  if (!o.model.empty()) NARROW_TRY(refuse_same_file(o.model, o.output));
  for (const auto& text : c.texts) NARROW_TRY(refuse_same_file(text, o.output));
  return check_output_path(o.output, o.overwrite);
}

// A file's statistics, if they are of this model.
Result<calib::ModelStats> read_stats(const std::filesystem::path& file, const model::ModelSource& source,
                                     ProgressSink& progress) {
  NARROW_ASSIGN(calib::ModelStats stats, calib::read_imatrix(file));
  NARROW_TRY(calib::check_stats(stats, source, file.string(), progress));
  return stats;
}

// Runs the model on the texts.
Status add_run(const CalibrateOptions& o, const std::shared_ptr<const model::ModelSource>& source,
               calib::ModelStats& stats, CalibrateReport& report, ProgressSink& progress) {
  NARROW_ASSIGN(const calib::CutTexts cut, calibration_text(o.calibration, *source, progress));
  for (const calib::TextUse& t : cut.texts) {
    report.texts.push_back({t.name, t.available, t.used, t.dropped(), t.windows});
  }
  const auto start = Clock::now();
  NARROW_ASSIGN(stats, calib::collect(source, cut.windows, progress));
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  report.windows = stats.chunks;
  report.window_tokens = stats.chunk_tokens;
  report.tokens_per_s = static_cast<double>(cut.windows.size()) / seconds;
  for (const calib::TextUse& t : cut.texts) {
    if (t.used > 0) stats.datasets.push_back(t.name);
  }
  return {};
}

}  // namespace

Result<CalibrateReport> run_calibrate(const CalibrateOptions& o, ProgressSink& progress) {
  const auto start = Clock::now();
  NARROW_ASSIGN(const calib::ImatrixFormat format, format_named(o.format));
  NARROW_TRY(check(o));
  std::shared_ptr<const model::ModelSource> source;
  if (!o.model.empty()) {
    NARROW_ASSIGN(source, model::ModelSource::open(o.model));
  }

  // Before the long part, so that a wrong file is told at once.
  std::vector<calib::ModelStats> earlier;
  for (const auto& file : o.merge) {
    NARROW_ASSIGN(calib::ModelStats s,
                  source ? read_stats(file, *source, progress) : calib::read_imatrix(file));
    earlier.push_back(std::move(s));
  }
  CalibrateReport report;
  report.output = o.output;
  report.asked_tokens = o.calibration.max_tokens;
  calib::ModelStats stats;
  if (!o.calibration.texts.empty()) NARROW_TRY(add_run(o, source, stats, report, progress));
  for (std::size_t i = 0; i < earlier.size(); ++i) {
    const Status s = stats.merge(earlier[i]);
    if (!s.ok()) return with_context(s.error(), o.merge[i].string());
  }
  NARROW_TRY(calib::write_imatrix(stats, o.output, format));
  report.matrices = std::count_if(stats.inputs.begin(), stats.inputs.end(), [](const auto& item) {
    return std::any_of(item.second.begin(), item.second.end(),
                       [](const calib::InputStats& s) { return s.rows > 0; });
  });
  report.datasets = stats.datasets;
  report.notes = calib::findings(stats);
  report.peak_memory_bytes = peak_resident_bytes();
  report.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return report;
}

Result<calib::ModelStats> calibration_stats(const CalibrationOptions& options,
                                            const std::shared_ptr<const model::ModelSource>& source,
                                            ProgressSink& progress) {
  calib::ModelStats stats;
  if (!options.stats.empty()) {
    NARROW_ASSIGN(stats, read_stats(options.stats, *source, progress));
  }
  if (options.texts.empty()) return stats;
  NARROW_ASSIGN(const calib::TokenWindows windows, calibration_windows(options, *source, progress));
  NARROW_ASSIGN(const calib::ModelStats run, calib::collect(source, windows, progress));
  if (const Status s = stats.merge(run); !s.ok()) return with_context(s.error(), options.stats.string());
  return stats;
}

}  // namespace narrow::pipeline
