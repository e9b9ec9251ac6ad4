#include "pipeline/quantize.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>

#include "base/cpu_features.h"
#include "calib/collect.h"
#include "io/gguf/writer.h"
#include "pipeline/allocate.h"
#include "pipeline/calibrate.h"
#include "pipeline/calibrated.h"
#include "pipeline/calibration_text.h"
#include "pipeline/int8_file.h"
#include "pipeline/job.h"
#include "pipeline/plan.h"
#include "pipeline/probe.h"
#include "pipeline/produce.h"
#include "pipeline/provenance.h"
#include "pipeline/redo.h"
#include "pipeline/transform.h"

namespace narrow::pipeline {
namespace {

struct Prepared {
  std::shared_ptr<const model::ModelSource> source;
  io::gguf::Metadata metadata;
  Plan plan;
  std::optional<Redo> redo;  // with --only
  std::string recipe, source_digest;
  std::optional<double> predicted_kl;
  nlohmann::json state;  // the types chosen by measuring, for a resumed run
};

// Where types come from a target or a plan, a plan of some type is made first, which they then replace.
constexpr const char* kFirstType = "q4_k_m";

bool chooses_types(const QuantizeOptions& o) { return asks_for_allocation(o) || !o.plan.empty(); }

// What the options ask of the texts, before anything long begins.
Status check_calibration(const QuantizeOptions& o, const MethodSpec& method) {
  const bool texts = !o.calibration.texts.empty();
  if (method.needs_windows() && !texts) {
    return make_error(ErrorCode::kInvalidArgument,
                      "--method {}: looks at what enters each layer; give texts by --calib FILE", o.method);
  }
  if (method.needs_statistics() && o.calibration.empty()) {
    return make_error(ErrorCode::kInvalidArgument,
                      "--method {}: needs statistics of the activations; give texts or a statistics file by "
                      "--calib FILE",
                      o.method);
  }
  if (o.compare_rounding && !method.needs_windows()) {
    return make_error(ErrorCode::kInvalidArgument,
                      "--compare-rounding: --method {} does not look at what enters each layer; take gptq, "
                      "autoround or auto",
                      o.method);
  }
  if (!o.gradients.empty()) {
    const bool rotates = method.has_transform("rotate");
    if (!method.needs_windows() || rotates) {
      return make_error(ErrorCode::kInvalidArgument, "--gradients: {}; take gptq, autoround or auto",
                        rotates
                            ? "rotate changes the outputs that they are of"
                            : fmt::format("--method {} does not look at what enters each layer", o.method));
    }
  }
  if (asks_for_allocation(o) && !texts) {
    return make_error(
        ErrorCode::kInvalidArgument,
        "--size, --bpw, --kl and --fit measure what each tensor costs; give texts by --calib FILE");
  }
  return {};
}

// Reads headers only: digests in the metadata are placeholders.
Result<Prepared> prepare(const QuantizeOptions& asked, ProgressSink& progress) {
  NARROW_TRY(check_targets(asked));
  QuantizeOptions o = asked;
  if (chooses_types(o)) o.type = kFirstType;
  // Before the source is opened: a wrong name is told at once.
  NARROW_ASSIGN(const Mix* mix, require_mix(o.type));
  NARROW_ASSIGN(const MethodSpec method, parse_method(o.method));
  NARROW_TRY(check_calibration(o, method));
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

// What calibration gives: windows where texts are, statistics of inputs where something asks for them.
struct Calibration {
  calib::TokenWindows windows;
  calib::TokenWindows judge;  // kept apart where types are chosen: what they cost is measured on them
  std::optional<calib::ModelStats> stats;
  std::optional<calib::GradientFile> gradients;
  const calib::GradientFile* gradients_or_null() const { return gradients ? &*gradients : nullptr; }
};

Result<Calibration> calibrate(const QuantizeOptions& o, const Prepared& p, ProgressSink& progress) {
  Calibration c;
  if (!o.gradients.empty()) {
    NARROW_ASSIGN(c.gradients, calib::GradientFile::open(o.gradients, *p.source));
  }
  if (o.calibration.empty()) return c;
  const MethodSpec& method = p.plan.method;
  if (!o.calibration.texts.empty()) {
    NARROW_ASSIGN(c.windows, calibration_windows(o.calibration, *p.source, progress));
    if (asks_for_allocation(o)) {
      HeldOut parts = hold_out(c.windows);
      c.windows = std::move(parts.fit);
      c.judge = std::move(parts.judge);
    }
  }
  // Methods that see every layer's inputs themselves need none beside.
  if (!method.needs_windows() || method.needs_statistics() || asks_for_allocation(o)) {
    CalibrationOptions file = o.calibration;
    file.texts.clear();
    if (!file.empty()) {
      NARROW_ASSIGN(c.stats, calibration_stats(file, p.source, progress));
    }
    if (!o.calibration.texts.empty()) {
      NARROW_ASSIGN(calib::ModelStats seen, calib::collect(p.source, c.windows, progress));
      if (c.stats) NARROW_TRY(seen.merge(*c.stats));
      c.stats = std::move(seen);
    }
  }
  return c;
}

// Tensors in memory, for a trial.
class TrialStore final : public TensorStore {
 public:
  explicit TrialStore(const std::vector<TensorInfo>& tensors) : tensors_(tensors), data_(tensors.size()) {}
  bool finished(std::size_t i) const override { return data_[i].size() != 0; }
  Status write(std::size_t i, std::uint64_t offset, std::span<const std::byte> data) override {
    if (data_[i].size() == 0) data_[i].resize(tensors_[i].bytes());
    std::copy(data.begin(), data.end(), data_[i].data() + offset);
    return {};
  }
  Status finish_tensor(std::size_t, const nlohmann::json&) override { return {}; }
  Status read(std::size_t i, std::byte* out) const override {
    std::copy_n(data_[i].data(), data_[i].size(), out);
    return {};
  }
  AlignedBuffer<std::byte> take(std::size_t i) { return std::move(data_[i]); }

 private:
  const std::vector<TensorInfo>& tensors_;
  std::vector<AlignedBuffer<std::byte>> data_;
};

// Tokens that a trial of a method on the whole model runs on, and the largest output that is tried in memory.
constexpr std::int64_t kTrialTokens = 8192;
constexpr std::uint64_t kLargestTrial = std::uint64_t{1} << 30;

calib::TokenWindows some_windows(const calib::TokenWindows& all, std::int64_t tokens) {
  calib::TokenWindows out;
  // Evenly spread, as texts come one after the other.
  const std::size_t step =
      std::max<std::size_t>(1, static_cast<std::size_t>((all.size() + tokens - 1) / tokens));
  std::int64_t at = 0;
  for (std::size_t i = 0; i < all.lengths.size(); ++i) {
    const std::int64_t n = all.lengths[i];
    if (i % step == 0) out.add(all, at, n);
    at += n;
  }
  return out;
}

// The model with these types as the method would make it.
Status try_types(const QuantizeOptions& o, const Prepared& p, const Calibration& c,
                 std::span<const std::optional<Format>> types, model::OverlaySource& out,
                 ProgressSink& progress) {
  Plan trial = p.plan;
  NARROW_TRY(set_types(types, "trial", o, p.metadata, trial));
  const calib::TokenWindows windows = some_windows(c.windows, kTrialTokens);
  TrialStore store(trial.outputs);
  QuantizeOptions options = o;
  options.compare_rounding = false;
  NARROW_TRY(produce_calibrated({p.source, &trial, &trial.method, &windows, &options, c.gradients_or_null()},
                                store, progress));
  for (std::size_t i = 0; i < trial.types.size(); ++i) {
    if (store.finished(i)) {
      NARROW_TRY(out.replace(i, trial.types[i], store.take(i)));
    } else if (format_info(trial.types[i]).kind == FormatKind::kQuantized) {
      NARROW_ASSIGN(AlignedBuffer<std::byte> data,
                    encode_tensor(*p.source, i, trial.types[i], c.stats ? &*c.stats : nullptr, o.search));
      NARROW_TRY(out.replace(i, trial.types[i], std::move(data)));
    }
  }
  return {};
}

// Types for the target, or of the plan file; a resumed run takes those it chose before.
Status choose_types(const QuantizeOptions& o, const Calibration& c, Prepared& p, ProgressSink& progress) {
  constexpr const char* kState = "types";
  if (o.resume) {
    const std::optional<nlohmann::json> stored = stored_state(job_options(o, p), kState);
    if (stored) {
      std::vector<std::optional<Format>> types;
      for (const auto& name : *stored) {
        const FormatInfo* f = name.is_string() ? find_format(name.get<std::string>()) : nullptr;
        types.push_back(f != nullptr ? std::optional(f->format) : std::nullopt);
      }
      if (types.size() == p.plan.types.size()) return set_types(types, "plan", o, p.metadata, p.plan);
    }
  }
  AllocateInputs in;
  in.source = p.source;
  in.digest = p.source_digest;
  in.options = &o;
  in.metadata = &p.metadata;
  in.stats = c.stats ? &*c.stats : nullptr;
  in.windows = c.judge;
  if (p.plan.method.needs_windows() && p.plan.report.output_bytes <= kLargestTrial) {
    in.encode = [&](std::span<const std::optional<Format>> types, model::OverlaySource& out) {
      return try_types(o, p, c, types, out, progress);
    };
  }
  NARROW_ASSIGN(const PlanFile plan, plan_types(in, p.plan, progress));
  if (asks_for_allocation(o)) p.predicted_kl = plan.predicted_kl;
  p.metadata.set_u32("general.file_type", p.plan.mix->file_type);
  p.state = nlohmann::json::array();
  for (std::size_t i = 0; i < p.plan.types.size(); ++i) {
    if (model::is_quantizable(p.source->tensors()[i])) {
      p.state.push_back(format_info(p.plan.types[i]).name);
    } else {
      p.state.push_back(nullptr);
    }
  }
  return {};
}

// Fills the job's output with every tensor that an earlier run did not finish.
Status produce(const QuantizeOptions& o, const Prepared& p, const Calibration& c, QuantizeJob& job,
               ProgressSink& progress) {
  if (p.redo) NARROW_TRY(p.redo->copy_kept(job, progress));
  const MethodSpec& method = p.plan.method;
  std::shared_ptr<const model::ModelSource> source = p.source;
  Importance importance;
  if (c.stats) {
    for (const auto& [name, entries] : c.stats->inputs) importance[name] = calib::moments(entries);
  }
  if (!method.transforms.empty()) {
    NARROW_ASSIGN(source, transform(source, method.transforms, c.stats ? &*c.stats : nullptr,
                                    {p.plan.types, o.search, o.seed, &importance}, progress));
  }
  if (method.needs_windows()) {
    NARROW_TRY(
        produce_calibrated({source, &p.plan, &method, &c.windows, &o, c.gradients_or_null()}, job, progress));
  }
  return produce_by_rows(*source, p.plan, o.search, &importance, job, progress);
}

Result<double> measure(const Prepared& p, const Calibration& c, const std::filesystem::path& file,
                       ProgressSink& progress) {
  NARROW_ASSIGN(ModelProbe probe, ModelProbe::create(p.source, c.judge, progress));
  NARROW_ASSIGN(const auto made, model::ModelSource::open(file));
  NARROW_ASSIGN(const eval::MeanAndError kl, probe.measure(made, progress));
  return kl.mean;
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
    NARROW_TRY(check_earlier_run(job_options(o, p)));
    NARROW_ASSIGN(const Calibration calibration, calibrate(o, p, progress));
    if (chooses_types(o)) NARROW_TRY(choose_types(o, calibration, p, progress));
    if (p.redo) p.redo->keep_types(p.plan);
    NARROW_ASSIGN(const auto job, open_job(o, p, progress));
    if (!p.state.empty()) NARROW_TRY(job->put("types", p.state));
    if (const Status s = produce(o, p, calibration, *job, progress); !s.ok()) return job->abandon(s.error());
    NARROW_ASSIGN(report.files, job->commit());
    if (p.predicted_kl) {
      report.predicted_kl = p.predicted_kl;
      NARROW_ASSIGN(report.measured_kl, measure(p, calibration, report.files.front(), progress));
    }
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
