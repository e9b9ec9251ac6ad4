#include "ops/dense_int8.h"

#include <algorithm>
#include <cmath>
#include <mutex>
#include <optional>

#include "base/thread_team.h"
#include "formats/format.h"
#include "kernels/dispatch.h"
#include "ops/rows.h"
#include "ops/scratch.h"

namespace narrow::ops {
namespace {

constexpr std::int64_t kPanelRows = kernels::kDenseInt8PanelRows;

const kernels::DenseInt8Kernel& kernel() { return *kernels::kernels().dense_int8; }

std::int64_t panels_of(std::int64_t n) { return (n + kPanelRows - 1) / kPanelRows; }

// Quantizes one row; false if a value is not finite.
bool quantize_row(const float* w, std::int64_t k, bool asymmetric, std::int8_t* codes, float& scale,
                  std::int8_t& zero) {
  float lo = 0.0f, hi = 0.0f;
  bool finite = true;
  for (std::int64_t i = 0; i < k; ++i) {
    finite = finite && std::isfinite(w[i]);
    lo = std::min(lo, w[i]);
    hi = std::max(hi, w[i]);
  }
  const float steps = asymmetric ? 255.0f : 127.0f, least = asymmetric ? -128.0f : -127.0f;
  const float range = asymmetric ? hi - lo : std::max(hi, -lo);
  if (!finite || !std::isfinite(range)) return false;
  const float inverse = steps / range;
  const bool usable = range > 0.0f && std::isfinite(inverse);
  const float z = asymmetric && usable ? std::nearbyint(-128.0f - lo * inverse) : 0.0f;
  scale = usable ? range / steps : 0.0f;
  zero = static_cast<std::int8_t>(z);
  for (std::int64_t i = 0; i < k; ++i) {
    const float code = usable ? std::nearbyint(w[i] * inverse) + z : 0.0f;
    codes[i] = static_cast<std::int8_t>(std::clamp(code, least, 127.0f));
  }
  return true;
}

Error not_finite(std::int64_t row) {
  return make_error(ErrorCode::kNumeric,
                    "int8 weights: row {} holds a value that is not finite, or spans more than fp32 holds",
                    row);
}

Status check_length(std::int64_t k, std::int64_t most, const char* what) {
  if (k <= most) return {};
  return make_error(ErrorCode::kInvalidArgument,
                    "int8 products: rows of {} are too long for exact sums; {} reach {}", k, what, most);
}

Status check_weight_length(std::int64_t k, bool asymmetric) {
  return asymmetric ? check_length(k, kernels::kMaxDenseAsymmetric, "asymmetric weights")
                    : check_length(k, kernels::kMaxDenseSymmetric, "symmetric weights");
}

Status check_product(const DenseInt8Activations& x, const DenseInt8Product& p) {
  const kernels::DenseInt8Rows& rows = x.rows();
  if (p.weight->k() != rows.k || p.out.rows != rows.m || p.out.cols != p.weight->n()) {
    return make_error(
        ErrorCode::kInvalidArgument, "int8 products: x {} * weight {}^T does not fit the output {}",
        Shape{rows.m, rows.k}.text(), Shape{p.weight->n(), p.weight->k()}.text(), p.out.shape().text());
  }
  if (!x.asymmetric()) return {};
  return check_length(rows.k, kernels::kMaxDenseAsymmetricRows, "asymmetric activations");
}

}  // namespace

DenseInt8Weight::DenseInt8Weight(std::int64_t n, std::int64_t k, bool asymmetric)
    : n_(n),
      k_(k),
      asymmetric_(asymmetric),
      panels_(static_cast<std::size_t>(panels_of(n)) * kernel().panel_bytes(k)) {}

Result<DenseInt8Codes> quantize_dense(const float* w, std::int64_t n, std::int64_t k, bool asymmetric) {
  DenseInt8Codes c;
  c.n = n;
  c.k = k;
  c.codes.resize(static_cast<std::size_t>(n * k));
  c.scale.resize(static_cast<std::size_t>(n));
  if (asymmetric) c.zero.resize(static_cast<std::size_t>(n));
  for (std::int64_t r = 0; r < n; ++r) {
    std::int8_t zero = 0;
    if (!quantize_row(w + r * k, k, asymmetric, c.codes.data() + r * k, c.scale[static_cast<std::size_t>(r)],
                      zero)) {
      return not_finite(r);
    }
    if (asymmetric) c.zero[static_cast<std::size_t>(r)] = zero;
  }
  return c;
}

Result<DenseInt8Weight> pack_dense(const DenseInt8Codes& c) {
  const bool asymmetric = !c.zero.empty();
  NARROW_TRY(check_weight_length(c.k, asymmetric));
  DenseInt8Weight weight(c.n, c.k, asymmetric);
  parallel_for(panels_of(c.n), [&](std::int64_t p, int /*thread*/) {
    const std::int64_t first = p * kPanelRows;
    kernel().pack(c.codes.data() + first * c.k, c.k, c.scale.data() + first,
                  asymmetric ? c.zero.data() + first : nullptr, std::min(kPanelRows, c.n - first), c.k,
                  weight.panels_.data() + static_cast<std::size_t>(p) * kernel().panel_bytes(c.k));
  });
  return weight;
}

Result<DenseInt8Weight> pack_dense(const TensorView& stored, bool asymmetric) {
  const FormatInfo& format = format_info(stored.format);
  if (format.decode == nullptr || stored.shape.rank() != 2) {
    return make_error(ErrorCode::kUnsupported, "int8 weights: a tensor {} stored as {} is no weight matrix",
                      stored.shape.text(), format.name);
  }
  const std::int64_t n = stored.shape[0], k = stored.shape[1];
  NARROW_TRY(check_weight_length(k, asymmetric));
  DenseInt8Weight weight(n, k, asymmetric);

  // Per thread: one decoded row, and the codes of a panel.
  const auto row_floats = static_cast<std::size_t>(k);
  const std::size_t code_floats = (static_cast<std::size_t>(kPanelRows * k) + 3) / 4;
  thread_local Scratch scratch;
  scratch.prepare(row_floats + code_floats);
  Scratch& memory = scratch;
  std::mutex mutex;
  std::optional<std::int64_t> bad_row;
  parallel_for(panels_of(n), [&](std::int64_t p, int thread) {
    float* row = memory.of(thread);
    auto* codes = reinterpret_cast<std::int8_t*>(row + row_floats);
    float scale[kPanelRows];
    std::int8_t zero[kPanelRows];
    const std::int64_t first = p * kPanelRows, count = std::min(kPanelRows, n - first);
    for (std::int64_t r = 0; r < count; ++r) {
      format.decode(stored.data + static_cast<std::size_t>(first + r) * stored.stride_bytes(), row, k);
      if (quantize_row(row, k, asymmetric, codes + r * k, scale[r], zero[r])) continue;
      const std::lock_guard lock(mutex);
      bad_row = std::min(bad_row.value_or(first + r), first + r);
      return;
    }
    kernel().pack(codes, k, scale, asymmetric ? zero : nullptr, count, k,
                  weight.panels_.data() + static_cast<std::size_t>(p) * kernel().panel_bytes(k));
  });
  if (bad_row) return not_finite(*bad_row);
  return weight;
}

Status DenseInt8Activations::assign(ConstMatrix x, const kernels::DenseInt8Scheme& scheme) {
  const bool dynamic = scheme.scale == 0.0f;
  if (!dynamic &&
      !(scheme.scale > 0.0f && std::isfinite(scheme.scale) && std::isfinite(1.0f / scheme.scale))) {
    return make_error(ErrorCode::kInvalidArgument,
                      "int8 activations: a static scale must be a positive number, not {}", scheme.scale);
  }
  if (scheme.zero < -128 || scheme.zero > 127) {
    return make_error(ErrorCode::kInvalidArgument,
                      "int8 activations: the zero point must be in -128 .. 127, not {}", scheme.zero);
  }
  const std::int64_t stride = kernels::dense_int8_stride(x.cols);
  const auto m = static_cast<std::size_t>(x.rows);
  q_.reserve_at_least(m * static_cast<std::size_t>(stride));
  scale_.reserve_at_least(m);
  zero_.reserve_at_least(m);
  sum_.reserve_at_least(m);
  rows_ = {q_.data(), scale_.data(), zero_.data(), sum_.data(), x.rows, x.cols};
  asymmetric_ = scheme.asymmetric;
  for_rows(x.rows, x.cols, [&](std::int64_t r) {
    kernel().quantize_row(scheme, x.row(r), x.cols, q_.data() + r * stride, scale_.data() + r,
                          zero_.data() + r, sum_.data() + r);
  });
  return {};
}

Status matmul(const DenseInt8Activations& x, std::span<const DenseInt8Product> products) {
  for (const DenseInt8Product& p : products) NARROW_TRY(check_product(x, p));
  const kernels::DenseInt8Rows& rows = x.rows();
  if (rows.m == 0) return {};
  std::int64_t panels = 0;
  for (const DenseInt8Product& p : products) panels += panels_of(p.weight->n());
  // Items of at least 8 KB and at most 256 KB of weights (more where many tokens pass by each item), several
  // per thread so that none waits long for another's last one, and of whole pairs of panels, which the
  // kernels take together.
  const auto panel_bytes = static_cast<std::int64_t>(kernel().panel_bytes(rows.k));
  const std::int64_t fair = panels / (6 * thread_count());
  const std::int64_t least = std::max<std::int64_t>(8 * 1024 / panel_bytes, 2);
  const std::int64_t most = std::max<std::int64_t>((rows.m < 64 ? 256 : 512) * 1024 / panel_bytes, least);
  const std::int64_t per_item = (std::clamp(fair, least, most) + 1) / 2 * 2;

  std::int64_t items = 0;
  for (const DenseInt8Product& p : products) items += (panels_of(p.weight->n()) + per_item - 1) / per_item;
  parallel_for(items, [&rows, products, per_item, panel_bytes](std::int64_t item, int /*thread*/) {
    const DenseInt8Product* p = products.data();
    for (;; ++p) {
      const std::int64_t own = (panels_of(p->weight->n()) + per_item - 1) / per_item;
      if (item < own) break;
      item -= own;
    }
    const std::int64_t panel = item * per_item, begin = panel * kPanelRows;
    kernel().multiply(p->weight->panels() + panel * panel_bytes,
                      std::min(per_item * kPanelRows, p->weight->n() - begin), rows, p->out.data + begin,
                      p->out.stride);
  });
  return {};
}

Status matmul(const DenseInt8Activations& x, const DenseInt8Weight& weight, Matrix out) {
  const DenseInt8Product product{&weight, out};
  return matmul(x, std::span<const DenseInt8Product>(&product, 1));
}

}  // namespace narrow::ops
