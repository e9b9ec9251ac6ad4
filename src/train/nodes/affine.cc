#include "train/nodes/affine.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "train/nodes/round_to_grid.h"

namespace narrow::train {
namespace {

using formats::AffineMapping;
using formats::AffineScope;
using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

// Where the parameters of an element are: those of element i of row r at r * row_groups + i / group.
struct Layout {
  std::int64_t group;       // elements of a row that share parameters
  std::int64_t row_groups;  // 0: all rows share them
  bool min;                 // the offset is a min, not a zero point
  double low, high;         // codes
};

// The element's place among the codes, not yet rounded.
template <class T>
T place(const Layout& at, T x, T scale, T offset) {
  return at.min ? (x - offset) / scale : x / scale + offset;
}

template <class T>
at::Tensor affine_values(const Layout& at, const at::Tensor& x, const float* scale, const float* offset) {
  const std::int64_t m = x.size(0), k = x.size(1);
  at::Tensor out = at::empty_like(x);
  const auto* xs = x.data_ptr<T>();
  auto* ys = out.data_ptr<T>();
  const T low = static_cast<T>(at.low), high = static_cast<T>(at.high);
  over_rows(m, k, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      for (std::int64_t first = 0; first < k; first += at.group) {
        const std::int64_t g = r * at.row_groups + (at.row_groups > 0 ? first / at.group : 0);
        const T s = static_cast<T>(scale[g]), z = static_cast<T>(offset[g]);
        for (std::int64_t i = r * k + first; i < r * k + std::min(k, first + at.group); ++i) {
          const T t = std::nearbyint(place<T>(at, xs[i], s, z));
          const T code = t < low ? low : (t > high ? high : t);  // NaN stays
          // In double, as affine_dequantize does: the product alone may exceed fp32 where the sum does not.
          const double step = static_cast<double>(scale[g]), off = static_cast<double>(offset[g]);
          const double c = static_cast<double>(code) + 0.0;  // a code has no -0
          ys[i] = static_cast<T>(at.min ? step * c + off : step * (c - off));
        }
      }
    }
  });
  return out;
}

struct AffineSums {
  at::Tensor scale, offset;  // fp64 [rows, groups of a row], added up over rows where those share parameters
};

template <class T>
AffineSums affine_backward(const Layout& at, const at::Tensor& x, const float* scale, const float* offset,
                           const at::Tensor& grad, at::Tensor& grad_x) {
  const std::int64_t m = x.size(0), k = x.size(1), groups = std::max<std::int64_t>(1, at.row_groups);
  AffineSums sums{at::zeros({m, groups}, at::kDouble), at::zeros({m, groups}, at::kDouble)};
  const auto *xs = x.data_ptr<T>(), *gs = grad.data_ptr<T>();
  auto* out = grad_x.data_ptr<T>();
  auto *of_scale = sums.scale.data_ptr<double>(), *of_offset = sums.offset.data_ptr<double>();
  const T low = static_cast<T>(at.low), high = static_cast<T>(at.high), half = static_cast<T>(0.5);
  over_rows(m, k, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      for (std::int64_t first = 0; first < k; first += at.group) {
        const std::int64_t g = r * at.row_groups + (at.row_groups > 0 ? first / at.group : 0);
        const T s = static_cast<T>(scale[g]), z = static_cast<T>(offset[g]), zero = at.min ? T{0} : z;
        T sum_scale = 0, sum_outside = 0;
        for (std::int64_t i = r * k + first; i < r * k + std::min(k, first + at.group); ++i) {
          const T t = place<T>(at, xs[i], s, z), code = std::min(std::max(std::nearbyint(t), low), high);
          const bool inside = t >= low - half && t <= high + half;
          out[i] = inside ? gs[i] : T{0};
          sum_scale += gs[i] * (inside ? code - t : code - zero);
          sum_outside += inside ? T{0} : gs[i];
        }
        const std::int64_t to = r * groups + first / at.group;
        of_scale[to] = static_cast<double>(sum_scale);
        of_offset[to] = static_cast<double>(at.min ? sum_outside : -s * sum_outside);
      }
    }
  });
  if (at.row_groups == 0) {
    sums.scale = sums.scale.sum(0);
    sums.offset = sums.offset.sum(0);
  }
  return sums;
}

