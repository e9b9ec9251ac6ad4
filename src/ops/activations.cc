#include "ops/activations.h"

#include <algorithm>
#include <atomic>
#include <numeric>

#include "kernels/dispatch.h"

namespace narrow::ops {

Forms Forms::of(std::initializer_list<const Weight*> weights) {
  Forms forms;
  for (const Weight* w : weights) {
    if (w->empty()) continue;
    if (w->simulated != nullptr) {
      forms.simulated = true;
    } else if (!w->packed()) {
      forms.f32 = true;
      continue;
    } else if (w->dense == nullptr) {
      forms.blocks = true;
    } else {
      forms.tokens = true;
    }
    if (w->dense != nullptr || w->row_scale) {
      forms.scheme = w->scheme;
      forms.row_scale = forms.row_scale || w->row_scale;
      forms.outliers = w->outliers;
      forms.n_outliers = w->n_outliers;
    }
  }
  return forms;
}

void Activations::shape(std::int64_t rows, std::int64_t cols, Forms forms) {
  rows_ = rows;
  cols_ = cols;
  f32_ = {};
  blocks_ = {};
  tokens_ = {};
  simulated_ = {};
  outliers_ = {};
  forms_ = forms;
  const auto m = static_cast<std::size_t>(rows);
  if (forms.blocks) {
    const auto elements = static_cast<std::size_t>(rows * cols);
    q_.reserve_at_least(elements);
    scale_.reserve_at_least(elements / kernels::kActivationGroup);
    sums_.reserve_at_least(elements / kernels::kSumRun);
    static std::atomic<std::uint64_t> ids{0};
    blocks_ = {q_.data(), scale_.data(), sums_.data(), rows, cols, ++ids};
  }
  if (forms.tokens || forms.simulated || forms.row_scale) {
    token_q_.reserve_at_least(m * static_cast<std::size_t>(kernels::dense_int8_stride(cols)));
    token_scale_.reserve_at_least(m);
    token_zero_.reserve_at_least(m);
    token_sum_.reserve_at_least(m);
    tokens_ = {token_q_.data(), token_scale_.data(), token_zero_.data(), token_sum_.data(), rows, cols};
  }
  if (forms.simulated) {
    simulated_values_.reserve_at_least(m * static_cast<std::size_t>(cols));
    simulated_ = Matrix(simulated_values_.data(), rows, cols);
  }
  if (forms.n_outliers > 0) {
    outlier_values_.reserve_at_least(m * static_cast<std::size_t>(forms.n_outliers));
    outliers_ = Matrix(outlier_values_.data(), rows, forms.n_outliers);
    masked_.reserve_at_least(m * static_cast<std::size_t>(cols));
  }
}

const float* Activations::take_outliers(const float* x, std::int64_t r) {
  if (outliers_.data == nullptr) return x;
  float* masked = masked_.data() + r * cols_;
  std::copy(x, x + cols_, masked);
  for (std::int64_t i = 0; i < forms_.n_outliers; ++i) {
    const std::int32_t column = forms_.outliers[i];
    outliers_.row(r)[i] = x[column];
    masked[column] = 0.0f;
  }
  return masked;
}

// Groups of 32 with the scale and codes of the row as a whole.
void Activations::quantize_blocks(const float* x, std::int64_t r) {
  std::int8_t* q = q_.data() + r * cols_;
  float* scale = scale_.data() + r * (cols_ / kernels::kActivationGroup);
  std::int32_t* sums = sums_.data() + r * (cols_ / kernels::kSumRun);
  if (!forms_.row_scale) {
    kernels::kernels().quantize_row(x, cols_, q, scale, sums);
    return;
  }
  std::copy_n(tokens_.q + r * kernels::dense_int8_stride(cols_), cols_, q);
  std::fill_n(scale, cols_ / kernels::kActivationGroup, tokens_.scale[r]);
  for (std::int64_t run = 0; run < cols_ / kernels::kSumRun; ++run) {
    sums[run] = std::accumulate(q + run * kernels::kSumRun, q + (run + 1) * kernels::kSumRun, 0);
  }
}

void Activations::quantize_row(const float* x, std::int64_t r) {
  x = take_outliers(x, r);
  std::int8_t* q = nullptr;
  if (tokens_.q != nullptr) {
    q = token_q_.data() + r * kernels::dense_int8_stride(cols_);
    kernels::kernels().dense_int8->quantize_row(forms_.scheme, x, cols_, q, token_scale_.data() + r,
                                                token_zero_.data() + r, token_sum_.data() + r);
  }
  if (blocks_.q != nullptr) quantize_blocks(x, r);
  if (simulated_.data != nullptr) {
    const float scale = tokens_.scale[r];
    const std::int32_t zero = tokens_.zero[r];
    float* out = simulated_.row(r);
    for (std::int64_t i = 0; i < cols_; ++i) out[i] = scale * static_cast<float>(q[i] - zero);
  }
}

void Activations::assign(ConstMatrix x, Forms forms) {
  shape(x.rows, x.cols, forms);
  f32_ = x;
  if (blocks_.q == nullptr && tokens_.q == nullptr) return;
  for_rows(rows_, cols_, [&](std::int64_t r) { quantize_row(x.row(r), r); });
}

void Activations::assign_rms_norm(ConstMatrix x, const float* gain, float eps, Forms forms, Matrix normed) {
  shape(x.rows, x.cols, forms);
  if (forms.f32 || tokens_.q != nullptr) {
    f32_ = normed;
    for_rows(rows_, cols_, [&](std::int64_t r) {
      kernels::kernels().rms_norm(x.row(r), gain, eps, normed.row(r), cols_);
      quantize_row(normed.row(r), r);
    });
  } else if (forms.blocks) {
    for_rows(rows_, cols_, [&](std::int64_t r) {
      kernels::kernels().rms_norm_quantize(x.row(r), gain, eps, cols_, q_.data() + r * cols_,
                                           scale_.data() + r * (cols_ / kernels::kActivationGroup),
                                           sums_.data() + r * (cols_ / kernels::kSumRun));
    });
  }
}

void Activations::assign_activated(Activation f, Matrix gate, ConstMatrix up, Forms forms) {
  shape(gate.rows, gate.cols, forms);
  f32_ = gate;
  for_rows(rows_, cols_, [&](std::int64_t r) {
    float* row = gate.row(r);
    if (up.data != nullptr && f.gated != nullptr) {
      f.gated(row, up.row(r), cols_);
    } else {
      f.plain(row, cols_);
      if (up.data != nullptr) kernels::kernels().mul_f32(up.row(r), row, cols_);
    }
    quantize_row(row, r);
  });
}

}  // namespace narrow::ops
