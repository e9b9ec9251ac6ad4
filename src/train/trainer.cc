#include "train/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <set>

#include "base/stopwatch.h"
#include "train/checkpoint.h"
#include "train/metrics.h"

namespace narrow::train {
namespace {

// Every node of the decoder once.
std::vector<NamedNode> collect_nodes(const Decoder& decoder) {
  std::vector<NamedNode> out;
  std::set<const Node*> seen;
  const auto add = [&](const std::string& name, const std::shared_ptr<Node>& node, bool activations) {
    if (node && seen.insert(node.get()).second) out.push_back({name, node, activations});
  };
  for (const auto& [name, node] : decoder.weight_nodes()) add(name, node, false);
  for (const auto& [name, node] : decoder.input_nodes()) add(name + ".input", node, true);
  for (std::size_t i = 0; i < decoder.cache_nodes().size(); ++i) {
    add(fmt::format("blk.{}.keys", i), decoder.cache_nodes()[i].first, true);
    add(fmt::format("blk.{}.values", i), decoder.cache_nodes()[i].second, true);
  }
  return out;
}

// Rows of a micro-batch [windows, tokens] whose logits are compared: of those of the mask, in training each
// `every`-th place of a window, in turn from step to step.
at::Tensor compared_rows(const at::Tensor& mask, std::int64_t every, std::int64_t step) {
  const at::Tensor rows = mask.reshape({-1}).nonzero().squeeze(-1);
  if (every == 1) return rows;
  return rows.masked_select((rows.remainder(mask.size(1)) + step).remainder(every) == 0);
}

Status check(const TrainerOptions& o, const Dataset& data) {
  const auto bad = [](const std::string& what) {
    return make_error(ErrorCode::kInvalidArgument, "{}", what);
  };
  if (o.steps < 0 || o.max_seconds < 0) return bad(fmt::format("--steps {}: at least 1", o.steps));
  if (o.steps == 0 && o.max_seconds == 0) return bad("say how long: --steps N or --minutes N");
  if (o.micro_windows < 1) return bad(fmt::format("--micro-batch {}: at least 1 window", o.micro_windows));
  if (o.logits_every < 1) return bad(fmt::format("--logits-every {}: at least 1", o.logits_every));
  if (!(o.rates.weights >= 0) || !std::isfinite(o.rates.weights)) {
    return bad(fmt::format("--lr {}: 0 or more", o.rates.weights));
  }
  if (o.loss.kl_weight < 0 || o.loss.ce_weight < 0 || !(o.loss.temperature > 0)) {
    return bad("the loss needs weights of 0 or more and a temperature above 0");
  }
  if (!(o.hidden_weight >= 0)) return bad(fmt::format("--hidden-weight {}: 0 or more", o.hidden_weight));
  if (data.training_windows() == 0) return bad("no window of text to train on");
  return Dataset::check(o.batch);
}

// No token's distance counts for more than this many times the median of its window's: where a sink is lost,
// its distance is a thousand times the others', and so are its gradients.
constexpr double kMostDistance = 4.0;

// Mean over layers of the squared distance of `own` from `wanted` [b, t, n_embd] relative to the latter's
// energy, summed over the tokens of `mask` [b, t].
at::Tensor hidden_distance(const std::vector<at::Tensor>& own, const std::vector<at::Tensor>& wanted,
                           const at::Tensor& mask) {
  at::Tensor sum = at::zeros({}, own.front().options());
  for (std::size_t i = 0; i < own.size(); ++i) {
    const at::Tensor energy = wanted[i].square().sum(-1).clamp_min(1e-12);
    const at::Tensor each = (own[i] - wanted[i]).square().sum(-1) / energy;
    const at::Tensor now = each.detach(), most = kMostDistance * std::get<0>(now.median(-1, true));
    const at::Tensor share = (most / now.clamp_min(1e-30)).clamp_max(1.0);
    sum = sum + (each * share * mask).sum();
  }
  return sum / static_cast<double>(own.size());
}

}  // namespace

Trainer::Trainer(Decoder& student, Decoder* teacher, const Dataset& data, const TrainerOptions& options,
                 AdamW optimizer, Group* group)
    : student_(student),
      teacher_(teacher),
      data_(data),
      options_(options),
      optimizer_(std::move(optimizer)),
      group_(group),
      nodes_(collect_nodes(student)),
      planned_(options.steps > 0) {}

std::vector<Parameter> trained_parameters(const Decoder& student, const LearningRates& rates,
                                          double weight_decay) {
  std::vector<Parameter> parameters;
  for (const auto& [name, w] : student.weights()) {
    if (w.requires_grad()) parameters.push_back({name, w, 1.0, w.dim() >= 2 ? weight_decay : 0.0});
  }
  for (const auto& [name, lora] : student.loras()) {
    parameters.push_back({name + ".lora_a", lora.a, 1.0, 0.0});
    parameters.push_back({name + ".lora_b", lora.b, 1.0, 0.0});
  }
  for (const NamedNode& n : collect_nodes(student)) {
    const double rate = n.activations ? rates.inputs : rates.scales;
    for (const NamedTensor& p : n.node->parameters()) {
      if (!p.tensor.requires_grad()) continue;
      // Adam's steps are of the learning rate's size whatever the gradient's: a range needs steps of its own
      // size.
      const double size = p.tensor.detach().abs().mean().item<double>();
      const double relative = size > 0 ? size : 1.0;
      const double factor = rates.weights > 0 ? rate * relative / rates.weights : 0.0;
      parameters.push_back({n.name + "." + p.name, p.tensor, factor, 0.0});
    }
  }
  return parameters;
}

Result<std::unique_ptr<Trainer>> Trainer::create(Decoder& student, Decoder* teacher, const Dataset& data,
                                                 const TrainerOptions& options, Group* group) {
  TrainerOptions o = options;
  NARROW_TRY(check(o, data));
  o.schedule.steps = std::max<std::int64_t>(o.steps, 1);
  o.loss.logit_scale = student.config().logit_scale;
  o.loss.softcap = student.config().final_softcap;
  if (teacher == nullptr && o.teacher_cache == nullptr) o.loss.kl_weight = 0;
  if (o.hidden_weight > 0 && (teacher == nullptr || o.teacher_cache != nullptr || o.loss.kl_weight == 0)) {
    return make_error(ErrorCode::kInvalidArgument, "--hidden-weight {}: needs a model to be near to",
                      o.hidden_weight);
  }
  if (o.loss.kl_weight == 0 && o.loss.ce_weight == 0) {
    return make_error(
        ErrorCode::kInvalidArgument,
        "nothing to learn from: a teacher for the KL divergence, or a weight for cross-entropy");
  }
  std::vector<Parameter> parameters = trained_parameters(student, o.rates, o.weight_decay);
  if (parameters.empty()) return make_error(ErrorCode::kInvalidArgument, "no weight is left to train");
  NARROW_ASSIGN(AdamW optimizer, AdamW::create(std::move(parameters), o.adamw));
  return std::unique_ptr<Trainer>(new Trainer(student, teacher, data, o, std::move(optimizer), group));
}

void Trainer::set_phase(std::int64_t step) {
  Phase phase = Phase::kOn;
  if (step < options_.observe_steps) phase = Phase::kObserve;
  if (options_.freeze_step >= 0 && step >= options_.freeze_step) phase = Phase::kFrozen;
  for (const NamedNode& n : nodes_) n.node->set_phase(phase);
}

Result<Trainer::Totals> Trainer::forward(const Batch& batch, double rows, std::int64_t step) {
  if (batch.counted() == 0) return Totals{};
  const at::Device device = student_.weights().begin()->second.device();
  const at::Tensor tokens = batch.tokens.to(device);
  const bool trains = at::GradMode::is_enabled();
  const std::int64_t every = trains ? options_.logits_every : 1;
  const at::Tensor rows_here = compared_rows(batch.mask, every, step);
  const at::Tensor picked = rows_here.to(device);
  LossInput in;
  // Position i predicts token i + 1; the mask is off at the last one.
  in.targets = at::roll(batch.tokens, {-1}, {1}).reshape({-1}).to(device).index_select(0, picked);
  const std::int64_t width = student_.config().n_embd;
  std::vector<at::Tensor> wanted, own;                          // behind the layers
  const bool by_layers = options_.hidden_weight > 0 && trains;  // validation asks for none
  if (options_.teacher_cache != nullptr && options_.loss.kl_weight > 0) {
    NARROW_ASSIGN(const TeacherTopK all, options_.teacher_cache->get(batch.tokens, teacher_));
    in.top_k = TeacherTopK{all.ids.index_select(0, rows_here).to(device),
                           all.log_probs.index_select(0, rows_here).to(device)};
  } else if (teacher_ != nullptr && options_.loss.kl_weight > 0) {
    const at::NoGradGuard off;
    const at::Tensor h = teacher_->head_input(teacher_->hidden(tokens, by_layers ? &wanted : nullptr));
    in.teacher = TeacherHead{h.reshape({-1, width}).index_select(0, picked), teacher_->head_weight()};
  }
  const at::Tensor h = student_.head_input(student_.hidden(tokens, by_layers ? &own : nullptr));
  in.hidden = h.reshape({-1, width}).index_select(0, picked);
  in.head_weight = student_.head_weight();
  LossOptions o = options_.loss;
  o.rows = rows / static_cast<double>(every);
  const Loss loss = head_loss(in, o);
  Totals totals{loss.kl, loss.ce};
  at::Tensor value = loss.value;
  if (by_layers) {
    const at::Tensor distance = hidden_distance(own, wanted, batch.mask.to(device)) / rows;
    totals.hidden = distance.item<double>();
    value = value + options_.hidden_weight * distance;
  }
  if (trains && value.requires_grad()) torch::autograd::backward({value}, {});
  return totals;
}

// Gradients, whose losses are divided by the rows of all processes, and the losses themselves add up.
Status Trainer::share(Totals& totals) {
  const at::Tensor losses = at::tensor({totals.kl, totals.ce, totals.hidden}, at::kDouble);
  std::vector<at::Tensor> tensors = {losses};
  for (const Parameter& p : optimizer_.parameters()) {
    at::Tensor t = p.tensor;
    // One without a gradient here may have one elsewhere.
    if (!t.grad().defined()) t.mutable_grad() = at::zeros_like(t);
    tensors.push_back(t.grad());
  }
  NARROW_TRY(group_->sum(tensors));
  totals = {losses[0].item<double>(), losses[1].item<double>(), losses[2].item<double>()};
  return {};
}

Result<StepMetrics> Trainer::gradients(std::int64_t step) {
  StepMetrics m;
  m.step = step;
  const Batch batch = data_.batch(step, options_.batch);
  std::int64_t rows = batch.counted();
  if (group_ != nullptr) {
    const at::Tensor all = at::full({1}, rows, at::kLong);
    NARROW_TRY(group_->sum(std::span(&all, 1)));
    rows = all.item<std::int64_t>();
  }
  student_.begin_step();
  Totals totals;
  for (std::int64_t w = 0; w < batch.tokens.size(0); w += options_.micro_windows) {
    const std::int64_t n = std::min(options_.micro_windows, batch.tokens.size(0) - w);
    NARROW_ASSIGN(const Totals t, forward({batch.tokens.narrow(0, w, n), batch.mask.narrow(0, w, n)},
                                          static_cast<double>(rows), step));
    totals.kl += t.kl;
    totals.ce += t.ce;
    totals.hidden += t.hidden;
  }
  student_.finish_step();
  if (group_ != nullptr) NARROW_TRY(share(totals));
  m.kl = totals.kl;
  m.ce = totals.ce;
  m.hidden = totals.hidden;
  m.loss =
      options_.loss.kl_weight * m.kl + options_.loss.ce_weight * m.ce + options_.hidden_weight * m.hidden;
  m.gradient_norm = optimizer_.gradient_norm();
  return m;
}

Result<Validation> Trainer::validate(std::int64_t done) {
  const at::NoGradGuard off;
  student_.forget_quantized();
  // What is measured does not move ranges; before anything was observed there is nothing to quantize with.
  for (const NamedNode& n : nodes_)
    n.node->set_phase(done < options_.observe_steps ? Phase::kOff : Phase::kFrozen);
  Validation v;
  v.step = done;
  std::int64_t rows = 0;
  for (std::int64_t w = 0; w < data_.validation_windows(); w += options_.validation_batch) {
    const Batch batch =
        data_.validation(w, std::min(options_.validation_batch, data_.validation_windows() - w));
    NARROW_ASSIGN(const Totals t, forward(batch, 1.0, done));
    rows += batch.counted();
    v.kl += t.kl;
    v.ce += t.ce;
  }
  // Weights change with the next update.
  student_.forget_quantized();
  if (rows > 0) v.kl /= static_cast<double>(rows), v.ce /= static_cast<double>(rows);
  return v;
}

Result<TrainerReport> Trainer::run(ProgressSink& progress) {
  TrainerReport report;
  std::int64_t step = 0;
  if (options_.resume) {
    NARROW_ASSIGN(step, load(report));
  }
  NARROW_ASSIGN(MetricsLog metrics, MetricsLog::open(options_.metrics, step));
  const bool leads = group_ == nullptr || options_.batch.rank == 0;
  const auto validate_now = [&](std::int64_t done) -> Status {
    if (data_.validation_windows() == 0) return {};
    NARROW_ASSIGN(const Validation v, validate(done));
    report.validations.push_back(v);
    progress.note(teacher_ != nullptr
                      ? fmt::format("step {}: validation KL {:.5f}, cross-entropy {:.4f}", done, v.kl, v.ce)
                      : fmt::format("step {}: validation cross-entropy {:.4f}", done, v.ce));
    if (!leads) return {};
    nlohmann::ordered_json line = {{"step", done}};
    if (teacher_ != nullptr) line["validation_kl"] = v.kl;
    line["validation_ce"] = v.ce;
    return metrics.append(line);
  };
  if (step == 0) NARROW_TRY(validate_now(0));

  const auto windows = static_cast<std::uint64_t>(options_.batch.windows);
  const std::uint64_t step_tokens = windows * static_cast<std::uint64_t>(data_.n_ctx());
  std::int64_t shown_from = step;
  // What was done before counts neither as done nor for the rate.
  const auto show = [&] {
    shown_from = step;
    const std::int64_t left = std::max<std::int64_t>(options_.steps - step, 0);
    progress.begin("training", static_cast<std::uint64_t>(left) * step_tokens, "tokens");
  };
  show();
  const auto stop = [&](Status why) -> Status {
    progress.end();
    return why;
  };
  constexpr std::int64_t kTimedSteps = 3;  // the first warms up
  const std::int64_t first = step;
  const auto begin = std::chrono::steady_clock::now();
  auto timed_from = begin;
  while (!planned_ || step < options_.steps) {
    const auto start = std::chrono::steady_clock::now();
    set_phase(step);
    Result<StepMetrics> computed = gradients(step);
    if (!computed.ok()) return stop(computed.status()).error();
    StepMetrics m = *computed;
    if (!std::isfinite(m.loss) || !std::isfinite(m.gradient_norm)) {
      return stop(diverged(m)).error();
    }
    m.lr = options_.rates.weights * options_.schedule.factor(step);
    optimizer_.step(m.lr, clip_scale(m.gradient_norm, options_.clip_norm));
    optimizer_.zero_gradients();
    ++step;
    const double seconds = seconds_since(start);
    report.seconds += seconds;
    report.tokens += static_cast<std::int64_t>(step_tokens);
    report.steps.push_back(m);
    if (leads) {
      nlohmann::ordered_json line = {{"step", step},
                                     {"loss", m.loss},
                                     {"kl", m.kl},
                                     {"ce", m.ce},
                                     {"lr", m.lr},
                                     {"gradient_norm", m.gradient_norm},
                                     {"tokens_per_s", static_cast<double>(step_tokens) / seconds}};
      if (options_.hidden_weight > 0) line["hidden"] = m.hidden;
      if (Status s = metrics.append(line); !s.ok()) return stop(s).error();
    }
    progress.update(static_cast<std::uint64_t>(step - shown_from) * step_tokens,
                    fmt::format("loss {:.4f}", m.loss));
    if (step == first + 1) timed_from = std::chrono::steady_clock::now();
    if (!planned_ && step == first + kTimedSteps) {
      const double each = seconds_since(timed_from) / static_cast<double>(kTimedSteps - 1);
      if (Status s = plan_steps(step, each, options_.max_seconds - seconds_since(begin)); !s.ok())
        return stop(s).error();
      show();
    }
    const bool late =
        options_.max_seconds > 0 && group_ == nullptr && seconds_since(begin) > 1.05 * options_.max_seconds;
    const bool last = late || (planned_ && step >= options_.steps);
    if (last || (options_.validate_every > 0 && step % options_.validate_every == 0)) {
      if (Status s = validate_now(step); !s.ok()) return stop(s).error();
    }
    const bool cancelled = progress.cancelled();
    if (last || cancelled || (options_.checkpoint_every > 0 && step % options_.checkpoint_every == 0)) {
      if (leads) {
        if (Status s = save(step, report); !s.ok()) return stop(s).error();
      }
    }
    if (last) break;
    if (cancelled) {
      progress.end();
      return make_error(ErrorCode::kCancelled, "stopped after step {} of {}{}", step, options_.steps,
                        options_.checkpoint.empty()
                            ? std::string()
                            : fmt::format("; {} holds it: --resume goes on", options_.checkpoint.string()));
    }
  }
  progress.end();
  return report;
}

std::vector<NamedTensor> Trainer::state() const {
  std::vector<NamedTensor> out;
  for (const Parameter& p : optimizer_.parameters())
    out.push_back({"parameter." + p.name, p.tensor.detach()});
  for (const NamedNode& n : nodes_) {
    for (const NamedTensor& b : n.node->buffers()) {
      // What a fixed node starts from is in the start file.
      if (b.name != "start") out.push_back({"buffer." + n.name + "." + b.name, b.tensor});
    }
  }
  for (NamedTensor& t : optimizer_.state()) out.push_back(std::move(t));
  return out;
}

Status Trainer::save(std::int64_t step, const TrainerReport& report) {
  if (options_.checkpoint.empty()) return {};
  nlohmann::ordered_json state = {{"step", step}, {"planned_steps", planned_ ? options_.steps : 0}};
  for (const StepMetrics& m : report.steps) {
    state["steps"].push_back({m.step, m.loss, m.kl, m.ce, m.lr, m.gradient_norm});
  }
  for (const Validation& v : report.validations) state["validations"].push_back({v.step, v.kl, v.ce});
  NARROW_TRY(write_checkpoint(options_.checkpoint, options_.recipe, state, this->state()));
  saved_step_ = step;
  return {};
}

Result<std::int64_t> Trainer::load(TrainerReport& report) {
  NARROW_ASSIGN(const Checkpoint c, read_checkpoint(options_.checkpoint, options_.recipe));
  const at::NoGradGuard off;
  for (const NamedTensor& t : state()) {
    if (t.name.rfind("parameter.", 0) == 0 || t.name.rfind("buffer.", 0) == 0)
      NARROW_TRY(restore(c, t.name, t.tensor));
  }
  NARROW_TRY(optimizer_.load_state(c.tensors));
  try {
    const std::int64_t step = c.state.at("step").get<std::int64_t>();
    for (const auto& m : c.state.value("steps", nlohmann::ordered_json::array())) {
      report.steps.push_back({m.at(0), m.at(1), m.at(2), m.at(3), m.at(4), m.at(5)});
    }
    for (const auto& v : c.state.value("validations", nlohmann::ordered_json::array())) {
      report.validations.push_back({v.at(0), v.at(1), v.at(2)});
    }
    if (const auto planned = c.state.value("planned_steps", std::int64_t{0}); !planned_ && planned > 0) {
      set_steps(planned);
    }
    saved_step_ = step;
    return step;
  } catch (const nlohmann::json::exception& e) {
    return make_error(ErrorCode::kCorrupt, "{}: the run's state is damaged: {}", options_.checkpoint.string(),
                      e.what());
  }
}

// The run's length, where the options left it open, and the schedule over it.
void Trainer::set_steps(std::int64_t steps) {
  options_.steps = options_.schedule.steps = steps;
  options_.schedule.warmup_steps =
      static_cast<std::int64_t>(options_.warmup_share * static_cast<double>(steps));
  planned_ = true;
}

// All processes of a group must agree, whatever their clocks say: the mean decides.
Status Trainer::plan_steps(std::int64_t done, double seconds_per_step, double left) {
  double steps = static_cast<double>(done) + std::max(0.0, left / seconds_per_step);
  if (group_ != nullptr) {
    const at::Tensor mean = at::full({1}, steps / static_cast<double>(options_.batch.world), at::kDouble);
    NARROW_TRY(group_->sum(std::span(&mean, 1)));
    steps = mean.item<double>();
  }
  set_steps(std::max(done, static_cast<std::int64_t>(steps)));
  return {};
}

Error Trainer::diverged(const StepMetrics& m) const {
  const std::string where = optimizer_.bad_gradient();
  const std::string kept = saved_step_ >= 0
                               ? fmt::format("; {} holds step {}", options_.checkpoint.string(), saved_step_)
                               : std::string("; no checkpoint was due before it");
  return make_error(
      ErrorCode::kNumeric, "the loss is {} at step {}{}{}; lower --lr, or clip gradients with --clip", m.loss,
      m.step + 1, where.empty() ? "" : fmt::format(" (first in the gradient of '{}')", where), kept);
}

}  // namespace narrow::train