struct Affine : torch::autograd::Function<Affine> {
  static Variable forward(AutogradContext* ctx, const Variable& x, const Variable& latent_scale,
                          const Variable& latent_offset, const at::Tensor& scale, const at::Tensor& offset,
                          const Layout& at, double factor) {
    ctx->save_for_backward({x, scale, offset});
    ctx->saved_data["group"] = at.group;
    ctx->saved_data["row_groups"] = at.row_groups;
    ctx->saved_data["min"] = at.min;
    ctx->saved_data["low"] = at.low;
    ctx->saved_data["high"] = at.high;
    ctx->saved_data["factor"] = factor;
    ctx->saved_data["learned"] = latent_scale.requires_grad();
    ctx->saved_data["learned_offset"] = latent_offset.requires_grad();
    const auto *s = scale.data_ptr<float>(), *o = offset.data_ptr<float>();
    return x.scalar_type() == at::kDouble ? affine_values<double>(at, x, s, o)
                                          : affine_values<float>(at, x, s, o);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], grad = grads[0].contiguous();
    const auto *s = saved[1].data_ptr<float>(), *o = saved[2].data_ptr<float>();
    auto& data = ctx->saved_data;
    const Layout at{data["group"].toInt(), data["row_groups"].toInt(), data["min"].toBool(),
                    data["low"].toDouble(), data["high"].toDouble()};
    at::Tensor grad_x = at::empty_like(x), grad_scale, grad_offset;
    const AffineSums sums = x.scalar_type() == at::kDouble
                                ? affine_backward<double>(at, x, s, o, grad, grad_x)
                                : affine_backward<float>(at, x, s, o, grad, grad_x);
    const double factor = data["factor"].toDouble();
    if (data["learned"].toBool()) grad_scale = (factor * sums.scale).to(at::kFloat).view(saved[1].sizes());
    if (data["learned_offset"].toBool()) {
      grad_offset = (factor * sums.offset).to(at::kFloat).view(saved[2].sizes());
    }
    return {grad_x, grad_scale, grad_offset, {}, {}, {}, {}};
  }
};

// Elements that share the parameters of group g of a row.
std::int64_t group_length(const formats::AffineSpec& spec, std::int64_t cols) {
  return spec.scope == AffineScope::kGroup ? std::min(spec.group, cols) : cols;
}

Layout layout_of(const formats::AffineSpec& spec, std::int64_t cols, std::int64_t row_groups) {
  const formats::CodeRange codes = formats::affine_code_range(spec);
  return {group_length(spec, cols), row_groups, spec.mapping == AffineMapping::kMin,
          static_cast<double>(codes.low), static_cast<double>(codes.high)};
}

// f(group, rows [.., elements of the group]) for each group of rows [m, cols].
template <class F>
void for_groups(const at::Tensor& rows, std::int64_t row_groups, std::int64_t length, const F& f) {
  if (row_groups == 0) return f(0, rows.reshape({-1}));
  for (std::int64_t r = 0; r < rows.size(0); ++r) {
    for (std::int64_t g = 0; g < row_groups; ++g) {
      const std::int64_t first = g * length;
      f(r * row_groups + g, rows[r].narrow(0, first, std::min(length, rows.size(1) - first)));
    }
  }
}

}  // namespace

AffineNode::AffineNode(std::int64_t rows, std::int64_t cols, const AffineOptions& options)
    : rows_(rows), cols_(cols), options_(options) {}

std::int64_t AffineNode::row_groups() const {
  const std::int64_t length = group_length(options_.spec, cols_);
  return options_.spec.scope == AffineScope::kTensor ? 0 : (cols_ + length - 1) / length;
}

