#include "train/fused.h"

#include <dnnl.h>

#include <cmath>
#include <limits>
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

constexpr std::int64_t kQueries = 128;  // positions of queries that meet a stretch of keys at a time

// One (sequence, key head): its queries [t, group, d], keys and values [t, d], at these places and strides.
struct HeadPlace {
  std::int64_t q, kv;
};

class Attention : public Function<Attention> {
 public:
  struct Plan {
    std::int64_t b, t, n_head, n_kv, d, group, q_stride, kv_stride, window;
    float scale;
    HeadPlace place(std::int64_t i) const {
      const std::int64_t sequence = i / n_kv, head = i % n_kv;
      return {sequence * t * q_stride + head * group * d, sequence * t * kv_stride + head * d};
    }
    // Of the probabilities of queries [q0, q1) and all of their keys, for each of the group's heads.
    std::int64_t key_begin(std::int64_t q0) const {
      return window > 0 ? std::max<std::int64_t>(0, q0 - window + 1) : 0;
    }
    std::int64_t block_size(std::int64_t q0, std::int64_t q1) const {
      return group * (q1 - q0) * (q1 - key_begin(q0));
    }
    std::int64_t size() const {  // of all probabilities of one place
      std::int64_t n = 0;
      for (std::int64_t q0 = 0; q0 < t; q0 += kQueries) n += block_size(q0, std::min(q0 + kQueries, t));
      return n;
    }
  };

  static Plan plan(const at::Tensor& q, const at::Tensor& k, double scale, std::int64_t window) {
    Plan p{};
    p.b = q.size(0), p.t = q.size(1), p.n_head = q.size(2), p.d = q.size(3), p.n_kv = k.size(2);
    p.group = p.n_head / p.n_kv, p.q_stride = p.n_head * p.d, p.kv_stride = p.n_kv * p.d;
    p.window = window, p.scale = static_cast<float>(scale);
    return p;
  }

