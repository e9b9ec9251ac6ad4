#include "pipeline/produce.h"

namespace narrow::pipeline {

nlohmann::json loss_note(const quant::WeightError& error, std::uint64_t overflowed) {
  nlohmann::json note = {{"squared_error", error.sum_squared_error},
                         {"squared_weight", error.sum_squared_weight}};
  if (overflowed > 0) note["overflowed"] = overflowed;
  if (error.output_energy > 0) {
    note["output_error"] = error.output_error / error.output_energy;
    note["rounded_output_error"] = error.rounded_output_error / error.output_energy;
  }
  return note;
}

TensorLoss loss_of(const std::string& name, const nlohmann::json& note) {
  quant::WeightError error;
  error.sum_squared_error = note.value("squared_error", 0.0);
  error.sum_squared_weight = note.value("squared_weight", 0.0);
  TensorLoss loss = {name, error.relative_rms(), error.sqnr_db()};
  if (note.contains("output_error")) {
    loss.output_error = note.value("output_error", 0.0);
    loss.rounded_output_error = note.value("rounded_output_error", 0.0);
  }
  return loss;
}

std::vector<TensorLoss> losses_of(const QuantizeJob& job) {
  std::vector<TensorLoss> losses;
  for (std::size_t i = 0; i < job.tensors().size(); ++i) {
    const nlohmann::json note = job.note(i);
    if (note.is_object() && note.contains("squared_error"))
      losses.push_back(loss_of(job.tensors()[i].name, note));
  }
  return losses;
}

std::uint64_t overflows_of(const QuantizeJob& job) {
  std::uint64_t n = 0;
  for (std::size_t i = 0; i < job.tensors().size(); ++i) {
    const nlohmann::json note = job.note(i);
    if (note.is_object()) n += note.value("overflowed", std::uint64_t{0});
  }
  return n;
}

Status produce_by_rows(const model::ModelSource& source, const Plan& plan, bool search,
                       const Importance* importance, QuantizeJob& job, ProgressSink& progress) {
  const std::vector<TensorInfo>& tensors = source.tensors();
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) total += job.finished(i) ? 0 : tensors[i].bytes();
  const quant::Method* method = plan.method.encoder;
  if (method->needs == quant::Needs::kHessian) method = quant::find_method("rtn");
  TensorStream stream(source, method, search, progress, importance);
  progress.begin("quantize", total / 1'000'000, "MB");
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (job.finished(i)) continue;
    StreamStats stats;
    const auto write = [&](std::uint64_t offset, std::span<const std::byte> data) {
      return job.write(i, offset, data);
    };
    NARROW_TRY(stream.run(i, plan.types[i], write, stats));
    NARROW_TRY(job.finish_tensor(
        i, plan.types[i] == tensors[i].format ? nlohmann::json() : loss_note(stats.error, stats.overflowed)));
  }
  progress.end();
  return {};
}

}  // namespace narrow::pipeline