Result<std::shared_ptr<AffineNode>> AffineNode::create(std::int64_t rows, std::int64_t cols,
                                                       const AffineOptions& options) {
  const bool own = options.spec.scope == AffineScope::kTensor || rows > 0;
  if (rows < 0 || cols < 1) {
    return make_error(ErrorCode::kInvalidArgument, "affine: no tensor has {} rows of {}", rows, cols);
  }
  if (options.mode != AffineMode::kDynamic && !own) {
    return make_error(ErrorCode::kInvalidArgument,
                      "affine: {} ranges of tokens' activations are per tensor; a range per token is dynamic",
                      options.mode == AffineMode::kLearned ? "learned" : "observed");
  }
  if (!(options.momentum > 0) || options.momentum > 1) {
    return make_error(ErrorCode::kInvalidArgument, "affine: momentum {}; it must be above 0, at most 1",
                      options.momentum);
  }
  // The rest is affine_quantize's to judge.
  const float zero = 0;
  NARROW_TRY(formats::affine_quantize(&zero, 1, 1, options.spec).status());
  std::shared_ptr<AffineNode> node(new AffineNode(rows, cols, options));
  const std::int64_t groups = node->row_groups() == 0 ? 1 : rows * node->row_groups();
  if (options.mode == AffineMode::kObserved) {
    node->range_ = at::zeros({groups, 2}, at::kFloat);
    node->count_ = at::zeros({1}, at::kLong);
  } else if (options.mode == AffineMode::kLearned) {
    node->scale_ = at::zeros({groups}, at::kFloat).requires_grad_(true);
    node->offset_ =
        at::zeros({groups}, at::kFloat).requires_grad_(options.spec.mapping != AffineMapping::kSymmetric);
  }
  return node;
}

Status AffineNode::set_range(const std::vector<float>& scale, const std::vector<float>& offset) {
  const auto groups = static_cast<std::size_t>(scale_.defined() ? scale_.numel() : 0);
  const bool has_offset = options_.spec.mapping != AffineMapping::kSymmetric;
  if (scale.size() != groups || offset.size() != (has_offset ? groups : 0)) {
    return make_error(ErrorCode::kInvalidArgument,
                      "affine: {} learned groups start from {} scales and {} offsets", groups, scale.size(),
                      offset.size());
  }
  for (const float s : scale) {
    if (!(s > 0) || !std::isfinite(s)) {
      return make_error(ErrorCode::kNumeric, "affine: a scale of {}; it must be positive and finite", s);
    }
  }
  const at::NoGradGuard no_grad;
  std::copy(scale.begin(), scale.end(), scale_.data_ptr<float>());
  std::copy(offset.begin(), offset.end(), offset_.data_ptr<float>());
  return {};
}

void AffineNode::observe(const at::Tensor& rows) {
  auto* count = count_.data_ptr<std::int64_t>();
  const auto share = static_cast<float>(*count == 0 ? 1.0 : options_.momentum);
  bool seen = false;
  for_groups(rows, row_groups(), group_length(options_.spec, cols_),
             [&](std::int64_t g, const at::Tensor& x) {
               const float lo = x.min().item<float>(), hi = x.max().item<float>();
               if (!std::isfinite(lo) || !std::isfinite(hi)) return;  // the loss tells
               auto* range = range_.data_ptr<float>() + 2 * g;
               range[0] += share * (lo - range[0]);
               range[1] += share * (hi - range[1]);
               seen = true;
             });
  if (seen) ++*count;
}

