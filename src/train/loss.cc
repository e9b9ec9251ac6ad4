#include "train/loss.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "train/fused.h"
#include "train/vector_math.h"

namespace narrow::train {
namespace {

constexpr std::int64_t kRows = 128;  // of logits in memory at a time

struct Sums {
  double kl = 0, ce = 0;
};

// The rows' part of the loss, and its gradient in the raw products in place of `logits` [r, n_vocab];
// `teacher` likewise [r, n_vocab] raw products, or undefined.
class RowLoss {
 public:
  explicit RowLoss(const LossOptions& o) : o_(o), scale_(1.0 / o.rows) {}

  Sums operator()(at::Tensor& logits, const at::Tensor& teacher, const at::Tensor& ids,
                  const at::Tensor& log_probs, const at::Tensor& targets) const {
    const bool fast = logits.device().is_cpu() && logits.scalar_type() == at::kFloat &&
                      logits.is_contiguous() && o_.softcap == 0.0 && o_.temperature == 1.0 && !ids.defined();
    return fast ? fused(logits, teacher, targets) : plain(logits, teacher, ids, log_probs, targets);
  }

 private:
  at::Tensor shape(const at::Tensor& raw) const {
    at::Tensor y = o_.logit_scale == 1.0 ? raw : raw * o_.logit_scale;
    return o_.softcap == 0.0 ? y : at::tanh(y / o_.softcap) * o_.softcap;
  }

  Sums plain(at::Tensor& logits, const at::Tensor& teacher, const at::Tensor& ids,
             const at::Tensor& log_probs, const at::Tensor& targets) const {
    const bool is_double = logits.scalar_type() == at::kDouble;
    const at::Tensor y = shape(is_double ? logits : logits.to(at::kFloat));
    at::Tensor grad = at::zeros_like(y);
    Sums sums;
    if (o_.ce_weight != 0.0) {
      const at::Tensor lp = at::log_softmax(y, -1), at_target = targets.unsqueeze(-1);
      sums.ce = -lp.gather(-1, at_target).sum().item<double>() * scale_;
      at::Tensor d = lp.exp();
      d.scatter_add_(-1, at_target, at::full(at_target.sizes(), -1.0, d.options()));
      grad.add_(d, o_.ce_weight * scale_);
    }
    if (teacher.defined()) {
      const at::Tensor lq = at::log_softmax(y / o_.temperature, -1);
      const at::Tensor lp = at::log_softmax(shape(teacher.to(y.scalar_type())) / o_.temperature, -1),
                       p = lp.exp();
      sums.kl = (p * (lp - lq)).sum().item<double>() * scale_;
      // d KL / d y = (q - p) / T, and T^2 keeps its size.
      grad.add_(lq.exp() - p, o_.kl_weight * scale_ * o_.temperature);
    } else if (ids.defined()) {
      const at::Tensor index = ids.to(at::kLong), lq = at::log_softmax(y / o_.temperature, -1), q = lq.exp();
      at::Tensor lp = log_probs.to(y.scalar_type()) / o_.temperature;
      if (o_.temperature != 1.0) lp = lp - at::logsumexp(lp, {-1}, true);  // of the likeliest alone
      const at::Tensor p = lp.exp(), q_at = q.gather(-1, index);
      constexpr double kLeast = 1e-9;
      const at::Tensor rest_p = (1.0 - p.sum(-1, true)).clamp_min(0.0);
      const at::Tensor rest_q = (1.0 - q_at.sum(-1, true)).clamp_min(kLeast);
      const at::Tensor rest = rest_p * (rest_p.clamp_min(kLeast).log() - rest_q.log());
      sums.kl = ((p * (lp - lq.gather(-1, index))).sum() + rest.sum()).item<double>() * scale_;
      at::Tensor d = q - q * (rest_p / rest_q);
      d.scatter_(-1, index, q_at - p);
      grad.add_(d, o_.kl_weight * scale_ * o_.temperature);
    }
    if (o_.softcap != 0.0) grad.mul_(1.0 - (y / o_.softcap).square());
    logits.copy_(grad.mul_(o_.logit_scale));
    return sums;
  }

