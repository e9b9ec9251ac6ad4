#include "pipeline/quantize.h"

#include <chrono>
#include <memory>

#include "base/cpu_features.h"
#include "io/gguf/writer.h"
#include "pipeline/plan.h"
#include "pipeline/provenance.h"
#include "pipeline/tensor_stream.h"

namespace narrow::pipeline {
namespace {

struct Prepared {
  std::shared_ptr<const model::ModelSource> source;
  io::gguf::Metadata metadata;
  Plan plan;
};

Result<Prepared> prepare(const QuantizeOptions& o, ProgressSink& progress) {
  // Before the source is opened: a wrong name is told at once.
  NARROW_ASSIGN(const Mix* mix, require_mix(o.type));
  Prepared p;
  NARROW_ASSIGN(p.source, model::ModelSource::open(o.source));
  NARROW_ASSIGN(p.metadata, base_metadata(*p.source, progress));
  p.metadata.set_u32("general.file_type", mix->file_type);
  p.metadata.set_u32("general.quantization_version", kQuantizationVersion);
  add_provenance(o.source, placeholder_digest(), quantize_recipe(o, mix->name), p.metadata);
  NARROW_ASSIGN(p.plan, make_plan(*p.source, o, p.metadata));
  return p;
}

Result<std::unique_ptr<io::gguf::Writer>> open_writer(const QuantizeOptions& o, const Prepared& p) {
  io::gguf::WriterOptions options;
  options.split_max_bytes = o.split_max_bytes;
  NARROW_ASSIGN(auto writer, io::gguf::Writer::create(o.output, p.metadata, p.plan.outputs, options));
  // The names of a split file's parts are known only now.
  for (const auto& path : writer->paths()) {
    NARROW_TRY(refuse_same_file(o.source, path));
    NARROW_TRY(check_output_path(path, o.overwrite));
  }
  return writer;
}

}  // namespace

Result<QuantizePlan> plan_quantize(const QuantizeOptions& options) {
  NARROW_ASSIGN(Prepared p, prepare(options, null_progress()));
  if (!options.output.empty()) NARROW_TRY(refuse_same_file(options.source, options.output));
  return std::move(p.plan.report);
}

Result<QuantizeReport> run_quantize(const QuantizeOptions& o, ProgressSink& progress) {
  const auto start = std::chrono::steady_clock::now();
  NARROW_ASSIGN(Prepared p, prepare(o, progress));
  NARROW_TRY(refuse_same_file(o.source, o.output));
  NARROW_TRY(check_output_path(o.output, o.overwrite));
  NARROW_TRY(check_free_disk(o.output, p.plan.report.output_bytes));

  NARROW_ASSIGN(const std::string digest, p.source->digest());
  add_provenance(o.source, digest, quantize_recipe(o, p.plan.mix->name), p.metadata);
  NARROW_ASSIGN(const auto writer, open_writer(o, p));

  QuantizeReport report;
  TensorStream stream(*p.source, p.plan.method, o.search, progress);
  std::uint64_t total = 0, overflowed = 0;
  for (const TensorInfo& t : p.source->tensors()) total += t.bytes();
  progress.begin("quantize", total / 1'000'000, "MB");
  for (std::size_t i = 0; i < p.plan.types.size(); ++i) {
    StreamStats stats;
    const auto write = [&](std::uint64_t offset, std::span<const std::byte> data) {
      return writer->write(i, offset, data);
    };
    NARROW_TRY(stream.run(i, p.plan.types[i], write, stats));
    overflowed += stats.overflowed;
    if (p.plan.types[i] != p.source->tensors()[i].format) {
      report.losses.push_back(
          {p.source->tensors()[i].name, stats.error.relative_rms(), stats.error.sqnr_db()});
    }
  }
  NARROW_TRY(writer->finish());
  progress.end();
  if (overflowed > 0) {
    progress.note(fmt::format("{} values are too large for {} and became infinite: choose bf16 or f32",
                              overflowed, p.plan.mix->name));
  }
  report.files = writer->paths();
  report.plan = std::move(p.plan.report);
  report.peak_memory_bytes = peak_resident_bytes();
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace narrow::pipeline
