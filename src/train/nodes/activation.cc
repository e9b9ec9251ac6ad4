#include "train/nodes/activation.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/dispatch.h"
#include "kernels/packed.h"
#include "train/nodes/round_to_grid.h"

namespace narrow::train {
namespace {

using kernels::DenseInt8Scheme;
using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

// Where codes end, in steps from x = 0 that are not yet moved by the zero point.
float least_code(bool asymmetric) { return asymmetric ? -128.0f : -127.0f; }

// A row as the engine's integers stand for it. fp32: the engine's own kernel.
void engine_row(const DenseInt8Scheme& scheme, const float* x, std::int64_t k, std::int8_t* codes,
                float* value) {
  float scale = 0;
  std::int32_t zero = 0, sum = 0;
  kernels::kernels().dense_int8->quantize_row(scheme, x, k, codes, &scale, &zero, &sum);
  for (std::int64_t i = 0; i < k; ++i) value[i] = scale * static_cast<float>(codes[i] - zero);
}

// The same rules in fp64, for gradient checks. Ranges are fp32, as the engine's are.
void engine_row(const DenseInt8Scheme& scheme, const double* x, std::int64_t k, std::int8_t*, double* value) {
  const double least = least_code(scheme.asymmetric);
  double scale = scheme.scale, zero = scheme.asymmetric ? scheme.zero : 0;
  if (scale == 0) {
    const auto [lo_at, hi_at] = std::minmax_element(x, x + k);
    const double lo = std::min(0.0, *lo_at), hi = std::max(0.0, *hi_at);
    scale = kernels::dense_int8_scale(
        static_cast<float>(scheme.asymmetric ? (hi - lo) / 255 : std::max(hi, -lo) / 127));
    zero = scheme.asymmetric && scale > 0 ? std::nearbyint(-128 - lo / scale) : 0;
  }
  for (std::int64_t i = 0; i < k; ++i) {
    const double code = scale > 0 ? std::clamp(std::nearbyint(x[i] / scale) + zero, least, 127.0) : zero;
    value[i] = scale * (code - zero);
  }
}

template <class T>
at::Tensor engine_rows(const DenseInt8Scheme& scheme, const at::Tensor& x) {
  const std::int64_t m = x.size(0), k = x.size(1);
  at::Tensor out = at::empty_like(x);
  over_rows(m, k, [&](std::int64_t begin, std::int64_t end) {
    std::vector<std::int8_t> codes(static_cast<std::size_t>(kernels::dense_int8_padded(k)));
    for (std::int64_t r = begin; r < end; ++r) {
      engine_row(scheme, x.data_ptr<T>() + r * k, k, codes.data(), out.data_ptr<T>() + r * k);
    }
  });
  return out;
}

// Groups of 32 (kernels/packed.h); fp32 only.
at::Tensor engine_blocks(const at::Tensor& x) {
  const std::int64_t m = x.size(0), k = x.size(1);
  at::Tensor out = at::empty_like(x);
  over_rows(m, k, [&](std::int64_t begin, std::int64_t end) {
    std::vector<std::int8_t> codes(static_cast<std::size_t>(k));
    std::vector<float> scales(static_cast<std::size_t>(k / kernels::kActivationGroup));
    std::vector<std::int32_t> sums(static_cast<std::size_t>(k / kernels::kSumRun));
    for (std::int64_t r = begin; r < end; ++r) {
      kernels::kernels().quantize_row(x.data_ptr<float>() + r * k, k, codes.data(), scales.data(),
                                      sums.data());
      float* y = out.data_ptr<float>() + r * k;
      for (std::int64_t i = 0; i < k; ++i) {
        const auto at = static_cast<std::size_t>(i);
        y[i] = scales[at / kernels::kActivationGroup] * static_cast<float>(codes[at]);
      }
    }
  });
  return out;
}

struct StaticGradients {
  double scale = 0, zero = 0;
};

template <class T>
StaticGradients static_backward(const DenseInt8Scheme& scheme, const at::Tensor& x, const at::Tensor& grad,
                                at::Tensor& grad_x) {
  const std::int64_t m = x.size(0), k = x.size(1);
  const T scale = static_cast<T>(scheme.scale), inverse = T{1} / scale;
  const T zero = static_cast<T>(scheme.asymmetric ? scheme.zero : 0);
  const T low = static_cast<T>(least_code(scheme.asymmetric)) - zero, high = T{127} - zero;
  const auto *xs = x.data_ptr<T>(), *gs = grad.data_ptr<T>();
  auto* out = grad_x.data_ptr<T>();
  // Sums by row, added up in order: the same for any number of threads.
  std::vector<StaticGradients> rows(static_cast<std::size_t>(m));
  over_rows(m, k, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      T sum_scale = 0, sum_zero = 0;
      for (std::int64_t i = r * k; i < (r + 1) * k; ++i) {
        const T t = xs[i] * inverse, g = gs[i];
        const bool inside = t >= low - T{0.5} && t <= high + T{0.5};
        out[i] = inside ? g : T{0};
        sum_scale +=
            g * (inside ? std::min(std::max(std::nearbyint(t), low), high) - t : (t > 0 ? high : low));
        sum_zero += inside ? T{0} : g;
      }
      rows[static_cast<std::size_t>(r)] = {static_cast<double>(sum_scale), static_cast<double>(sum_zero)};
    }
  });
  StaticGradients total;
  for (const StaticGradients& row : rows) {
    total.scale += row.scale;
    total.zero -= scheme.scale * row.zero;
  }
  return total;
}

