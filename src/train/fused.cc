#include "train/fused.h"

#include <dnnl.h>

#include <cmath>
#include <vector>

#include "train/vector_math.h"

namespace narrow::train {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

bool is_plain_float(const at::Tensor& x) { return x.device().is_cpu() && x.scalar_type() == at::kFloat; }

// Rows that a thread takes at a time, so that threads are not started for nothing.
std::int64_t grain(std::int64_t row_elements) {
  return std::max<std::int64_t>(1, 16384 / std::max<std::int64_t>(1, row_elements));
}

// Through oneDNN, whose products are a sixth faster than those of the BLAS that Debian's libtorch comes with.
class Linear : public Function<Linear> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x_in, const at::Tensor& w_in) {
    const at::Tensor x = x_in.contiguous(), w = w_in.contiguous();
    std::vector<std::int64_t> shape = x.sizes().vec();
    shape.back() = w.size(0);
    const at::Tensor y = at::empty(shape, x.options());
    at::Tensor rows = y.view({-1, w.size(0)});
    multiply(x.view({-1, w.size(1)}), false, w, true, rows);
    ctx->save_for_backward({x, w});
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &w = saved[1], d = grads[0].contiguous();
    const at::Tensor rows = d.view({-1, w.size(0)});
    at::Tensor dx, dw;
    if (ctx->needs_input_grad(0)) {
      dx = at::empty_like(x);
      at::Tensor dx_rows = dx.view({-1, w.size(1)});
      multiply(rows, false, w, false, dx_rows);
    }
    if (ctx->needs_input_grad(1)) {
      dw = at::empty_like(w);
      multiply(rows, true, x.view({-1, w.size(1)}), false, dw);
    }
    return {dx, dw};
  }
};

class RmsNorm : public Function<RmsNorm> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& input, const at::Tensor& gain,
                            double eps) {
    const at::Tensor x = input.contiguous();
    const std::int64_t n = x.size(-1), rows = x.numel() / n;
    at::Tensor y = at::empty_like(x), inverse = at::empty({rows}, x.options());
    const float *xs = x.data_ptr<float>(), *g = gain.data_ptr<float>();
    float *ys = y.data_ptr<float>(), *inv = inverse.data_ptr<float>();
    at::parallel_for(0, rows, grain(n), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        const float* a = xs + r * n;
        float* b = ys + r * n;
        inv[r] = 1.0f / std::sqrt(dot(a, a, n) / static_cast<float>(n) + static_cast<float>(eps));
        for (std::int64_t i = 0; i < n; ++i) b[i] = a[i] * inv[r] * g[i];
      }
    });
    ctx->save_for_backward({x, gain, inverse});
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &gain = saved[1], &inverse = saved[2], d = grads[0].contiguous();
    const std::int64_t n = x.size(-1), rows = x.numel() / n;
    const bool wants_gain = ctx->needs_input_grad(1);
    at::Tensor dx = at::empty_like(x), dgain;
    const float *xs = x.data_ptr<float>(), *g = gain.data_ptr<float>(), *ds = d.data_ptr<float>(),
                *inv = inverse.data_ptr<float>();
    float* dxs = dx.data_ptr<float>();
    at::parallel_for(0, rows, grain(n), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        const float *a = xs + r * n, *b = ds + r * n;
        float* c = dxs + r * n;
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (std::int64_t i = 0; i < n; ++i) sum += a[i] * b[i] * g[i];
        const float k = sum * inv[r] * inv[r] / static_cast<float>(n);
        for (std::int64_t i = 0; i < n; ++i) c[i] = inv[r] * (b[i] * g[i] - a[i] * k);
      }
    });
    if (wants_gain) {
      // Columns are the threads' shares: the same sums for any number of them.
      dgain = at::zeros_like(gain);
      float* out = dgain.data_ptr<float>();
      at::parallel_for(0, n, std::max<std::int64_t>(16, 65536 / std::max<std::int64_t>(1, rows)),
                       [&](std::int64_t begin, std::int64_t end) {
                         for (std::int64_t r = 0; r < rows; ++r) {
                           const float *a = xs + r * n, *b = ds + r * n;
                           for (std::int64_t i = begin; i < end; ++i) out[i] += a[i] * inv[r] * b[i];
                         }
                       });
    }
    return {dx, dgain, at::Tensor()};
  }
};

