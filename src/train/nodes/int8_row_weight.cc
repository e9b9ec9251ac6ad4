#include "train/nodes/int8_row_weight.h"

#include <cmath>
#include <cstring>

#include "formats/grid.h"
#include "kernels/dense_int8.h"
#include "train/nodes/round_to_grid.h"

namespace narrow::train {
namespace {

// Levels -127 .. 127, no min: q8_0's.
const formats::GridCodec* codec() { return formats::grid_codec(Format::kQ8_0); }

}  // namespace

Int8RowWeight::Int8RowWeight(std::int64_t n, std::int64_t k, const Int8RowOptions& options)
    : n_(n), k_(k), options_(options) {}

Result<std::shared_ptr<Int8RowWeight>> Int8RowWeight::create(std::span<const std::int8_t> codes,
                                                             std::span<const float> scales, std::int64_t n,
                                                             std::int64_t k, const Int8RowOptions& options) {
  if (n < 1 || k < 1 || codes.size() != static_cast<std::size_t>(n * k) ||
      scales.size() != static_cast<std::size_t>(n)) {
    return make_error(ErrorCode::kInvalidArgument,
                      "int8 weight of [{}, {}] starts from {} codes and {} scales", n, k, codes.size(),
                      scales.size());
  }
  for (const float s : scales) {
    if (!(s >= 0) || !std::isfinite(s)) {
      return make_error(ErrorCode::kNumeric, "int8 weight of [{}, {}] has a scale of {}", n, k, s);
    }
  }
  std::shared_ptr<Int8RowWeight> node(new Int8RowWeight(n, k, options));
  node->start_ = at::empty({n, k}, at::kChar);
  std::memcpy(node->start_.data_ptr(), codes.data(), codes.size());
  node->scale_ = at::empty({n}, at::kFloat);
  std::memcpy(node->scale_.data_ptr(), scales.data(), scales.size() * sizeof(float));
  node->no_min_ = at::zeros({n}, at::kFloat);
  NARROW_ASSIGN(node->outliers_, KeptColumns::create(k, options.outliers, options.outlier_format));
  if (options.learned) node->scale_.requires_grad_(true);
  return node;
}

at::Tensor Int8RowWeight::stored_scales() const {
  if (!options_.learned) return scale_;
  at::Tensor out = scale_.detach().clone();
  auto* s = out.data_ptr<float>();
  for (std::int64_t r = 0; r < n_; ++r) {
    // NaN stays what it is.
    s[r] = kernels::dense_int8_scale(s[r] < kLeastScale ? kLeastScale : s[r]);
  }
  return out;
}

at::Tensor Int8RowWeight::stored_outliers(const at::Tensor& w) const {
  return outliers_.stored(w).to(at::kFloat);
}

at::Tensor Int8RowWeight::apply(const at::Tensor& w) {
  if (phase() == Phase::kOff || phase() == Phase::kObserve) return w;
  if (w.scalar_type() != at::kFloat && w.scalar_type() != at::kDouble) {
    return apply(w.to(at::kFloat)).to(w.scalar_type());
  }
  ToGrid to{codec(), k_, stored_scales(), no_min_, {}, {}, options_.pass_clipped};
  if (options_.learned && phase() == Phase::kOn) to.latent_scale = scale_;
  if (options_.scaled_gradient) to.factor = lsq_factor(static_cast<double>(k_), 127);
  return outliers_.join(round_to_grid(outliers_.rest(w).contiguous(), to), w);
}

Result<std::vector<std::byte>> Int8RowWeight::encode(const at::Tensor& w) {
  if (w.dim() != 2 || w.size(0) != n_ || w.size(1) != k_) {
    return make_error(ErrorCode::kInvalidArgument,
                      "int8 weight of [{}, {}] cannot be encoded from {} numbers", n_, k_, w.numel());
  }
  at::Tensor x = w.detach().cpu().to(at::kFloat).contiguous();
  const auto* values = x.data_ptr<float>();
  if (const std::int64_t bad = find_non_finite(values, x.numel()); bad >= 0) {
    return make_error(ErrorCode::kNumeric, "weight [{}, {}] is {}; int8 stores finite numbers only", bad / k_,
                      bad % k_, values[bad]);
  }
  const at::Tensor scales = stored_scales();
  if (!scales.isfinite().all().item<bool>()) {
    return make_error(ErrorCode::kNumeric, "a learned scale of an int8 weight is no finite number");
  }
  x = outliers_.rest(x);
  const GridView grid{codec(), k_, n_, k_, scales.data_ptr<float>(), no_min_.data_ptr<float>()};
  std::vector<std::byte> out(static_cast<std::size_t>(n_ * k_));
  over_rows(n_, k_, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      auto* codes = reinterpret_cast<std::uint8_t*>(out.data()) + r * k_;
      grid_codes(grid, r, x.data_ptr<float>() + r * k_, codes);
      for (std::int64_t i = 0; i < k_; ++i) codes[i] = static_cast<std::uint8_t>(codes[i] - 127);
    }
  });
  return out;
}

at::Tensor Int8RowWeight::start_values() const {
  return (start_.to(at::kFloat) * stored_scales().unsqueeze(1)).contiguous();
}

at::Tensor Int8RowWeight::start_latent(const at::Tensor& reference) const {
  const at::Tensor x = reference.detach().cpu().to(at::kFloat).contiguous();
  const at::Tensor scales = stored_scales();
  at::Tensor out = start_values();
  const GridView grid{codec(), k_, n_, k_, scales.data_ptr<float>(), no_min_.data_ptr<float>()};
  lean_towards(grid, x.data_ptr<float>(), out.data_ptr<float>());
  outliers_.copy(x, out);
  return out;
}

std::vector<NamedTensor> Int8RowWeight::parameters() {
  if (!options_.learned) return {};
  return {{"scale", scale_}};
}

std::vector<NamedTensor> Int8RowWeight::buffers() {
  if (options_.learned) return {};
  return {{"scale", scale_}};
}

std::string Int8RowWeight::describe() const {
  std::string text = fmt::format("int8 per row, {} scales", options_.learned ? "learned" : "fixed");
  if (!outliers_.empty()) text += ", " + outliers_.describe();
  return text;
}

}  // namespace narrow::train