// Rows [m, k] in one static range. The latent scale and zero point get gradients if they require them.
struct StaticInt8 : torch::autograd::Function<StaticInt8> {
  static Variable forward(AutogradContext* ctx, const Variable& x, const Variable& latent_scale,
                          const Variable& latent_zero, double scale, std::int64_t zero, bool asymmetric,
                          double factor) {
    ctx->save_for_backward({x});
    ctx->saved_data["scale"] = scale;
    ctx->saved_data["zero"] = zero;
    ctx->saved_data["asymmetric"] = asymmetric;
    ctx->saved_data["factor"] = factor;
    ctx->saved_data["learned"] = latent_scale.requires_grad();
    ctx->saved_data["learned_zero"] = latent_zero.requires_grad();
    const DenseInt8Scheme scheme{asymmetric, static_cast<float>(scale), static_cast<std::int32_t>(zero)};
    return x.scalar_type() == at::kDouble ? engine_rows<double>(scheme, x) : engine_rows<float>(scheme, x);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const at::Tensor x = ctx->get_saved_variables()[0], grad = grads[0].contiguous();
    at::Tensor grad_x = at::empty_like(x), grad_scale, grad_zero;
    const DenseInt8Scheme scheme{ctx->saved_data["asymmetric"].toBool(),
                                 static_cast<float>(ctx->saved_data["scale"].toDouble()),
                                 static_cast<std::int32_t>(ctx->saved_data["zero"].toInt())};
    const StaticGradients sums = x.scalar_type() == at::kDouble
                                     ? static_backward<double>(scheme, x, grad, grad_x)
                                     : static_backward<float>(scheme, x, grad, grad_x);
    const double factor = ctx->saved_data["factor"].toDouble();
    if (ctx->saved_data["learned"].toBool()) grad_scale = at::full({1}, factor * sums.scale, at::kFloat);
    if (ctx->saved_data["learned_zero"].toBool()) grad_zero = at::full({1}, factor * sums.zero, at::kFloat);
    return {grad_x, grad_scale, grad_zero, {}, {}, {}, {}};
  }
};

// The scheme whose codes just hold [lo, hi]; the rule is that of dynamic rows.
DenseInt8Scheme scheme_of(float lo, float hi, bool asymmetric) {
  lo = std::min(lo, 0.0f);
  hi = std::max(hi, 0.0f);
  const float range = asymmetric ? hi - lo : std::max(hi, -lo);
  const float scale = kernels::dense_int8_scale(std::clamp(
      range / (asymmetric ? 255.0f : 127.0f), kLeastScale, std::numeric_limits<float>::max() / 256));
  const auto zero = asymmetric ? static_cast<std::int32_t>(std::nearbyint(-128.0f - lo * (1.0f / scale))) : 0;
  return {asymmetric, scale, zero};
}