void AffineNode::start_from(const at::Tensor& rows) {
  const double high = formats::affine_code_range(options_.spec).high;
  for_groups(
      rows, row_groups(), group_length(options_.spec, cols_), [&](std::int64_t g, const at::Tensor& x) {
        formats::AffineParams p =
            formats::affine_cover(options_.spec, x.min().item<double>(), x.max().item<double>());
        if (options_.spec.mapping == AffineMapping::kSymmetric) {
          const double mean = x.abs().mean().item<double>();
          if (mean > 0) p.scale = static_cast<float>(2 * mean / std::sqrt(high));
        }
        scale_.data_ptr<float>()[g] = std::max(p.scale, kLeastScale);
        offset_.data_ptr<float>()[g] = options_.spec.mapping == AffineMapping::kMin ? p.min : p.zero_point;
      });
}

AffineNode::Range AffineNode::range_of(const at::Tensor& rows) const {
  const bool has_min = options_.spec.mapping == AffineMapping::kMin;
  if (options_.mode == AffineMode::kLearned) {
    Range out{scale_.detach().clamp_min(kLeastScale), offset_.detach().clone()};
    if (has_min) return out;
    const formats::CodeRange codes = formats::affine_code_range(options_.spec);
    out.offset = out.offset.round().clamp(codes.low, codes.high);
    return out;
  }
  const std::int64_t per_row = row_groups(), groups = per_row == 0 ? 1 : rows.size(0) * per_row;
  Range out{at::ones({groups}, at::kFloat), at::zeros({groups}, at::kFloat)};
  auto *scale = out.scale.data_ptr<float>(), *offset = out.offset.data_ptr<float>();
  if (options_.mode == AffineMode::kObserved) {
    for (std::int64_t g = 0; g < groups; ++g) {
      const auto* range = range_.data_ptr<float>() + 2 * g;
      const formats::AffineParams p =
          formats::affine_cover(options_.spec, static_cast<double>(range[0]), static_cast<double>(range[1]));
      scale[g] = p.scale;
      offset[g] = has_min ? p.min : p.zero_point;
    }
    return out;
  }
  const auto fit = [&](std::int64_t begin, std::int64_t end) {
    const auto q =
        formats::affine_quantize(rows.data_ptr<float>() + begin * cols_, end - begin, cols_, options_.spec);
    for (std::size_t i = 0; q.ok() && i < q->scales.size(); ++i) {
      const std::size_t g = static_cast<std::size_t>(begin * per_row) + i;
      scale[g] = q->scales[i];
      if (!q->mins.empty()) offset[g] = q->mins[i];
      if (!q->zero_points.empty()) offset[g] = static_cast<float>(q->zero_points[i]);
    }
  };
  if (per_row == 0) {
    fit(0, rows.size(0));
  } else {
    over_rows(rows.size(0), cols_, fit);
  }
  return out;
}

at::Tensor AffineNode::apply(const at::Tensor& x) {
  const bool observes = options_.mode == AffineMode::kObserved;
  if (phase() == Phase::kOff || (phase() == Phase::kObserve && !observes)) return x;
  TORCH_CHECK(x.dim() >= 1 && x.size(-1) == cols_, "affine: rows of ", cols_, " are expected, not of ",
              x.size(-1));
  if (x.scalar_type() != at::kFloat && x.scalar_type() != at::kDouble) {
    return apply(x.to(at::kFloat)).to(x.scalar_type());
  }
  const at::Tensor rows = x.reshape({-1, cols_}).contiguous();
  TORCH_CHECK(rows_ == 0 || rows.size(0) == rows_, "affine: ", rows_, " rows are expected, not ",
              rows.size(0));
  const at::Tensor plain = rows.detach().to(at::kFloat);
  if (phase() == Phase::kObserve) {
    observe(plain);
    return x;
  }
  if (observes && count_.item<std::int64_t>() == 0) observe(plain);
  const bool learned = options_.mode == AffineMode::kLearned;
  if (learned && scale_.detach().abs().max().item<float>() == 0) start_from(plain);

  const Range range = range_of(plain);
  const Layout at = layout_of(options_.spec, cols_, row_groups());
  if (options_.mode == AffineMode::kDynamic) {
    const at::Tensor source = rows.detach();
    const auto *s = range.scale.data_ptr<float>(), *o = range.offset.data_ptr<float>();
    const at::Tensor value = source.scalar_type() == at::kDouble ? affine_values<double>(at, source, s, o)
                                                                 : affine_values<float>(at, source, s, o);
    return straight_through(rows, value).view(x.sizes());
  }
  const bool learns = learned && phase() == Phase::kOn;
  const double greatest = std::max(std::fabs(at.low), std::fabs(at.high));
  const double elements =
      static_cast<double>(row_groups() == 0 ? std::max<std::int64_t>(1, rows_) * cols_ : at.group);
  const at::Tensor y =
      Affine::apply(rows, learns ? scale_ : range.scale, learns ? offset_ : range.offset, range.scale,
                    range.offset, at, options_.scaled_gradient ? lsq_factor(elements, greatest) : 1.0);
  if (observes && phase() == Phase::kOn && at::GradMode::is_enabled()) observe(plain);
  return y.view(x.sizes());
}

