#include "quant/hqq.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/thread_team.h"
#include "quant/rows.h"

namespace narrow::quant {
namespace {

constexpr double kPower = 0.7;  // the paper's p
constexpr int kRounds = 8;
// The penalty in units of a block's RMS error, where an error of one RMS is shrunk to 0 at first. It grows so
// far that, in the last round, errors of half an RMS pass.
constexpr float kFirstPenalty = 1.0f, kGrowth = 1.25f;
constexpr std::int64_t kRows = 8;  // of a work item

struct Work {
  std::vector<float> decoded, target;
  std::vector<std::byte> stored;
};

// The target of the next round: w less the errors that are too large to be rounding.
void next_target(const float* w, const float* y, std::int64_t n, float penalty, float* target) {
  double squares = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const double d = static_cast<double>(w[i]) - static_cast<double>(y[i]);
    squares += d * d;
  }
  const float rms = static_cast<float>(std::sqrt(squares / static_cast<double>(n)));
  for (std::int64_t i = 0; i < n; ++i) {
    const float e = w[i] - y[i], size = rms > 0 ? std::fabs(e) / rms : 0.0f;
    const float kept =
        size > 0 ? std::max(size - std::pow(size, static_cast<float>(kPower) - 1.0f) / penalty, 0.0f) : 0.0f;
    target[i] = w[i] - std::copysign(kept * rms, e);
  }
}

void encode_block(const FormatInfo& info, const float* w, const EncodeOptions& options, Work& t,
                  std::byte* dst) {
  const auto n = static_cast<std::size_t>(info.block_size);
  t.decoded.resize(n);
  t.target.resize(n);
  t.stored.resize(static_cast<std::size_t>(info.block_bytes));
  info.encode(w, dst, info.block_size, options);
  info.decode(dst, t.decoded.data(), info.block_size);
  double best = half_quadratic_loss(w, t.decoded.data(), info.block_size);
  float penalty = kFirstPenalty;
  for (int round = 0; round < kRounds && best > 0; ++round, penalty *= kGrowth) {
    next_target(w, t.decoded.data(), info.block_size, penalty, t.target.data());
    info.encode(t.target.data(), t.stored.data(), info.block_size, options);
    info.decode(t.stored.data(), t.decoded.data(), info.block_size);
    const double loss = half_quadratic_loss(w, t.decoded.data(), info.block_size);
    if (!(loss < best)) continue;
    best = loss;
    std::memcpy(dst, t.stored.data(), t.stored.size());
  }
}

}  // namespace

double half_quadratic_loss(const float* a, const float* b, std::int64_t n) {
  double sum = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += std::pow(std::fabs(static_cast<double>(a[i] - b[i])), kPower);
  return sum;
}

Status quantize_hqq(const float* w, std::int64_t n, std::int64_t k, const LayerStats& stats,
                    const QuantizeSpec& spec, std::byte* out, WeightError* error) {
  NARROW_TRY(check_matrix("hqq", spec.format, n, k, {.output = stats.output}));
  const FormatInfo& info = format_info(spec.format);
  EncodeOptions options;
  options.search = spec.search;
  std::vector<Work> work(static_cast<std::size_t>(thread_count()));
  const auto encode = [&](const float* rows, std::int64_t count, std::byte* dst, int thread) -> Status {
    if (info.kind != FormatKind::kQuantized) {  // nothing to fit
      info.encode(rows, dst, count * k, options);
      return {};
    }
    const std::int64_t blocks = count * k / info.block_size;
    for (std::int64_t b = 0; b < blocks; ++b) {
      encode_block(info, rows + b * info.block_size, options, work[static_cast<std::size_t>(thread)],
                   dst + b * info.block_bytes);
    }
    return {};
  };
  return encode_stretches(w, n, k, spec.format, stats.output, kRows, encode, out, error);
}

}  // namespace narrow::quant