  // One thread a row, few passes over memory.
  Sums fused(at::Tensor& logits, const at::Tensor& teacher, const at::Tensor& targets) const {
    const std::int64_t rows = logits.size(0), n = logits.size(1);
    const auto s = static_cast<float>(o_.logit_scale);
    float* y = logits.data_ptr<float>();
    float* t = teacher.defined() ? teacher.data_ptr<float>() : nullptr;
    const std::int64_t* target = targets.data_ptr<std::int64_t>();
    std::vector<Sums> of_row(static_cast<std::size_t>(rows));
    const double kl_weight = t != nullptr ? o_.kl_weight : 0.0;
    at::parallel_for(0, rows, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        float* a = y + r * n;
        Sums& sums = of_row[static_cast<std::size_t>(r)];
        if (s != 1.0f) {
          for (std::int64_t i = 0; i < n; ++i) a[i] *= s;
        }
        const float at_target = a[target[r]], top = greatest(a, n);
        float mixed = 0, t_top = 0, t_sum = 0;
        if (t != nullptr) {
          float* b = t + r * n;
          if (s != 1.0f) {
            for (std::int64_t i = 0; i < n; ++i) b[i] *= s;
          }
          t_top = greatest(b, n);
          // E_p[teacher - student], before b is overwritten by the teacher's probabilities.
#pragma omp simd reduction(+ : mixed, t_sum)
          for (std::int64_t i = 0; i < n; ++i) {
            const float e = exp_approx(b[i] - t_top);
            t_sum += e;
            mixed += e * ((b[i] - t_top) - (a[i] - top));
            b[i] = e;
          }
        }
        const float sum = exp_row(a, top, a, n);
        if (t != nullptr) sums.kl = static_cast<double>(mixed) / t_sum + std::log(sum) - std::log(t_sum);
        sums.ce = std::log(static_cast<double>(sum)) - (static_cast<double>(at_target) - top);
        const auto q = static_cast<float>((kl_weight + o_.ce_weight) * scale_ * s / sum);
        if (t != nullptr) {
          const float* b = t + r * n;
          const auto p = static_cast<float>(kl_weight * scale_ * s / t_sum);
          for (std::int64_t i = 0; i < n; ++i) a[i] = a[i] * q - b[i] * p;
        } else {
          for (std::int64_t i = 0; i < n; ++i) a[i] *= q;
        }
        a[target[r]] -= static_cast<float>(o_.ce_weight * scale_ * s);
      }
    });
    Sums total;
    for (const Sums& x : of_row) total.kl += x.kl, total.ce += x.ce;
    total.kl *= scale_;
    total.ce *= scale_;
    return total;
  }

  const LossOptions& o_;
  double scale_;
};

class HeadLoss : public torch::autograd::Function<HeadLoss> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& hidden,
                            const at::Tensor& weight_in, const LossInput* in, const LossOptions* options,
                            Sums* sums) {
    const at::Tensor weight = weight_in.contiguous();
    const std::int64_t m = hidden.size(0);
    const RowLoss row_loss(*options);
    const bool wants_hidden = in->hidden.requires_grad(), wants_weight = in->head_weight.requires_grad();
    at::Tensor dh = wants_hidden ? at::empty_like(hidden) : at::Tensor();
    at::Tensor dw = wants_weight ? at::zeros_like(weight) : at::Tensor();
    for (std::int64_t r = 0; r < m; r += kRows) {
      const std::int64_t n = std::min(kRows, m - r);
      const at::Tensor h = hidden.narrow(0, r, n);
      at::Tensor logits = at::empty({n, weight.size(0)}, hidden.options()), teacher, ids, log_probs;
      multiply(h, false, weight, true, logits);
      if (in->teacher) {
        teacher = at::empty_like(logits);
        multiply(in->teacher->hidden.narrow(0, r, n), false, in->teacher->weight, true, teacher);
      }
      if (in->top_k) {
        ids = in->top_k->ids.narrow(0, r, n);
        log_probs = in->top_k->log_probs.narrow(0, r, n);
      }
      const Sums s = row_loss(logits, teacher, ids, log_probs, in->targets.narrow(0, r, n).contiguous());
      sums->kl += s.kl;
      sums->ce += s.ce;
      // In place of the logits there is now the loss's gradient.
      if (wants_hidden) {
        at::Tensor part = dh.narrow(0, r, n);
        multiply(logits, false, weight, false, part);
      }
      if (wants_weight) multiply(logits, true, h, false, dw, true);
    }
    ctx->saved_data["dh"] = dh.defined() ? c10::IValue(dh) : c10::IValue();
    ctx->saved_data["dw"] = dw.defined() ? c10::IValue(dw) : c10::IValue();
    return at::scalar_tensor(options->kl_weight * sums->kl + options->ce_weight * sums->ce, hidden.options());
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const auto scaled = [&](const char* key) {
      const c10::IValue v = ctx->saved_data[key];
      return v.isNone() ? at::Tensor() : v.toTensor().mul_(grads[0]);
    };
    const at::Tensor dh = scaled("dh"), dw = scaled("dw");
    return {dh, dw, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

Loss head_loss(const LossInput& input, const LossOptions& options) {
  LossOptions o = options;
  if (o.rows == 0) o.rows = static_cast<double>(input.hidden.size(0));
  if (!input.teacher && !input.top_k) o.kl_weight = 0;
  Sums sums;
  Loss loss;
  const at::Tensor hidden = input.hidden.contiguous();
  loss.value = HeadLoss::apply(hidden, input.head_weight, &input, &o, &sums);
  loss.kl = sums.kl;
  loss.ce = sums.ce;
  return loss;
}

}  // namespace narrow::train
