#include "train/gradients.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "train/loss.h"

namespace narrow::train {
namespace {

// Of logits in memory at a time.
constexpr std::int64_t kLogitRows = 128;

// One answer of the model for each row of h [t, n_embd].
at::Tensor draw_answers(Decoder& model, const at::Tensor& h, at::Generator& random) {
  const at::NoGradGuard off;
  std::vector<at::Tensor> drawn;
  for (std::int64_t begin = 0; begin < h.size(0); begin += kLogitRows) {
    const at::Tensor rows = h.narrow(0, begin, std::min(kLogitRows, h.size(0) - begin));
    const at::Tensor p = at::softmax(model.head(rows).to(at::kFloat), -1).to(at::kCPU);
    drawn.push_back(at::multinomial(p, 1, false, random).squeeze(-1));
  }
  return at::cat(drawn).to(h.device());
}

// g [t, n] -> the sum of its weighted rows' g g^T over the median row's energy.
at::Tensor second_moment(const at::Tensor& g) {
  const at::Tensor energy = g.square().sum(-1);
  const double common = energy.median().item<double>();
  if (!(common > 0)) return at::zeros({g.size(1), g.size(1)}, g.options());
  at::Tensor factor = (kMostGradient * common / energy).clamp_max(1.0).sqrt();
  const auto first = energy[0].item<double>();
  if (first > 0) {
    factor[0] = std::sqrt(std::max(1.0, kFirstGradient * static_cast<double>(g.size(0))) * common / first);
  }
  const at::Tensor x = g * factor.unsqueeze(-1);
  return at::mm(x.t(), x).div_(common);
}

}  // namespace

Result<calib::OutputGradients> output_gradients(Decoder& model, const calib::TokenWindows& windows,
                                                std::uint64_t seed, ProgressSink& progress) {
  std::map<std::string, at::Tensor> sums;
  model.observe_outputs([&sums](const std::string& stem, const at::Tensor& y) {
    if (!calib::has_output_gradients(stem + ".weight") || !y.requires_grad()) return;
    y.register_hook([&sums, name = stem + ".weight"](const at::Tensor& g) {
      const at::Tensor moment = second_moment(g.detach().flatten(0, -2).to(at::kFloat)).to(at::kCPU);
      at::Tensor& sum = sums[name];
      if (sum.defined()) {
        sum.add_(moment);
      } else {
        sum = moment;
      }
    });
  });
  struct Unobserve {
    Decoder& model;
    ~Unobserve() { model.observe_outputs({}); }
  } const unobserve{model};

  at::Generator random = at::detail::createCPUGenerator(seed);
  const at::Device device = model.weight("token_embd.weight").device();
  LossOptions loss;
  loss.kl_weight = 0;
  loss.ce_weight = 1;
  loss.logit_scale = static_cast<double>(model.config().logit_scale);
  loss.softcap = static_cast<double>(model.config().final_softcap);
  loss.rows = 1;  // a sum: each token's own gradient, whatever the window's length
  progress.begin("gradients", static_cast<std::uint64_t>(windows.lengths.size()), "windows");
  std::int64_t at = 0;
  for (std::size_t i = 0; i < windows.lengths.size(); ++i) {
    if (progress.cancelled()) return make_error(ErrorCode::kCancelled, "cancelled");
    const std::int64_t n = windows.lengths[i];
    const at::Tensor tokens =
        at::from_blob(const_cast<std::int32_t*>(windows.tokens.data() + at), {1, n}, at::kInt)
            .to(device, at::kLong);
    at += n;
    const at::Tensor start = model.embed(tokens).detach().requires_grad_(true);
    at::Tensor x = start;
    for (std::int64_t l = 0; l < model.config().n_layer; ++l) x = model.layer(l, x);
    const at::Tensor hidden = model.final_norm(x).flatten(0, 1);
    if (!hidden.isfinite().all().item<bool>()) {
      return make_error(ErrorCode::kNumeric,
                        "window {}: what enters the head is not finite: the model's weights are "
                        "damaged, or too large for f32",
                        i + 1);
    }
    LossInput in;
    in.hidden = model.head_input(hidden);
    in.head_weight = model.head_weight();
    in.targets = draw_answers(model, hidden.detach(), random);
    const Loss value = head_loss(in, loss);
    if (!std::isfinite(value.ce)) {
      return make_error(ErrorCode::kNumeric,
                        "the loss of window {} is {}: the model's weights give no answer", i + 1, value.ce);
    }
    value.value.backward();
    progress.update(static_cast<std::uint64_t>(i + 1), "");
  }
  progress.end();
  calib::OutputGradients out;
  out.tokens = windows.size();
  for (const auto& [name, sum] : sums) {
    const at::Tensor values =
        sum.div(static_cast<double>(std::max<std::int64_t>(windows.size(), 1))).contiguous();
    const float* p = values.data_ptr<float>();
    out.matrices[name].assign(p, p + values.numel());
  }
  return out;
}

}  // namespace narrow::train