  static void gemm(char ta, char tb, std::int64_t m, std::int64_t n, std::int64_t k, const float* a,
                   std::int64_t lda, const float* b, std::int64_t ldb, float beta, float* c,
                   std::int64_t ldc) {
    dnnl_sgemm(ta, tb, m, n, k, 1.0f, a, lda, b, ldb, beta, c, ldc);
  }

  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& q_in, const at::Tensor& k_in,
                            const at::Tensor& v_in, double scale, std::int64_t window) {
    const at::Tensor q = q_in.contiguous(), k = k_in.contiguous(), v = v_in.contiguous();
    const Plan p = plan(q, k, scale, window);
    const std::int64_t places = p.b * p.n_kv, size = p.size();
    at::Tensor out = at::empty_like(q), probabilities = at::empty({places, size}, q.options());
    const float *qs = q.data_ptr<float>(), *ks = k.data_ptr<float>(), *vs = v.data_ptr<float>();
    float *os = out.data_ptr<float>(), *ps = probabilities.data_ptr<float>();
    at::parallel_for(0, places, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const HeadPlace at = p.place(i);
        float* block = ps + i * size;
        for (std::int64_t q0 = 0; q0 < p.t; q0 += kQueries) {
          const std::int64_t q1 = std::min(q0 + kQueries, p.t), k0 = p.key_begin(q0), n = q1 - k0,
                             m = q1 - q0;
          for (std::int64_t g = 0; g < p.group; ++g, block += m * n) {
            const std::int64_t qo = at.q + q0 * p.q_stride + g * p.d, ko = at.kv + k0 * p.kv_stride;
            gemm('N', 'T', m, n, p.d, qs + qo, p.q_stride, ks + ko, p.kv_stride, 0.0f, block, n);
            for (std::int64_t r = 0; r < m; ++r) softmax(block + r * n, n, p, q0 + r, k0);
            gemm('N', 'N', m, p.d, n, block, n, vs + ko, p.kv_stride, 0.0f, os + qo, p.q_stride);
          }
        }
      }
    });
    ctx->save_for_backward({q, k, v, probabilities});
    ctx->saved_data["scale"] = scale;
    ctx->saved_data["window"] = window;
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &q = saved[0], &k = saved[1], &v = saved[2], d_out = grads[0].contiguous();
    const Plan p = plan(q, k, ctx->saved_data["scale"].toDouble(), ctx->saved_data["window"].toInt());
    const std::int64_t places = p.b * p.n_kv, size = p.size();
    at::Tensor dq = at::empty_like(q), dk = at::zeros_like(k), dv = at::zeros_like(v);
    const float *qs = q.data_ptr<float>(), *ks = k.data_ptr<float>(), *vs = v.data_ptr<float>(),
                *ps = saved[3].data_ptr<float>(), *ds = d_out.data_ptr<float>();
    float *dqs = dq.data_ptr<float>(), *dks = dk.data_ptr<float>(), *dvs = dv.data_ptr<float>();
    at::parallel_for(0, places, 1, [&](std::int64_t begin, std::int64_t end) {
      std::vector<float> scores(static_cast<std::size_t>(std::min(kQueries, p.t) * p.t));
      for (std::int64_t i = begin; i < end; ++i) {
        const HeadPlace at = p.place(i);
        const float* block = ps + i * size;
        for (std::int64_t q0 = 0; q0 < p.t; q0 += kQueries) {
          const std::int64_t q1 = std::min(q0 + kQueries, p.t), k0 = p.key_begin(q0), n = q1 - k0,
                             m = q1 - q0;
          for (std::int64_t g = 0; g < p.group; ++g, block += m * n) {
            const std::int64_t qo = at.q + q0 * p.q_stride + g * p.d, ko = at.kv + k0 * p.kv_stride;
            float* s = scores.data();
            gemm('T', 'N', n, p.d, m, block, n, ds + qo, p.q_stride, 1.0f, dvs + ko, p.kv_stride);
            gemm('N', 'T', m, n, p.d, ds + qo, p.q_stride, vs + ko, p.kv_stride, 0.0f, s, n);
            for (std::int64_t r = 0; r < m; ++r) {
              const float* a = block + r * n;
              float* b = s + r * n;
              const float mean = dot(a, b, n);
              for (std::int64_t c = 0; c < n; ++c) b[c] = p.scale * a[c] * (b[c] - mean);
            }
            gemm('N', 'N', m, p.d, n, s, n, ks + ko, p.kv_stride, 0.0f, dqs + qo, p.q_stride);
            gemm('T', 'N', n, p.d, m, s, n, qs + qo, p.q_stride, 1.0f, dks + ko, p.kv_stride);
          }
        }
      }
    });
    return {dq, dk, dv, at::Tensor(), at::Tensor()};
  }

 private:
  // Scores of the query at `position` with keys [k0, k0 + n), of which it sees a stretch; the rest become 0.
  static void softmax(float* s, std::int64_t n, const Plan& p, std::int64_t position, std::int64_t k0) {
    const std::int64_t first = (p.window > 0 ? std::max<std::int64_t>(position - p.window + 1, k0) : k0) - k0;
    const std::int64_t end = position + 1 - k0, seen = end - first;
    std::fill(s, s + first, 0.0f);
    std::fill(s + end, s + n, 0.0f);
    float* y = s + first;
    for (std::int64_t i = 0; i < seen; ++i) y[i] *= p.scale;
    const float inverse = 1.0f / exp_row(y, greatest(y, seen), y, seen);
    for (std::int64_t i = 0; i < seen; ++i) y[i] *= inverse;
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

at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const AttentionShape& shape) {
  const std::int64_t b = q.size(0), t = q.size(1), n_head = q.size(2), n_kv = k.size(2), d = q.size(3);
  if (is_plain_float(q) && shape.softcap == 0.0) {
    return Attention::apply(q, k, v, shape.scale, shape.window).flatten(2);
  }
  const at::Tensor row = at::arange(t, at::kLong).unsqueeze(1), column = at::arange(t, at::kLong);
  at::Tensor hidden = column > row;
  if (shape.window > 0) hidden = hidden | (column <= row - shape.window);
  const at::Tensor qh = q.view({b, t, n_kv, n_head / n_kv, d}).permute({0, 2, 3, 1, 4});
  const at::Tensor kh = k.permute({0, 2, 1, 3}).unsqueeze(2), vh = v.permute({0, 2, 1, 3}).unsqueeze(2);
  at::Tensor s = at::matmul(qh, kh.transpose(-1, -2)) * shape.scale;
  if (shape.softcap != 0.0) s = at::tanh(s / shape.softcap) * shape.softcap;
  s = s.masked_fill(hidden.to(s.device()), -std::numeric_limits<float>::infinity());
  return at::matmul(at::softmax(s, -1), vh).permute({0, 3, 1, 2, 4}).reshape({b, t, n_head * d});
}

}  // namespace narrow::train