class SiluMul : public Function<SiluMul> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& gate_in, const at::Tensor& up_in) {
    const at::Tensor gate = gate_in.contiguous(), up = up_in.contiguous();
    at::Tensor y = at::empty_like(gate);
    const float *g = gate.data_ptr<float>(), *u = up.data_ptr<float>();
    float* out = y.data_ptr<float>();
    at::parallel_for(0, gate.numel(), 16384, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) out[i] = g[i] / (1.0f + exp_approx(-g[i])) * u[i];
    });
    ctx->save_for_backward({gate, up});
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor d = grads[0].contiguous();
    at::Tensor dgate = at::empty_like(saved[0]), dup = at::empty_like(saved[1]);
    const float *g = saved[0].data_ptr<float>(), *u = saved[1].data_ptr<float>(), *ds = d.data_ptr<float>();
    float *dg = dgate.data_ptr<float>(), *du = dup.data_ptr<float>();
    at::parallel_for(0, d.numel(), 16384, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const float s = 1.0f / (1.0f + exp_approx(-g[i]));
        du[i] = ds[i] * g[i] * s;
        dg[i] = ds[i] * u[i] * s * (1.0f + g[i] * (1.0f - s));
      }
    });
    return {dgate, dup};
  }
};

// Turns by the angles, or back.
at::Tensor turn(const at::Tensor& input, const at::Tensor& cos, const at::Tensor& sin, bool interleaved,
                float sign) {
  const at::Tensor x = input.contiguous();
  at::Tensor y = at::empty_like(x);
  const std::int64_t t = x.size(1), heads = x.size(2), d = x.size(3), pairs = cos.size(1);
  const float *xs = x.data_ptr<float>(), *cs = cos.data_ptr<float>(), *ss = sin.data_ptr<float>();
  float* ys = y.data_ptr<float>();
  at::parallel_for(0, x.size(0) * t, grain(heads * d), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const float *c = cs + (r % t) * pairs, *s = ss + (r % t) * pairs;
      for (std::int64_t h = 0; h < heads; ++h) {
        const float* a = xs + (r * heads + h) * d;
        float* b = ys + (r * heads + h) * d;
        if (interleaved) {
          for (std::int64_t i = 0; i < pairs; ++i) {
            const float u = a[2 * i], v = a[2 * i + 1];
            b[2 * i] = u * c[i] - sign * v * s[i];
            b[2 * i + 1] = v * c[i] + sign * u * s[i];
          }
        } else {
          for (std::int64_t i = 0; i < pairs; ++i) {
            const float u = a[i], v = a[i + pairs];
            b[i] = u * c[i] - sign * v * s[i];
            b[i + pairs] = v * c[i] + sign * u * s[i];
          }
        }
        for (std::int64_t i = 2 * pairs; i < d; ++i) b[i] = a[i];
      }
    }
  });
  return y;
}

class Rope : public Function<Rope> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& cos,
                            const at::Tensor& sin, bool interleaved) {
    ctx->save_for_backward({cos, sin});
    ctx->saved_data["interleaved"] = interleaved;
    return turn(x, cos, sin, interleaved, 1.0f);
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    return {turn(grads[0], saved[0], saved[1], ctx->saved_data["interleaved"].toBool(), -1.0f), at::Tensor(),
            at::Tensor(), at::Tensor()};
  }
};

struct Visible {
  std::int64_t begin = 0, end = 0;  // columns of a row that are not hidden: one range
};

std::vector<Visible> visible_columns(const at::Tensor& mask) {
  const std::int64_t t = mask.size(0);
  const float* m = mask.data_ptr<float>();
  std::vector<Visible> rows(static_cast<std::size_t>(t));
  for (std::int64_t r = 0; r < t; ++r) {
    Visible& v = rows[static_cast<std::size_t>(r)];
    while (v.begin < t && m[r * t + v.begin] != 0.0f) ++v.begin;
    v.end = t;
    while (v.end > v.begin && m[r * t + v.end - 1] != 0.0f) --v.end;
  }
  return rows;
}