float first(const at::Tensor& t) { return t.data_ptr<float>()[0]; }

}  // namespace

Result<std::shared_ptr<Int8Activation>> Int8Activation::create(std::int64_t k,
                                                               const ActivationOptions& options) {
  const bool blocks = options.range == ActivationRange::kBlock;
  if (k < 1 || (blocks && k % kernels::kActivationGroup != 0)) {
    return make_error(ErrorCode::kInvalidArgument, "int8 activations: rows of {} have no whole groups of {}",
                      k, kernels::kActivationGroup);
  }
  if (blocks && (options.asymmetric || !options.outliers.empty())) {
    return make_error(
        ErrorCode::kInvalidArgument,
        "int8 activations: zero points and outlier columns go with a scale per row, not per block");
  }
  const std::int64_t longest =
      options.asymmetric ? kernels::kMaxDenseAsymmetricRows : kernels::kMaxDenseSymmetric;
  if (k > longest) {
    return make_error(ErrorCode::kUnsupported,
                      "int8 activations: rows of {} are too long for exact sums; {} is the most", k, longest);
  }
  const bool needs_scale = options.range == ActivationRange::kFixed;
  if (options.scale != 0 || needs_scale) {
    if (!(options.scale > 0) || !std::isfinite(options.scale) || !std::isfinite(1.0f / options.scale)) {
      return make_error(ErrorCode::kNumeric,
                        "int8 activations: a scale of {}; it must be positive and finite", options.scale);
    }
  }
  if (options.zero < -128 || options.zero > 127 || (options.zero != 0 && !options.asymmetric)) {
    return make_error(ErrorCode::kInvalidArgument, "int8 activations: no zero point {} here", options.zero);
  }
  if (!(options.momentum > 0) || options.momentum > 1) {
    return make_error(ErrorCode::kInvalidArgument,
                      "int8 activations: momentum {}; it must be above 0, at most 1", options.momentum);
  }
  for (const std::int32_t c : options.outliers) {
    if (c < 0 || c >= k) {
      return make_error(ErrorCode::kInvalidArgument, "int8 activations: rows of {} have no column {}", k, c);
    }
  }
  std::shared_ptr<Int8Activation> node(new Int8Activation(k, options));
  if (!options.outliers.empty()) {
    node->outliers_ = at::empty({static_cast<std::int64_t>(options.outliers.size())}, at::kLong);
    std::copy(options.outliers.begin(), options.outliers.end(), node->outliers_.data_ptr<std::int64_t>());
  }
  const auto zero = static_cast<float>(options.zero);
  if (options.range == ActivationRange::kObserved) {
    const float low = least_code(options.asymmetric);
    node->range_ = at::zeros({2}, at::kFloat);
    node->range_[0] = options.scale * (low - zero);
    node->range_[1] = options.scale * (127.0f - zero);
    node->count_ = at::full({1}, options.scale > 0 ? 1 : 0, at::kLong);
  } else if (node->is_static()) {
    const bool learned = options.range == ActivationRange::kLearned;
    node->scale_ = at::full({1}, options.scale, at::kFloat).requires_grad_(learned);
    node->zero_ = at::full({1}, zero, at::kFloat).requires_grad_(learned && options.asymmetric);
  }
  return node;
}

DenseInt8Scheme Int8Activation::scheme() const {
  if (options_.range == ActivationRange::kObserved) {
    if (count_.item<std::int64_t>() == 0) return {options_.asymmetric, 0, 0};
    const auto* range = range_.data_ptr<float>();
    return scheme_of(range[0], range[1], options_.asymmetric);
  }
  if (!is_static()) return {options_.asymmetric, 0, 0};
  float scale = first(scale_);
  if (scale != 0 && options_.range == ActivationRange::kLearned) {
    scale = kernels::dense_int8_scale(scale < kLeastScale ? kLeastScale : scale);
  }
  const float zero = std::clamp(std::nearbyint(first(zero_)), -128.0f, 127.0f);
  return {options_.asymmetric, scale, options_.asymmetric ? static_cast<std::int32_t>(zero) : 0};
}

