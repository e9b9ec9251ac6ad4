#include "recipe/run.h"

#include <algorithm>
#include <cmath>

#include "base/atomic_file.h"
#include "base/cpu_features.h"
#include "base/thread_team.h"
#include "eval/report/document.h"
#include "pipeline/pattern.h"

namespace narrow::recipe {

using Json = nlohmann::ordered_json;

Result<at::Device> device_named(const std::string& name) {
  if (name == "cpu") return at::Device(at::kCPU);
  if (name != "cuda" && name.rfind("cuda:", 0) != 0) {
    return make_error(ErrorCode::kInvalidArgument, "--device '{}': cpu, cuda or cuda:N", name);
  }
  if (!at::hasCUDA()) {
    return make_error(
        ErrorCode::kUnsupported,
        "--device {}: the libtorch that narrow was built with has no CUDA, or there is no such device", name);
  }
  return at::Device(name);
}

Result<at::ScalarType> dtype_named(const std::string& name) {
  if (name == "f32") return at::kFloat;
  if (name == "bf16") return at::kBFloat16;
  return make_error(ErrorCode::kInvalidArgument, "--dtype '{}': f32 or bf16", name);
}

Result<std::function<bool(const std::string&)>> frozen_names(const TrainLoop& loop,
                                                             std::function<bool(const std::string&)> also) {
  if (loop.freeze.empty()) {
    if (!also) also = [](const std::string&) { return false; };
    return also;
  }
  NARROW_ASSIGN(const pipeline::Pattern pattern, pipeline::Pattern::compile(loop.freeze));
  return std::function<bool(const std::string&)>(
      [pattern, also](const std::string& name) { return pattern.found_in(name) || (also && also(name)); });
}

TrainingTextOptions text_options(const TrainLoop& loop) {
  return {loop.texts, loop.n_ctx, loop.validation_windows, loop.seed};
}

Result<train::LoraSpec> lora_spec(const LoraOptions& options, const TrainLoop& loop,
                                  const std::function<bool(const std::string&)>& is_frozen) {
  train::LoraSpec spec;
  spec.rank = options.rank;
  spec.alpha = options.alpha;
  spec.seed = loop.seed;
  NARROW_ASSIGN(const pipeline::Pattern pattern,
                pipeline::Pattern::compile(options.match.empty() ? "blk\\." : options.match));
  spec.wanted = [pattern, is_frozen](const std::string& name) {
    return pattern.found_in(name) && !is_frozen(name);
  };
  return spec;
}

void prepare_torch() {
  at::set_num_threads(thread_count());
  at::globalContext().setDeterministicAlgorithms(true, true);
}

Result<train::TrainerOptions> trainer_options(const TrainLoop& loop, const train::LossOptions& loss,
                                              const std::filesystem::path& output, Json recipe,
                                              std::int64_t rank, std::int64_t world) {
  const auto bad = [](const std::string& what) {
    return make_error(ErrorCode::kInvalidArgument, "{}", what);
  };
  train::TrainerOptions o;
  if (loop.n_ctx < 2) return bad(fmt::format("--ctx {}: at least 2 tokens", loop.n_ctx));
  if (loop.batch_tokens < 1) return bad(fmt::format("--batch-tokens {}: at least 1", loop.batch_tokens));
  if (loop.steps == 0 && loop.max_minutes == 0) return bad("say how long: --steps N or --minutes N");
  const auto decay = train::decay_named(loop.schedule);
  if (!decay) return bad(fmt::format("--schedule '{}': cosine, linear or constant", loop.schedule));
  o.steps = loop.steps;
  o.max_seconds = 60 * loop.max_minutes;
  // Whole windows, the same number for every process.
  const std::int64_t unit = loop.n_ctx * world;
  o.batch.windows = (loop.batch_tokens + unit - 1) / unit * world;
  o.batch.rank = rank;
  o.batch.world = world;
  o.micro_windows = loop.micro_batch;
  o.logits_every = loop.logits_every;
  o.rates.weights = loop.lr;
  o.weight_decay = loop.weight_decay;
  o.clip_norm = loop.clip;
  o.adamw.beta1 = loop.beta1;
  o.adamw.beta2 = loop.beta2;
  o.schedule.decay = *decay;
  o.schedule.floor = loop.lr_floor;
  o.schedule.warmup_steps =
      static_cast<std::int64_t>(std::llround(loop.warmup * static_cast<double>(loop.steps)));
  o.warmup_share = loop.warmup;
  o.loss = loss;
  o.validate_every = loop.validate_every;
  o.checkpoint =
      loop.checkpoint.empty() ? std::filesystem::path(output.string() + ".checkpoint") : loop.checkpoint;
  o.checkpoint_every = loop.checkpoint_every;
  std::error_code ec;
  o.resume = loop.resume && std::filesystem::exists(o.checkpoint, ec);
  o.recipe = std::move(recipe);
  o.metrics = rank == 0 ? loop.metrics : std::filesystem::path();
  if (!loop.resume && rank == 0 && std::filesystem::exists(o.checkpoint, ec)) {
    return make_error(
        ErrorCode::kRefused,
        "{}: an earlier run's checkpoint; go on with it by --resume, or remove it to begin anew",
        o.checkpoint.string());
  }
  return o;
}

void fill(const train::TrainerReport& from, TrainReport& to) {
  for (const train::StepMetrics& m : from.steps) {
    to.steps.push_back({m.step + 1, m.loss, m.kl, m.ce, m.lr, m.gradient_norm});
  }
  for (const train::Validation& v : from.validations) to.validations.push_back({v.step, v.kl, v.ce});
  to.tokens = from.tokens;
  to.seconds = from.seconds;
  to.tokens_per_s = from.seconds > 0 ? static_cast<double>(from.tokens) / from.seconds : 0;
}

namespace {

// Whether there was a teacher to measure against.
bool has_teacher(const TrainReport& r) {
  return std::any_of(r.validations.begin(), r.validations.end(), [](const auto& v) { return v.kl != 0; }) ||
         std::any_of(r.steps.begin(), r.steps.end(), [](const auto& s) { return s.kl != 0; });
}

eval::report::Document document(const std::string& title, const Json& recipe, const TrainReport& r) {
  namespace page = eval::report;
  page::Document d;
  d.title = title;
  d.subtitle = fmt::format("{} steps, {} tokens, {:.0f} s", r.steps.size(), r.tokens, r.seconds);
  for (const auto& [key, value] : recipe.items())
    d.facts.emplace_back(key, value.is_string() ? value.get<std::string>() : value.dump());
  page::Section s;
  s.title = "Training";
  page::Chart loss;
  loss.title = "Loss";
  loss.note =
      "Of each step's own windows, and their mean over ten steps; validation is over held-out windows.";
  loss.x = {"step", page::NumberFormat::kInteger, false, {}};
  loss.y = {"nats a token", page::NumberFormat::kPlain, true, {}};
  page::Series each{"training", page::Mark::kPoints, {}, {}, {}, {}},
      mean{"mean of ten", page::Mark::kBareLine, {}, {}, {}, {}};
  for (std::size_t i = 0; i < r.steps.size(); ++i) {
    each.x.push_back(static_cast<double>(r.steps[i].step));
    each.y.push_back(r.steps[i].loss);
    const std::size_t n = std::min<std::size_t>(10, i + 1);
    double sum = 0;
    for (std::size_t j = i + 1 - n; j <= i; ++j) sum += r.steps[j].loss;
    mean.x.push_back(static_cast<double>(r.steps[i].step));
    mean.y.push_back(sum / static_cast<double>(n));
  }
  loss.series = {each, mean};
  const bool distils = has_teacher(r);
  page::Chart validation;
  validation.title =
      distils ? "KL divergence from the teacher, held-out windows" : "Cross-entropy, held-out windows";
  validation.x = loss.x;
  validation.y = {"nats a token", page::NumberFormat::kPlain, false, {}};
  page::Series held{distils ? "KL divergence" : "cross-entropy", page::Mark::kLine, {}, {}, {}, {}};
  page::Table table;
  table.title = "Validation";
  table.columns = {{"step", true, page::NumberFormat::kInteger}};
  if (distils) table.columns.push_back({"KL divergence", true, {}});
  table.columns.push_back({"cross-entropy", true, {}});
  table.columns.push_back({"perplexity", true, {}});
  for (const TrainValidation& v : r.validations) {
    held.x.push_back(static_cast<double>(v.step));
    held.y.push_back(distils ? v.kl : v.ce);
    if (distils) {
      table.rows.push_back({static_cast<double>(v.step), v.kl, v.ce, std::exp(v.ce)});
    } else {
      table.rows.push_back({static_cast<double>(v.step), v.ce, std::exp(v.ce)});
    }
  }
  validation.series = {held};
  s.items = {loss, validation, table};
  d.sections = {s};
  d.measurements_json = r.json;
  return d;
}

}  // namespace

Status finish_report(const std::string& title, const Json& recipe, const TrainLoop& loop, TrainReport& r) {
  r.peak_memory_bytes = peak_resident_bytes();
  Json j = {{"title", title},
            {"recipe", recipe},
            {"tokens", r.tokens},
            {"seconds", r.seconds},
            {"tokens_per_s", r.tokens_per_s},
            {"peak_memory_bytes", r.peak_memory_bytes}};
  for (const auto& f : r.files) j["files"].push_back(f.string());
  const bool distils = has_teacher(r);
  for (const TrainValidation& v : r.validations) {
    Json line = {{"step", v.step}};
    if (distils) line["kl"] = v.kl;
    line["ce"] = v.ce;
    line["perplexity"] = std::exp(v.ce);
    j["validations"].push_back(std::move(line));
  }
  for (const TrainStep& s : r.steps) {
    Json line = {{"step", s.step}, {"loss", s.loss}};
    if (distils) line["kl"] = s.kl;
    line["ce"] = s.ce;
    line["lr"] = s.lr;
    line["gradient_norm"] = s.gradient_norm;
    j["steps"].push_back(std::move(line));
  }
  r.json = j.dump();
  if (loop.report.empty()) return {};
  NARROW_ASSIGN(AtomicFile file, AtomicFile::create(loop.report));
  NARROW_TRY(
      file.write(std::string_view(eval::report::to_html(eval::report::to_json(document(title, recipe, r))))));
  return file.commit();
}

}  // namespace narrow::recipe
