#include "pipeline/inspect.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "base/aligned_buffer.h"
#include "base/thread_team.h"
#include "formats/affine.h"
#include "pipeline/plan.h"
#include "pipeline/stored_tensors.h"
#include "quant/quantizer.h"

namespace narrow::pipeline {
namespace {

constexpr std::int64_t kTrialElements = std::int64_t{1} << 21;  // of a tensor, when trying formats on it

// Calls body(values, rows) for the tensor's rows in order, a bounded number at a time.
template <class Body>
Status for_each_chunk(const TensorView& view, const Body& body) {
  const std::int64_t rows = view.shape.rows(), k = view.shape.row_length();
  const std::int64_t chunk = std::min(rows, rows_per_chunk(k));
  AlignedBuffer<float> values(static_cast<std::size_t>(chunk * k));
  for (std::int64_t begin = 0; begin < rows; begin += chunk) {
    const std::int64_t n = std::min(chunk, rows - begin);
    for (std::int64_t r = 0; r < n; ++r)
      NARROW_TRY(decode_row(view.format, view.row(begin + r), values.data() + r * k, k));
    body(values.span().first(static_cast<std::size_t>(n * k)), begin);
  }
  return {};
}

Status add_moments(const TensorView& view, int bins, TensorStatistics& s) {
  double sum = 0;
  s.min = std::numeric_limits<double>::infinity();
  s.max = -s.min;
  NARROW_TRY(for_each_chunk(view, [&](std::span<const float> values, std::int64_t) {
    for (const float v : values) {
      if (!std::isfinite(v)) {
        ++s.non_finite;
        continue;
      }
      s.zeros += v == 0.0f ? 1 : 0;
      s.min = std::min<double>(s.min, v);
      s.max = std::max<double>(s.max, v);
      sum += v;
    }
  }));
  const std::uint64_t finite = s.elements - s.non_finite;
  s.histogram.assign(static_cast<std::size_t>(bins), 0);
  if (finite == 0) {
    s.min = s.max = 0;
    return {};
  }
  s.abs_max = std::max(std::fabs(s.min), std::fabs(s.max));
  s.mean = sum / static_cast<double>(finite);
  const double width = (s.max - s.min) / bins;
  double m2 = 0, m4 = 0;
  NARROW_TRY(for_each_chunk(view, [&](std::span<const float> values, std::int64_t) {
    for (const float v : values) {
      if (!std::isfinite(v)) continue;
      const double d = v - s.mean;
      m2 += d * d;
      m4 += d * d * d * d;
      const int bin = width > 0 ? static_cast<int>((v - s.min) / width) : 0;
      ++s.histogram[static_cast<std::size_t>(std::clamp(bin, 0, bins - 1))];
    }
  }));
  const double variance = m2 / static_cast<double>(finite);
  s.stddev = std::sqrt(variance);
  s.kurtosis = variance > 0 ? m4 / static_cast<double>(finite) / (variance * variance) : 0;
  return {};
}

TensorStatistics::Error error_row(std::string_view type, double bpw, const quant::WeightError& e) {
  return {std::string(type), bpw, e.relative_rms(), e.sqnr_db(), e.max_abs_error};
}

// Evenly spaced rows that make up at most kTrialElements values.
Result<std::vector<float>> sample_rows(const TensorView& view) {
  const std::int64_t rows = view.shape.rows(), k = view.shape.row_length();
  const std::int64_t n = std::clamp<std::int64_t>(kTrialElements / std::max<std::int64_t>(1, k), 1, rows);
  std::vector<float> out(static_cast<std::size_t>(n * k));
  for (std::int64_t i = 0; i < n; ++i) {
    NARROW_TRY(decode_row(view.format, view.row(i * rows / n), out.data() + i * k, k));
  }
  return out;
}

Result<std::vector<Format>> formats_to_try(const std::vector<std::string>& types, std::int64_t row_length) {
  std::vector<Format> out;
  for (const std::string& name : types) {
    NARROW_ASSIGN(const Format f, require_tensor_type("--types", name));
    if (row_length % format_info(f).block_size != 0) {
      return make_error(ErrorCode::kInvalidArgument,
                        "--types {}: rows of {} are no multiple of its blocks of {}", name, row_length,
                        format_info(f).block_size);
    }
    out.push_back(f);
  }
  if (!types.empty()) return out;
  for (const FormatInfo& f : all_formats()) {
    if (f.kind == FormatKind::kQuantized && f.can_encode() && row_length % f.block_size == 0)
      out.push_back(f.format);
  }
  return out;
}

// The textbook integers, so that what a finer granularity or a zero point buys can be seen beside the
// formats.
struct AffineTrial {
  std::string_view name;
  int bits;
  formats::AffineScope scope;
  std::int64_t group;
  formats::AffineMapping mapping;
};
constexpr AffineTrial kAffineTrials[] = {
    {"int8 per tensor", 8, formats::AffineScope::kTensor, 0, formats::AffineMapping::kSymmetric},
    {"int8 per channel", 8, formats::AffineScope::kRow, 0, formats::AffineMapping::kSymmetric},
    {"int4 per channel", 4, formats::AffineScope::kRow, 0, formats::AffineMapping::kSymmetric},
    {"int4 group 32", 4, formats::AffineScope::kGroup, 32, formats::AffineMapping::kSymmetric},
    {"uint4 group 32", 4, formats::AffineScope::kGroup, 32, formats::AffineMapping::kZeroPoint},
    {"uint3 group 32", 3, formats::AffineScope::kGroup, 32, formats::AffineMapping::kZeroPoint},
    {"uint2 group 32", 2, formats::AffineScope::kGroup, 32, formats::AffineMapping::kZeroPoint},
};

Status add_affine_trials(const std::vector<float>& rows, std::int64_t n, std::int64_t k,
                         TensorStatistics& s) {
  constexpr double kScaleBits =
      16;  // as stored by the formats that use such integers; zero points take `bits`
  std::vector<float> decoded(rows.size());
  for (const AffineTrial& t : kAffineTrials) {
    formats::AffineSpec spec;
    spec.bits = t.bits;
    spec.scope = t.scope;
    spec.group = t.group;
    spec.mapping = t.mapping;
    spec.range = formats::AffineRange::kLeastSquares;
    NARROW_ASSIGN(const formats::AffineQuantized q, formats::affine_quantize(rows.data(), n, k, spec));
    formats::affine_dequantize(q, decoded.data());
    quant::WeightError error;
    error.add_values(rows.data(), decoded.data(), n * k);
    const double per_scale = kScaleBits + (t.mapping == formats::AffineMapping::kZeroPoint ? t.bits : 0);
    const double bpw = t.bits + per_scale * static_cast<double>(q.scales.size()) / static_cast<double>(n * k);
    s.errors.push_back(error_row(t.name, bpw, error));
  }
  return {};
}

Status add_trials(const TensorView& view, const std::vector<std::string>& types, TensorStatistics& s) {
  NARROW_ASSIGN(const std::vector<Format> formats, formats_to_try(types, view.shape.row_length()));
  NARROW_ASSIGN(const std::vector<float> rows, sample_rows(view));
  const quant::Method* method = quant::find_method("rtn");
  if (method == nullptr) return make_error(ErrorCode::kInternal, "method rtn is not in the registry");
  const std::int64_t k = view.shape.row_length(), n = static_cast<std::int64_t>(rows.size()) / k;
  std::vector<std::byte> stored;
  for (const Format f : formats) {
    quant::WeightError error;
    quant::QuantizeSpec spec;
    spec.format = f;
    stored.resize(static_cast<std::size_t>(n) * row_bytes(f, k));
    NARROW_TRY(method->quantize(rows.data(), n, k, {}, spec, stored.data(), &error));
    s.errors.push_back(error_row(format_info(f).name, format_info(f).bpw(), error));
  }
  if (types.empty()) NARROW_TRY(add_affine_trials(rows, n, k, s));
  return {};
}

Status add_comparison(const TensorView& view, const std::filesystem::path& reference, TensorStatistics& s) {
  NARROW_ASSIGN(const StoredTensors other, StoredTensors::open(reference));
  const auto at = other.find(s.name);
  if (!at.ok()) return with_context(at.error(), reference.string());
  const TensorView truth = other.view(*at);
  if (truth.shape != view.shape) {
    return make_error(ErrorCode::kInvalidArgument, "tensor {} is {} here and {} in {}", s.name,
                      view.shape.text(), truth.shape.text(), reference.string());
  }
  const std::int64_t k = view.shape.row_length();
  std::vector<float> expected(static_cast<std::size_t>(k));
  quant::WeightError error;
  Status decoded;
  NARROW_TRY(for_each_chunk(view, [&](std::span<const float> values, std::int64_t begin) {
    const std::int64_t n = static_cast<std::int64_t>(values.size()) / k;
    for (std::int64_t r = 0; r < n && decoded.ok(); ++r) {
      decoded = decode_row(truth.format, truth.row(begin + r), expected.data(), k);
      if (decoded.ok()) error.add_values(expected.data(), values.data() + r * k, k);
    }
  }));
  NARROW_TRY(decoded);
  s.errors.push_back(error_row(s.type, format_info(view.format).bpw(), error));
  return {};
}

}  // namespace

Result<InspectReport> inspect_model(const std::filesystem::path& model) {
  NARROW_ASSIGN(StoredTensors stored, StoredTensors::open(model));
  InspectReport r;
  r.kind = stored.kind;
  r.architecture = stored.architecture;
  r.metadata = std::move(stored.metadata);
  r.file_bytes = stored.file_bytes;
  for (const TensorInfo& t : stored.tensors) {
    const FormatInfo& f = format_info(t.format);
    r.tensors.push_back({t.name, std::string(f.name), t.shape.dims(), t.bytes(), f.bpw()});
    r.parameters += static_cast<std::uint64_t>(t.shape.elements());
    r.tensor_bytes += t.bytes();
  }
  if (r.parameters > 0) r.bpw = 8.0 * static_cast<double>(r.tensor_bytes) / static_cast<double>(r.parameters);
  return r;
}

Result<TensorStatistics> inspect_tensor(const std::filesystem::path& model, const std::string& tensor,
                                        int bins, const std::vector<std::string>& types,
                                        const std::filesystem::path& reference) {
  constexpr int kMaxBins = 1000;
  if (bins < 1 || bins > kMaxBins) {
    return make_error(ErrorCode::kInvalidArgument, "bins {}: give a number from 1 to {}", bins, kMaxBins);
  }
  NARROW_ASSIGN(const StoredTensors stored, StoredTensors::open(model));
  const auto at = stored.find(tensor);
  if (!at.ok()) return with_context(at.error(), model.string());
  const TensorView view = stored.view(*at);
  TensorStatistics s;
  s.name = tensor;
  s.type = std::string(format_info(view.format).name);
  s.elements = static_cast<std::uint64_t>(view.shape.elements());
  if (s.elements == 0) return make_error(ErrorCode::kInvalidArgument, "tensor {} is empty", tensor);
  NARROW_TRY(add_moments(view, bins, s));
  if (!reference.empty()) {
    NARROW_TRY(add_comparison(view, reference, s));
  } else if (s.non_finite == 0) {
    NARROW_TRY(add_trials(view, types, s));
  }
  return s;
}

}  // namespace narrow::pipeline