void Int8Activation::observe(const at::Tensor& rows) {
  const float lo = rows.min().item<float>(), hi = rows.max().item<float>();
  if (!std::isfinite(lo) || !std::isfinite(hi)) return;  // the loss tells
  auto* range = range_.data_ptr<float>();
  auto* count = count_.data_ptr<std::int64_t>();
  const auto share = static_cast<float>(*count == 0 ? 1.0 : options_.momentum);
  range[0] += share * (lo - range[0]);
  range[1] += share * (hi - range[1]);
  ++*count;
}

// A learned range without a start takes what holds the first rows.
void Int8Activation::start_from(const at::Tensor& rows) {
  const DenseInt8Scheme start =
      scheme_of(rows.min().item<float>(), rows.max().item<float>(), options_.asymmetric);
  const at::NoGradGuard no_grad;
  scale_.fill_(start.scale);
  zero_.fill_(start.zero);
}

at::Tensor Int8Activation::apply(const at::Tensor& x) {
  const bool observes = options_.range == ActivationRange::kObserved;
  if (phase() == Phase::kOff || (phase() == Phase::kObserve && !observes)) return x;
  TORCH_CHECK(x.dim() >= 1 && x.size(-1) == k_, "int8 activations of rows of ", k_, " get rows of ",
              x.size(-1));
  const bool fine = x.scalar_type() == at::kDouble && options_.range != ActivationRange::kBlock;
  if (x.scalar_type() != at::kFloat && !fine) return apply(x.to(at::kFloat)).to(x.scalar_type());
  at::Tensor rows = x.reshape({-1, k_});
  if (outliers_.defined()) rows = rows.index_fill(1, outliers_, 0);
  rows = rows.contiguous();
  const at::Tensor plain = rows.detach();
  if (phase() == Phase::kObserve) {
    observe(plain);
    return x;
  }
  if (observes && count_.item<std::int64_t>() == 0) observe(plain);
  if (options_.range == ActivationRange::kLearned && first(scale_) == 0) start_from(plain);

  at::Tensor y;
  if (options_.range == ActivationRange::kBlock) {
    y = straight_through(rows, engine_blocks(plain));
  } else if (!is_static()) {
    const DenseInt8Scheme s = scheme();
    y = straight_through(rows, fine ? engine_rows<double>(s, plain) : engine_rows<float>(s, plain));
  } else {
    const DenseInt8Scheme s = scheme();
    const bool learns = options_.range == ActivationRange::kLearned && phase() == Phase::kOn;
    const at::Tensor none = at::zeros({1});
    const double factor = options_.scaled_gradient ? lsq_factor(static_cast<double>(k_), 127) : 1;
    y = StaticInt8::apply(rows, learns ? scale_ : none, learns ? zero_ : none, static_cast<double>(s.scale),
                          static_cast<std::int64_t>(s.zero), s.asymmetric, factor);
    if (observes && phase() == Phase::kOn && at::GradMode::is_enabled()) observe(plain);
  }
  if (outliers_.defined()) {
    y = y.index_copy(1, outliers_, x.reshape({-1, k_}).index_select(1, outliers_));
  }
  return y.view(x.sizes());
}

std::vector<NamedTensor> Int8Activation::parameters() {
  if (options_.range != ActivationRange::kLearned) return {};
  if (!options_.asymmetric) return {{"scale", scale_}};
  return {{"scale", scale_}, {"zero_point", zero_}};
}

std::vector<NamedTensor> Int8Activation::buffers() {
  if (options_.range == ActivationRange::kObserved) return {{"range", range_}, {"count", count_}};
  if (options_.range != ActivationRange::kFixed) return {};
  if (!options_.asymmetric) return {{"scale", scale_}};
  return {{"scale", scale_}, {"zero_point", zero_}};
}

std::string Int8Activation::describe() const {
  constexpr const char* kRanges[] = {"per token, dynamic", "per 32, dynamic", "static", "static, observed",
                                     "static, learned"};
  std::string text = fmt::format("int8 {}", kRanges[static_cast<int>(options_.range)]);
  if (options_.asymmetric) text += ", zero point";
  if (outliers_.defined()) text += fmt::format(", {} columns fp32", options_.outliers.size());
  return text;
}

}  // namespace narrow::train
