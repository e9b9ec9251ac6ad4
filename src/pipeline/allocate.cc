#include "pipeline/allocate.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "io/gguf/writer.h"
#include "pipeline/choice.h"
#include "pipeline/fit_memory.h"

namespace narrow::pipeline {
namespace {

using Types = std::vector<std::optional<Format>>;  // by source tensor

constexpr int kTrials = 4;             // of a KL target
constexpr double kKlTolerance = 0.02;  // below it, in which a trial ends the search

std::uint64_t padded(std::uint64_t n) { return (n + 31) / 32 * 32; }

// The choice of types as classes of the knapsack.
class Problem {
 public:
  Problem(const model::ModelSource& source, const DamageTable& damage, const Plan& plan) : source_(source) {
    for (std::size_t i = 0; i < source.tensors().size(); ++i) {
      const TensorInfo& t = source.tensors()[i];
      if (!model::is_quantizable(t)) continue;
      tensors_.push_back(i);
      options_.emplace_back();
      const TensorDamage* d = damage.find(t.name);
      for (const TypeDamage& each : d != nullptr ? d->types : std::vector<TypeDamage>()) {
        if (plan.asked[i] && each.format != plan.types[i]) continue;
        options_.back().push_back(each);
        options_.back().back().bytes = TensorInfo{t.name, each.format, t.shape}.bytes();
      }
      if (options_.back().empty()) {  // asked for, and never measured: nothing to choose, nothing known
        options_.back().push_back({plan.types[i], 0, plan.outputs[i].bytes()});
      }
    }
  }

  // `pad`: bytes as they lie in the file.
  std::optional<Types> within_bytes(double limit, bool pad) const {
    return solve(limit, [&](const TypeDamage& d) {
      return Choice{static_cast<double>(pad ? padded(d.bytes) : d.bytes), d.kl};
    });
  }
  std::optional<Types> within_kl(double limit) const {
    return solve(limit, [](const TypeDamage& d) {
      return Choice{d.kl, static_cast<double>(padded(d.bytes))};
    });
  }

  double kl(const Types& types) const {
    return sum(types, [](const TypeDamage& d) { return d.kl; });
  }
  double bytes(const Types& types) const {
    return sum(types, [](const TypeDamage& t) { return static_cast<double>(padded(t.bytes)); });
  }
  // Of every tensor the type with most bytes: a quantized one where there is one.
  Types largest() const {
    Types out(source_.tensors().size());
    const auto quantized = [](const TypeDamage& d) {
      return format_info(d.format).kind == FormatKind::kQuantized;
    };
    for (std::size_t c = 0; c < tensors_.size(); ++c) {
      const auto& o = options_[c];
      out[tensors_[c]] = std::max_element(o.begin(), o.end(), [&](const TypeDamage& a, const TypeDamage& b) {
                           return std::pair(quantized(a), a.bytes) < std::pair(quantized(b), b.bytes);
                         })->format;
    }
    return out;
  }

 private:
  template <class F>
  std::optional<Types> solve(double limit, F choice) const {
    std::vector<std::vector<Choice>> classes;
    for (const auto& o : options_) {
      classes.emplace_back();
      for (const TypeDamage& d : o) classes.back().push_back(choice(d));
    }
    const auto chosen = choose(classes, limit);
    if (!chosen) return std::nullopt;
    Types out(source_.tensors().size());
    for (std::size_t c = 0; c < tensors_.size(); ++c) out[tensors_[c]] = options_[c][(*chosen)[c]].format;
    return out;
  }

  template <class F>
  double sum(const Types& types, F value) const {
    double total = 0;
    for (std::size_t c = 0; c < tensors_.size(); ++c) {
      for (const TypeDamage& d : options_[c]) {
        if (d.format == types[tensors_[c]]) total += value(d);
      }
    }
    return total;
  }

