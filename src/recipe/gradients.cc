#include "train/gradients.h"

#include <chrono>

#include "base/cpu_features.h"
#include "pipeline/calibration_text.h"
#include "pipeline/plan.h"
#include "recipe/run.h"

namespace narrow::recipe {
namespace {

Result<GradientReport> run(const GradientOptions& o, ProgressSink& progress) {
  const auto start = std::chrono::steady_clock::now();
  if (o.source.empty() || o.output.empty() || o.texts.empty()) {
    return make_error(ErrorCode::kInvalidArgument,
                      "say which model (SOURCE), on which texts (--text), and where the "
                      "gradients go (-o)");
  }
  NARROW_TRY(pipeline::refuse_same_file(o.source, o.output));
  prepare_torch();
  NARROW_ASSIGN(const at::Device device, device_named(o.device));
  NARROW_ASSIGN(const auto source, model::ModelSource::open(o.source));
  CalibrationOptions text;
  text.texts = o.texts;
  text.n_ctx = o.n_ctx;
  text.max_tokens = o.max_tokens;
  NARROW_ASSIGN(const calib::TokenWindows windows, pipeline::calibration_windows(text, *source, progress));
  NARROW_ASSIGN(const auto model, train::Decoder::create(*source, at::kFloat, device));
  NARROW_ASSIGN(const calib::OutputGradients found,
                train::output_gradients(*model, windows, o.seed, progress));
  if (found.matrices.empty()) {
    return make_error(ErrorCode::kUnsupported, "{}: no matrix whose outputs enter the residual stream",
                      o.source.string());
  }
  NARROW_TRY(calib::write_output_gradients(found, o.output));
  GradientReport report;
  report.tokens = found.tokens;
  report.matrices = static_cast<int>(found.matrices.size());
  report.peak_memory_bytes = peak_resident_bytes();
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace
}  // namespace narrow::recipe

namespace narrow {

Result<GradientReport> gradients(const GradientOptions& options, ProgressSink& progress) {
  return recipe::guarded([&] { return recipe::run(options, progress); });
}

}  // namespace narrow
