#include "ops/activations.h"

#include <atomic>

#include "kernels/dispatch.h"

namespace narrow::ops {

Forms Forms::of(std::initializer_list<const Weight*> weights) {
  Forms forms;
  for (const Weight* w : weights) {
    if (w->empty()) continue;
    if (!w->packed()) {
      forms.f32 = true;
    } else if (w->dense == nullptr) {
      forms.blocks = true;
    } else {
      forms.tokens = true;
      forms.scheme = w->scheme;
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
  if (forms.blocks) {
    const auto elements = static_cast<std::size_t>(rows * cols);
    q_.reserve_at_least(elements);
    scale_.reserve_at_least(elements / kernels::kActivationGroup);
    sums_.reserve_at_least(elements / kernels::kSumRun);
    static std::atomic<std::uint64_t> ids{0};
    blocks_ = {q_.data(), scale_.data(), sums_.data(), rows, cols, ++ids};
  }
  if (forms.tokens) {
    scheme_ = forms.scheme;
    const auto m = static_cast<std::size_t>(rows);
    token_q_.reserve_at_least(m * static_cast<std::size_t>(kernels::dense_int8_stride(cols)));
    token_scale_.reserve_at_least(m);
    token_zero_.reserve_at_least(m);
    token_sum_.reserve_at_least(m);
    tokens_ = {token_q_.data(), token_scale_.data(), token_zero_.data(), token_sum_.data(), rows, cols};
  }
}

void Activations::quantize_row(const float* x, std::int64_t r) {
  const kernels::KernelTable& kt = kernels::kernels();
  if (blocks_.q != nullptr) {
    kt.quantize_row(x, cols_, q_.data() + r * cols_, scale_.data() + r * (cols_ / kernels::kActivationGroup),
                    sums_.data() + r * (cols_ / kernels::kSumRun));
  }
  if (tokens_.q != nullptr) {
    kt.dense_int8->quantize_row(scheme_, x, cols_, token_q_.data() + r * kernels::dense_int8_stride(cols_),
                                token_scale_.data() + r, token_zero_.data() + r, token_sum_.data() + r);
  }
}

void Activations::assign(ConstMatrix x, Forms forms) {
  shape(x.rows, x.cols, forms);
  f32_ = x;
  if (!forms.blocks && !forms.tokens) return;
  for_rows(rows_, cols_, [&](std::int64_t r) { quantize_row(x.row(r), r); });
}

void Activations::assign_rms_norm(ConstMatrix x, const float* gain, float eps, Forms forms, Matrix normed) {
  shape(x.rows, x.cols, forms);
  if (forms.f32 || forms.tokens) {
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