  const model::ModelSource& source_;
  std::vector<std::size_t> tensors_;  // of each class, in the source
  std::vector<std::vector<TypeDamage>> options_;
};

// Bytes of a file besides those of the tensors that types are chosen for.
std::uint64_t other_bytes(const AllocateInputs& in, const Plan& plan) {
  io::gguf::WriterOptions writer;
  writer.split_max_bytes = in.options->split_max_bytes;
  std::uint64_t n = io::gguf::planned_file_bytes(*in.metadata, plan.outputs, writer);
  for (std::size_t i = 0; i < plan.outputs.size(); ++i) {
    if (model::is_quantizable(in.source->tensors()[i])) n -= padded(plan.outputs[i].bytes());
  }
  return n;
}

// A trial of whole sets of types, with what earlier trials encoded.
class Trials {
 public:
  Trials(const AllocateInputs& in, ProgressSink& progress)
      : in_(in), progress_(progress), overlay_(std::make_shared<model::OverlaySource>(in.source)) {}

  // `plainly`: rounded to nearest, whatever the method.
  Result<double> kl(const Types& types, bool plainly = false) {
    if (!probe_) {
      NARROW_ASSIGN(auto probe, ModelProbe::create(in_.source, in_.windows, progress_));
      probe_ = std::move(probe);
    }
    if (in_.encode && !plainly) {
      NARROW_TRY(in_.encode(types, *overlay_));
    } else {
      NARROW_TRY(round(types));
    }
    NARROW_ASSIGN(const eval::MeanAndError m, probe_->measure(overlay_, progress_));
    return m.mean;
  }

 private:
  Status round(const Types& types) {
    progress_.begin("encode a trial", types.size(), "tensors");
    for (std::size_t i = 0; i < types.size(); ++i) {
      if (progress_.cancelled()) return make_error(ErrorCode::kCancelled, "cancelled");
      progress_.update(i, in_.source->tensors()[i].name);
      if (!types[i] || (overlay_->replaced(i) && overlay_->tensors()[i].format == *types[i])) continue;
      NARROW_ASSIGN(AlignedBuffer<std::byte> data,
                    encode_tensor(*in_.source, i, *types[i], in_.stats, in_.options->search));
      NARROW_TRY(overlay_->replace(i, *types[i], std::move(data)));
      in_.source->drop(i);
    }
    progress_.end();
    return {};
  }

