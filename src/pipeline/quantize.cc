#include "pipeline/quantize.h"

#include <chrono>
#include <memory>
#include <optional>

#include "base/cpu_features.h"
#include "io/gguf/writer.h"
#include "pipeline/int8_file.h"
#include "pipeline/job.h"
#include "pipeline/plan.h"
#include "pipeline/produce.h"
#include "pipeline/provenance.h"
#include "pipeline/redo.h"

namespace narrow::pipeline {
namespace {

struct Prepared {
  std::shared_ptr<const model::ModelSource> source;
  io::gguf::Metadata metadata;
  Plan plan;
  std::optional<Redo> redo;  // with --only
  std::string recipe, source_digest;
};

// Reads headers only: digests in the metadata are placeholders.
Result<Prepared> prepare(const QuantizeOptions& o, ProgressSink& progress) {
  // Before the source is opened: a wrong name is told at once.
  NARROW_ASSIGN(const Mix* mix, require_mix(o.type));
  Prepared p;
  NARROW_ASSIGN(p.source, model::ModelSource::open(o.source));
  if (o.only.empty()) {
    NARROW_ASSIGN(p.metadata, base_metadata(*p.source, progress));
    p.metadata.set_u32("general.file_type", mix->file_type);
  } else {
    NARROW_TRY(refuse_same_file(o.source, o.output));
    NARROW_ASSIGN(p.redo, Redo::open(*p.source, o));
    p.metadata = p.redo->metadata();
    p.metadata.erase("general.alignment");  // the writer's own default holds
  }
  p.metadata.set_u32("general.quantization_version", kQuantizationVersion);
  NARROW_ASSIGN(std::string recipe, quantize_recipe(o, mix->name, true));
  if (p.redo) recipe = p.redo->recipe_with_base(recipe, placeholder_sha256());
  add_provenance(o.source, placeholder_digest(), recipe, p.metadata);
  NARROW_ASSIGN(p.plan, make_plan(*p.source, o, p.metadata));
  if (p.redo) {
    p.redo->keep_types(p.plan);
    p.plan.report.output_bytes = io::gguf::planned_file_bytes(p.metadata, p.plan.outputs);
  }
  return p;
}

// The digests of all that the output is made from. Reads the source once.
Status sign(const QuantizeOptions& o, Prepared& p) {
  NARROW_ASSIGN(p.recipe, quantize_recipe(o, p.plan.mix->name, false));
  NARROW_ASSIGN(p.source_digest, p.source->digest());
  std::string recipe = p.recipe;
  if (p.redo) {
    NARROW_ASSIGN(const std::string base, p.redo->digest());
    recipe = p.redo->recipe_with_base(recipe, base);
  }
  add_provenance(o.source, p.source_digest, recipe, p.metadata);
  return {};
}

JobOptions job_options(const QuantizeOptions& o, const Prepared& p) {
  return {o.output, o.split_max_bytes, p.recipe, p.source_digest, o.resume};
}

Result<std::unique_ptr<QuantizeJob>> open_job(const QuantizeOptions& o, const Prepared& p,
                                              ProgressSink& progress) {
  NARROW_ASSIGN(auto job, QuantizeJob::open(job_options(o, p), p.metadata, p.plan.outputs, progress));
  // The names of a split file's parts are known only now.
  for (const auto& path : job->paths()) {
    NARROW_TRY(refuse_same_file(o.source, path));
    NARROW_TRY(check_output_path(path, o.overwrite));
  }
  return job;
}

// Fills the job's output with every tensor that an earlier run did not finish.
Status produce(const QuantizeOptions& o, const Prepared& p, QuantizeJob& job, ProgressSink& progress) {
  if (p.redo) NARROW_TRY(p.redo->copy_kept(job, progress));
  return produce_by_rows(*p.source, p.plan, o.search, job, progress);
}

}  // namespace

Result<QuantizePlan> plan_quantize(const QuantizeOptions& options) {
  if (is_int8_type(options.type)) return plan_int8(options);
  NARROW_ASSIGN(Prepared p, prepare(options, null_progress()));
  if (!options.output.empty()) NARROW_TRY(refuse_same_file(options.source, options.output));
  return std::move(p.plan.report);
}

Result<QuantizeReport> run_quantize(const QuantizeOptions& o, ProgressSink& progress) {
  if (is_int8_type(o.type)) return run_int8(o, progress);
  const auto start = std::chrono::steady_clock::now();
  NARROW_ASSIGN(Prepared p, prepare(o, progress));
  NARROW_TRY(refuse_same_file(o.source, o.output));
  NARROW_TRY(check_output_path(o.output, o.overwrite));
  // Before the source is read; a resumed run needs less, which the job knows.
  if (!o.resume) NARROW_TRY(check_free_disk(o.output, p.plan.report.output_bytes));
  NARROW_TRY(sign(o, p));

  QuantizeReport report;
  bool complete = false;
  if (o.resume) {
    NARROW_ASSIGN(complete, settle_commit(job_options(o, p), &report.files));
  }
  if (!complete) {
    NARROW_ASSIGN(const auto job, open_job(o, p, progress));
    if (const Status s = produce(o, p, *job, progress); !s.ok()) return job->abandon(s.error());
    NARROW_ASSIGN(report.files, job->commit());
    report.losses = losses_of(*job);
    if (const std::uint64_t n = overflows_of(*job); n > 0) {
      progress.note(fmt::format("{} values are too large for {} and became infinite: choose bf16 or f32", n,
                                p.plan.mix->name));
    }
  }
  report.plan = std::move(p.plan.report);
  report.peak_memory_bytes = peak_resident_bytes();
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace narrow::pipeline
