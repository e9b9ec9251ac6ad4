#include "train/blocks.h"

#include <algorithm>
#include <cmath>

#include "base/rng.h"
#include "train/schedule.h"
#include "train/trainer.h"

namespace narrow::train {
namespace {

class Blocks {
 public:
  Blocks(Decoder& student, Decoder& teacher, const Dataset& data, const BlockOptions& options)
      : student_(student), teacher_(teacher), o_(options) {
    const std::int64_t n = std::clamp<std::int64_t>(o_.windows, 1, data.training_windows());
    const Batch batch = data.batch(0, {n, 0, 1});
    const at::NoGradGuard off;
    const at::Tensor tokens = batch.tokens.to(student_.weights().begin()->second.device());
    in_ = student_.embed(tokens);
    want_ = teacher_.embed(tokens);
  }

  Result<BlockLoss> train(std::int64_t layer, ProgressSink& progress) {
    BlockLoss loss{layer, 0, 0};
    {
      const at::NoGradGuard off;
      each([&](std::int64_t w, std::int64_t n) {
        want_.narrow(0, w, n).copy_(teacher_.layer(layer, want_.narrow(0, w, n)));
      });
      // Relative to what the layer adds: the residual stream itself passes through.
      size_ = std::max(1e-12, (want_ - in_).square().mean().item<double>());
    }
    const std::vector<Parameter> parameters = of_layer(layer);
    loss.before = error(layer);
    if (!parameters.empty()) NARROW_TRY(optimise(layer, parameters, progress));
    loss.after = error(layer);
    if (!std::isfinite(loss.after)) {
      return make_error(ErrorCode::kNumeric, "layer {}: the loss is {}; lower --lr", layer, loss.after);
    }
    const at::NoGradGuard off;
    each([&](std::int64_t w, std::int64_t n) {
      in_.narrow(0, w, n).copy_(student_.layer(layer, in_.narrow(0, w, n)));
    });
    student_.forget_quantized();
    return loss;
  }

 private:
  template <class F>
  void each(F&& f) {
    for (std::int64_t w = 0; w < in_.size(0); w += o_.micro_windows)
      f(w, std::min(o_.micro_windows, in_.size(0) - w));
  }

  at::Tensor loss_of(std::int64_t layer, std::int64_t w, std::int64_t n) {
    return (student_.layer(layer, in_.narrow(0, w, n)) - want_.narrow(0, w, n)).square().mean() / size_;
  }

  double error(std::int64_t layer) {
    const at::NoGradGuard off;
    student_.forget_quantized();
    double sum = 0;
    each([&](std::int64_t w, std::int64_t n) {
      sum += loss_of(layer, w, n).item<double>() * static_cast<double>(n);
    });
    student_.forget_quantized();
    return sum / static_cast<double>(in_.size(0));
  }

  std::vector<Parameter> of_layer(std::int64_t layer) {
    const std::string prefix = fmt::format("blk.{}.", layer);
    std::vector<Parameter> out = trained_parameters(student_, o_.rates, 0.0);
    std::erase_if(out, [&](const Parameter& p) { return p.name.rfind(prefix, 0) != 0; });
    return out;
  }

  Status optimise(std::int64_t layer, const std::vector<Parameter>& parameters, ProgressSink& progress) {
    NARROW_ASSIGN(AdamW adam, AdamW::create(parameters));
    Schedule schedule;
    schedule.steps = o_.steps;
    schedule.warmup_steps = o_.steps / 20;
    Rng rng(o_.seed + static_cast<std::uint64_t>(layer));
    const std::int64_t places = in_.size(0) - std::min(o_.micro_windows, in_.size(0)) + 1;
    for (std::int64_t step = 0; step < o_.steps; ++step) {
      if (progress.cancelled()) return make_error(ErrorCode::kCancelled, "stopped in layer {}", layer);
      const auto w = static_cast<std::int64_t>(rng.next_u64() % static_cast<std::uint64_t>(places));
      const at::Tensor loss = loss_of(layer, w, std::min(o_.micro_windows, in_.size(0)));
      torch::autograd::backward({loss}, {});
      const double norm = adam.gradient_norm();
      if (!std::isfinite(norm)) {
        return make_error(ErrorCode::kNumeric, "layer {}: the loss is no number at step {}; lower --lr",
                          layer, step + 1);
      }
      adam.step(o_.rates.weights * schedule.factor(step), clip_scale(norm, o_.clip_norm));
      adam.zero_gradients();
    }
    return {};
  }

  Decoder& student_;
  Decoder& teacher_;
  const BlockOptions& o_;
  at::Tensor in_, want_;  // [windows, n_ctx, n_embd]: into the student's layer; out of the teacher's
  double size_ = 1;
};

}  // namespace

Result<std::vector<BlockLoss>> train_blocks(Decoder& student, Decoder& teacher, const Dataset& data,
                                            const BlockOptions& options, ProgressSink& progress) {
  Blocks blocks(student, teacher, data, options);
  std::vector<BlockLoss> losses;
  const std::int64_t layers = student.config().n_layer;
  progress.begin("training layers", static_cast<std::uint64_t>(layers), "layers");
  for (std::int64_t i = 0; i < layers; ++i) {
    Result<BlockLoss> loss = blocks.train(i, progress);
    if (!loss.ok()) {
      progress.end();
      return loss.error();
    }
    losses.push_back(*loss);
    progress.update(static_cast<std::uint64_t>(i) + 1,
                    fmt::format("error {:.4f} -> {:.4f}", loss->before, loss->after));
  }
  progress.end();
  return losses;
}

}  // namespace narrow::train