  const AllocateInputs& in_;
  ProgressSink& progress_;
  std::shared_ptr<model::OverlaySource> overlay_;
  std::optional<ModelProbe> probe_;
};

// A size target in bytes.
struct SizeLimit {
  double bytes = 0;    // of the tensors that types are chosen for
  bool padded = true;  // as they lie in the file
  std::string text;    // of the target
};

Result<SizeLimit> size_limit(const AllocateInputs& in, const Plan& plan) {
  const QuantizeOptions& o = *in.options;
  SizeLimit limit;
  const auto other = static_cast<double>(other_bytes(in, plan));
  if (o.target_bpw > 0) {
    double kept = 0;
    for (std::size_t i = 0; i < plan.outputs.size(); ++i) {
      if (!model::is_quantizable(in.source->tensors()[i]))
        kept += static_cast<double>(plan.outputs[i].bytes());
    }
    limit.bytes = o.target_bpw * static_cast<double>(plan.report.parameters) / 8 - kept;
    limit.padded = false;
    limit.text = fmt::format("{} bits per weight", o.target_bpw);
    return limit;
  }
  std::uint64_t file = o.target_bytes;
  limit.text = fmt::format("{} bytes", file);
  if (o.fit_context > 0) {
    NARROW_ASSIGN(const std::uint64_t free, available_memory());
    NARROW_ASSIGN(file, fitting_file_bytes(in.source->config(), o.fit_context, free));
    limit.text =
        fmt::format("a context of {} tokens in the memory of one machine: {} bytes", o.fit_context, file);
  }
  limit.bytes = static_cast<double>(file) - other;
  return limit;
}

// The smallest type of every tensor, measured or not; `small`: the codebook types too.
double least_bytes(const AllocateInputs& in, const Plan& plan, bool small, bool pad) {
  double least = 0;
  for (std::size_t i = 0; i < plan.outputs.size(); ++i) {
    const TensorInfo& t = in.source->tensors()[i];
    if (!model::is_quantizable(t)) continue;
    const Format f = plan.asked[i] ? plan.types[i] : candidate_types(t.shape.row_length(), small).front();
    const std::uint64_t bytes = TensorInfo{t.name, f, t.shape}.bytes();
    least += static_cast<double>(pad ? padded(bytes) : bytes);
  }
  return least;
}

Error too_small(const AllocateInputs& in, const SizeLimit& limit, double least) {
  const double missing = least - limit.bytes;
  return make_error(ErrorCode::kInvalidArgument,
                    "{}: cannot be made as small as {}: even the smallest types take {:.0f} bytes more",
                    in.source->path().string(), limit.text, std::ceil(missing));
}

Result<DamageTable> damage_of(const AllocateInputs& in, const Plan& plan, bool small,
                              ProgressSink& progress) {
  if (in.damage != nullptr) return *in.damage;
  DamageInputs d;
  d.source = in.source;
  d.stats = in.stats;
  d.windows = in.windows;
  d.small = small;
  // Where all else is at its largest and bytes are left, some tensors stay in 16 bits. What fits a machine
  // stays on integer kernels: there is no wish for a certain size.
  d.floats = in.options->fit_context == 0;
  d.search = in.options->search;
  d.fixed.resize(plan.types.size());
  for (std::size_t i = 0; i < plan.types.size(); ++i) {
    if (plan.asked[i]) d.fixed[i] = plan.types[i];
  }
  return measure_damage(d, progress);
}

// What a trial says about how errors add up.
void correct(DamageTable& damage, double sum, double measured) {
  if (sum > 0 && measured > damage.floor) damage.scale = (measured - damage.floor) / sum;
}

// The smallest file whose trial keeps the target: solved, tried, corrected and solved again. Aims at the
// middle of the range that ends the search.
Status reach_kl(double target, const Problem& problem, Trials& trials, DamageTable& damage, Types& types,
                std::optional<double>& measured) {
  double best_bytes = 0;
  const double aim = target * (1 - kKlTolerance / 2);
  for (int trial = 0; trial < kTrials; ++trial) {
    const auto found = problem.within_kl((aim - damage.floor) / damage.scale);
    if (!found) break;
    NARROW_ASSIGN(const double kl, trials.kl(*found));
    correct(damage, problem.kl(*found), kl);
    const double bytes = problem.bytes(*found);
    if (kl <= target && (!measured || bytes < best_bytes)) {
      types = *found;
      measured = kl;
      best_bytes = bytes;
    }
    if (kl <= target && kl >= target * (1 - kKlTolerance)) break;
  }
  if (measured) {
    correct(damage, problem.kl(types), *measured);
    return {};
  }
  const Types most = problem.largest();
  return make_error(
      ErrorCode::kInvalidArgument,
      "--kl {}: out of reach: with the largest types ({:.1f} MB of tensors) about {:.4f} is left", target,
      problem.bytes(most) / 1e6, damage.floor + damage.scale * problem.kl(most));
}

}  // namespace

bool asks_for_allocation(const QuantizeOptions& o) {
  return o.target_bytes > 0 || o.target_bpw > 0 || o.target_kl > 0 || o.fit_context > 0;
}

Status check_targets(const QuantizeOptions& o) {
  const auto bad = [](std::string_view option, double value) {
    return make_error(ErrorCode::kInvalidArgument, "{} {}: must be positive", option, value);
  };
  if (!(o.target_bpw >= 0) || !std::isfinite(o.target_bpw)) return bad("--bpw", o.target_bpw);
  if (!(o.target_kl >= 0) || !std::isfinite(o.target_kl)) return bad("--kl", o.target_kl);
  if (o.fit_context < 0) return bad("--fit", static_cast<double>(o.fit_context));
  std::vector<std::string> given;
  if (o.target_bytes > 0) given.emplace_back("--size");
  if (o.target_bpw > 0) given.emplace_back("--bpw");
  if (o.target_kl > 0) given.emplace_back("--kl");
  if (o.fit_context > 0) given.emplace_back("--fit");
  if (given.empty() && !o.save_plan.empty()) {
    return make_error(ErrorCode::kInvalidArgument,
                      "--save-plan {}: no plan is made; give --size, --bpw, --kl or --fit too",
                      o.save_plan.string());
  }
  if (given.empty() && !o.plan.empty()) given.emplace_back("--plan");
  if (given.empty()) return {};
  if (!o.type.empty()) given.emplace_back("--type");
  if (o.pure) given.emplace_back("--pure");
  if (given.size() == 1) return {};
  return make_error(ErrorCode::kInvalidArgument, "{} and {} both say which types to use: give one of them",
                    given[0], given[1]);
}

HeldOut hold_out(const calib::TokenWindows& all, std::int64_t judge_windows) {
  const auto count = static_cast<std::int64_t>(all.lengths.size());
  // A quarter at most, in the middle of equal stretches, so that every text has its share of both.
  const std::int64_t judged = std::clamp<std::int64_t>(count / 4, 1, judge_windows);
  HeldOut out;
  std::int64_t at = 0, taken = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t n = all.lengths[static_cast<std::size_t>(i)];
    const bool judge = taken < judged && i == (2 * taken + 1) * count / (2 * judged);
    taken += judge ? 1 : 0;
    (judge && count > 1 ? out.judge : out.fit).add(all, at, n);
    at += n;
  }
  if (out.judge.lengths.empty()) out.judge = out.fit;  // a single window serves for both
  return out;
}