Result<formats::AffineQuantized> AffineNode::quantize(const at::Tensor& x) const {
  const at::Tensor rows = x.detach().to(at::kFloat).reshape({-1, cols_}).contiguous();
  const auto* values = rows.data_ptr<float>();
  if (const std::int64_t bad = find_non_finite(values, rows.numel()); bad >= 0) {
    return make_error(ErrorCode::kNumeric, "affine: element [{}, {}] is {}; weights must be finite",
                      bad / cols_, bad % cols_, values[bad]);
  }
  const Range range = range_of(rows);
  const Layout at = layout_of(options_.spec, cols_, row_groups());
  formats::AffineQuantized q;
  q.spec = options_.spec;
  q.rows = rows.size(0);
  q.cols = cols_;
  q.groups_per_row = row_groups();
  const auto *scale = range.scale.data_ptr<float>(), *offset = range.offset.data_ptr<float>();
  q.scales.assign(scale, scale + range.scale.numel());
  if (q.spec.mapping == AffineMapping::kMin) q.mins.assign(offset, offset + range.offset.numel());
  if (q.spec.mapping == AffineMapping::kZeroPoint)
    q.zero_points.assign(offset, offset + range.offset.numel());
  q.codes.resize(static_cast<std::size_t>(rows.numel()));
  for (std::int64_t i = 0; i < rows.numel(); ++i) {
    const std::size_t g = q.group_of(i / cols_, i % cols_);
    const float t = std::nearbyint(place<float>(at, values[i], scale[g], offset[g]));
    q.codes[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(
        static_cast<int>(std::clamp(t, static_cast<float>(at.low), static_cast<float>(at.high))));
  }
  return q;
}

std::vector<NamedTensor> AffineNode::parameters() {
  if (options_.mode != AffineMode::kLearned) return {};
  if (options_.spec.mapping == AffineMapping::kSymmetric) return {{"scale", scale_}};
  return {{"scale", scale_}, {options_.spec.mapping == AffineMapping::kMin ? "min" : "zero_point", offset_}};
}

std::vector<NamedTensor> AffineNode::buffers() {
  if (options_.mode != AffineMode::kObserved) return {};
  return {{"range", range_}, {"count", count_}};
}

std::string AffineNode::describe() const {
  constexpr const char* kMappings[] = {"symmetric", "zero point", "min"};
  constexpr const char* kModes[] = {"dynamic", "observed", "learned"};
  const formats::AffineSpec& spec = options_.spec;
  std::string scope = spec.scope == AffineScope::kTensor ? "tensor" : rows_ > 0 ? "channel" : "token";
  if (spec.scope == AffineScope::kGroup) scope = fmt::format("group of {}", spec.group);
  return fmt::format("int{} {} per {}, {}", spec.bits, kMappings[static_cast<int>(spec.mapping)], scope,
                     kModes[static_cast<int>(options_.mode)]);
}

}  // namespace narrow::train
