#include "quant/auto.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "quant/code_row.h"
#include "quant/gptq.h"
#include "quant/rows.h"
#include "quant/rtn.h"

namespace narrow::quant {
namespace {

constexpr std::int64_t kTrialRows = 64;
constexpr float kDampings[] = {0.1f, 0.3f, 1.0f};

}  // namespace

Status quantize_auto(const float* w, std::int64_t n, std::int64_t k, const LayerStats& stats,
                     const QuantizeSpec& spec, std::byte* out, WeightError* error) {
  NARROW_TRY(check_matrix("auto", spec.format, n, k, stats));
  if (!CodeRow::supports(spec.format)) return quantize_rtn(w, n, k, stats, spec, out, error);
  if (stats.held_out.empty() || n == 0) return quantize_gptq(w, n, k, stats, spec, out, error);

  const std::int64_t rows = std::min(n, kTrialRows);
  std::vector<float> sample(static_cast<std::size_t>(rows * k));
  for (std::int64_t r = 0; r < rows; ++r) std::copy_n(w + (r * n / rows) * k, k, sample.data() + r * k);
  std::vector<std::byte> stored(static_cast<std::size_t>(rows) * row_bytes(spec.format, k));
  LayerStats alone = stats;  // of rows here and there, which know nothing of each other
  alone.output = {};
  const auto trial = [&](auto method, const QuantizeSpec& with) -> Result<double> {
    NARROW_TRY(method(sample.data(), rows, k, alone, with, stored.data(), nullptr));
    return output_error(sample.data(), stored.data(), spec.format, rows, k, stats.held_out);
  };
  NARROW_ASSIGN(double least, trial(quantize_rtn, spec));
  QuantizeSpec best = spec;
  bool rtn = true;
  for (const float damping : kDampings) {
    QuantizeSpec with = spec;
    if (spec.damping <= 0) with.damping = damping;
    NARROW_ASSIGN(const double loss, trial(quantize_gptq, with));
    if (loss < least) {
      least = loss;
      best = with;
      rtn = false;
    }
    if (spec.damping > 0) break;
  }
  return rtn ? quantize_rtn(w, n, k, stats, best, out, error)
             : quantize_gptq(w, n, k, stats, best, out, error);
}

}  // namespace narrow::quant