const Mix* dominant_mix(std::span<const TensorInfo> outputs) {
  std::map<Format, std::int64_t> weights;
  for (const TensorInfo& t : outputs) {
    if (model::is_quantizable(t)) weights[t.format] += t.shape.elements();
  }
  const Mix* best = find_mix("f32");
  std::int64_t most = 0;
  for (const auto& [format, n] : weights) {
    const Mix* mix = nullptr;
    for (const Mix& m : all_mixes()) {
      if (m.base == format && m.alias_of.empty() && (mix == nullptr || m.rules.empty())) mix = &m;
    }
    if (mix == nullptr || n <= most) continue;
    best = mix;
    most = n;
  }
  return best;
}

Status set_types(std::span<const std::optional<Format>> types, std::string_view reason,
                 const QuantizeOptions& options, const io::gguf::Metadata& metadata, Plan& plan) {
  std::uint64_t stored = 0;
  plan.report.fallbacks = 0;
  for (std::size_t i = 0; i < plan.types.size(); ++i) {
    PlannedTensor& p = plan.report.tensors[i];
    if (i < types.size() && types[i] && !plan.asked[i]) {
      plan.types[i] = plan.outputs[i].format = *types[i];
      p.to_type = std::string(format_info(*types[i]).name);
      p.to_bytes = plan.outputs[i].bytes();
      p.reason = std::string(reason);
      p.fallback = false;
    }
    plan.report.fallbacks += p.fallback ? 1 : 0;
    stored += p.to_bytes;
  }
  plan.report.bpw = 8.0 * static_cast<double>(stored) / static_cast<double>(plan.report.parameters);
  io::gguf::WriterOptions writer;
  writer.split_max_bytes = options.split_max_bytes;
  plan.report.output_bytes = io::gguf::planned_file_bytes(metadata, plan.outputs, writer);
  plan.mix = dominant_mix(plan.outputs);
  plan.report.file_type_name = std::string(reason);
  return {};
}