class MaskedSoftmax : public Function<MaskedSoftmax> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& scores_in, double scale,
                            const at::Tensor& mask) {
    const at::Tensor scores = scores_in.contiguous();
    const std::int64_t t = scores.size(-1), rows = scores.numel() / t;
    const std::vector<Visible> visible = visible_columns(mask);
    at::Tensor p = at::empty_like(scores);
    const float* s = scores.data_ptr<float>();
    float* out = p.data_ptr<float>();
    const auto k = static_cast<float>(scale);
    at::parallel_for(0, rows, grain(t), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        const Visible v = visible[static_cast<std::size_t>(r % t)];
        float* y = out + r * t;
        const std::int64_t n = v.end - v.begin;
        std::fill(y, y + v.begin, 0.0f);
        std::fill(y + v.end, y + t, 0.0f);
        for (std::int64_t i = v.begin; i < v.end; ++i) y[i] = s[r * t + i] * k;
        const float sum = exp_row(y + v.begin, greatest(y + v.begin, n), y + v.begin, n);
        const float inverse = 1.0f / sum;
        for (std::int64_t i = v.begin; i < v.end; ++i) y[i] *= inverse;
      }
    });
    ctx->save_for_backward({p});
    ctx->saved_data["scale"] = scale;
    return p;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const at::Tensor p = ctx->get_saved_variables()[0], d = grads[0].contiguous();
    const std::int64_t t = p.size(-1), rows = p.numel() / t;
    at::Tensor dx = at::empty_like(p);
    const float *ps = p.data_ptr<float>(), *ds = d.data_ptr<float>();
    float* out = dx.data_ptr<float>();
    const auto k = static_cast<float>(ctx->saved_data["scale"].toDouble());
    at::parallel_for(0, rows, grain(t), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        const float *a = ps + r * t, *b = ds + r * t;
        const float mean = dot(a, b, t);
        for (std::int64_t i = 0; i < t; ++i) out[r * t + i] = k * a[i] * (b[i] - mean);
      }
    });
    return {dx, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

void multiply(const at::Tensor& a, bool transposed_a, const at::Tensor& b, bool transposed_b, at::Tensor& out,
              bool add) {
  if (!is_plain_float(a)) {
    const at::Tensor left = transposed_a ? a.t() : a, right = transposed_b ? b.t() : b;
    if (add) {
      out.addmm_(left, right);
    } else {
      at::mm_out(out, left, right);
    }
    return;
  }
  const std::int64_t m = out.size(0), n = out.size(1), k = a.size(transposed_a ? 0 : 1);
  dnnl_sgemm(transposed_a ? 'T' : 'N', transposed_b ? 'T' : 'N', m, n, k, 1.0f, a.data_ptr<float>(),
             a.size(1), b.data_ptr<float>(), b.size(1), add ? 1.0f : 0.0f, out.data_ptr<float>(), n);
}

at::Tensor linear(const at::Tensor& x, const at::Tensor& w, const at::Tensor& bias) {
  if (!is_plain_float(x))
    return at::linear(x, w, bias.defined() ? c10::optional<at::Tensor>(bias) : c10::nullopt);
  const at::Tensor y = Linear::apply(x, w);
  return bias.defined() ? y + bias : y;
}

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& gain, double eps) {
  if (is_plain_float(x)) return RmsNorm::apply(x, gain, eps);
  // Sums of bf16 squares need more digits than it has.
  const at::Tensor wide = x.scalar_type() == at::kDouble ? x : x.to(at::kFloat);
  return (wide * at::rsqrt((wide * wide).mean(-1, true) + eps)).to(x.scalar_type()) * gain;
}

at::Tensor silu_mul(const at::Tensor& gate, const at::Tensor& up) {
  return is_plain_float(gate) ? SiluMul::apply(gate, up) : at::silu(gate) * up;
}

at::Tensor rope(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin, bool interleaved) {
  if (is_plain_float(x)) return Rope::apply(x, cos, sin, interleaved);
  const std::int64_t pairs = cos.size(1), d = x.size(3);
  const at::Tensor c = cos.unsqueeze(1), s = sin.unsqueeze(1), turned = x.narrow(-1, 0, 2 * pairs);
  at::Tensor y;
  if (interleaved) {
    const at::Tensor two = turned.reshape({x.size(0), x.size(1), x.size(2), pairs, 2});
    const at::Tensor u = two.select(-1, 0), v = two.select(-1, 1);
    y = at::stack({u * c - v * s, v * c + u * s}, -1).flatten(-2);
  } else {
    const at::Tensor u = turned.narrow(-1, 0, pairs), v = turned.narrow(-1, pairs, pairs);
    y = at::cat({u * c - v * s, v * c + u * s}, -1);
  }
  return d == 2 * pairs ? y : at::cat({y, x.narrow(-1, 2 * pairs, d - 2 * pairs)}, -1);
}

at::Tensor masked_softmax(const at::Tensor& scores, double scale, double softcap, const at::Tensor& mask) {
  if (softcap == 0.0 && is_plain_float(scores)) return MaskedSoftmax::apply(scores, scale, mask);
  at::Tensor s = scores * scale;
  if (softcap != 0.0) s = at::tanh(s / softcap) * softcap;
  return at::softmax(s + mask, -1);
}

}  // namespace narrow::train