Result<PlanFile> allocate(const AllocateInputs& in, Plan& plan, ProgressSink& progress) {
  const QuantizeOptions& o = *in.options;
  if (in.windows.tokens.empty()) {
    return make_error(ErrorCode::kInvalidArgument,
                      "types are chosen by running the model on text: give a calibration text by --calib");
  }
  PlanFile file;
  SizeLimit limit;
  const bool by_kl = o.target_kl > 0;
  if (!by_kl) {
    NARROW_ASSIGN(limit, size_limit(in, plan));
    file.target = limit.text;
  } else {
    file.target = fmt::format("KL {}", o.target_kl);
  }
  // Types without integer kernels only where nothing else is small enough.
  const bool small = !by_kl && least_bytes(in, plan, false, limit.padded) > limit.bytes;
  if (small) {
    const double least = least_bytes(in, plan, true, limit.padded);
    if (least > limit.bytes) return too_small(in, limit, least);
    progress.note("a file this small needs types without integer kernels: it runs slower");
  }
  NARROW_ASSIGN(file.damage, damage_of(in, plan, small, progress));
  const Problem problem(*in.source, file.damage, plan);
  Trials trials(in, progress);

  DamageTable& d = file.damage;
  // What is there almost without damage; a table made before knows.
  const Types most = problem.largest();
  if (in.damage == nullptr) {
    NARROW_ASSIGN(const double kl, trials.kl(most, true));
    d.floor = std::max(0.0, kl - problem.kl(most));
  }
  Types types;
  if (by_kl) {
    NARROW_TRY(reach_kl(o.target_kl, problem, trials, d, types, file.measured_kl));
  } else {
    const auto found = problem.within_bytes(limit.bytes, limit.padded);
    if (!found) return too_small(in, limit, least_bytes(in, plan, small, limit.padded));
    types = *found;
    NARROW_ASSIGN(file.measured_kl, trials.kl(types));
    correct(d, problem.kl(types), *file.measured_kl);
  }
  file.predicted_kl = d.floor + d.scale * problem.kl(types);

  NARROW_TRY(set_types(types, "allocated", o, *in.metadata, plan));
  file.model = in.source->config().name;
  file.architecture = in.source->config().arch;
  file.digest = in.digest;
  file.file_bytes = plan.report.output_bytes;
  for (std::size_t i = 0; i < plan.types.size(); ++i) {
    const TensorInfo& t = in.source->tensors()[i];
    if (model::is_quantizable(t)) file.types.emplace_back(t.name, plan.types[i]);
  }
  return file;
}

Result<PlanFile> plan_types(const AllocateInputs& in, Plan& plan, ProgressSink& progress) {
  const QuantizeOptions& o = *in.options;
  PlanFile given;
  if (!o.plan.empty()) {
    NARROW_ASSIGN(given, read_plan(o.plan));
    NARROW_ASSIGN(const Types types, types_of_plan(o.plan, given, in.source->tensors(), in.digest));
    if (!asks_for_allocation(o)) {
      NARROW_TRY(set_types(types, "plan", o, *in.metadata, plan));
      // Edited types have another KL than the file says.
      if (const auto kl = given.damage.predict(given.types); kl.ok() && !given.damage.tensors.empty()) {
        given.predicted_kl = *kl;
      }
      given.file_bytes = plan.report.output_bytes;
      return given;
    }
  }
  AllocateInputs with_damage = in;
  // A table that lacks tensors is of no use.
  const bool complete = std::all_of(given.types.begin(), given.types.end(),
                                    [&](const auto& t) { return given.damage.find(t.first) != nullptr; });
  if (!given.types.empty() && complete) with_damage.damage = &given.damage;
  NARROW_ASSIGN(PlanFile made, allocate(with_damage, plan, progress));
  if (!o.save_plan.empty()) NARROW_TRY(write_plan(o.save_plan, made));
  return made;
}

}  // namespace narrow::pipeline
