#include "runtime/int8_parts.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace narrow::runtime {

using namespace model::int8_part;

Result<Int8Parts> Int8Parts::create(const model::ModelSource& source) {
  Int8Parts parts(source);
  if (!source.is_gguf()) return parts;
  NARROW_ASSIGN(const io::gguf::Metadata metadata, source.gguf_metadata());
  NARROW_ASSIGN(parts.settings_, model::int8_settings(metadata, source.path().string()));
  return parts;
}

Result<const std::byte*> Int8Parts::part(const std::string& name, const std::vector<Format>& formats,
                                         const Shape& shape, Format* format) {
  const std::optional<std::size_t> index = source_->find(name);
  if (!index) return static_cast<const std::byte*>(nullptr);
  const TensorInfo& info = source_->tensors()[*index];
  if (info.shape != shape || std::find(formats.begin(), formats.end(), info.format) == formats.end()) {
    return make_error(ErrorCode::kCorrupt, "{}: tensor '{}' is {} {}; {} {} is needed", file(), name,
                      format_info(info.format).name, info.shape.text(), format_info(formats.front()).name,
                      shape.text());
  }
  if (format != nullptr) *format = info.format;
  const auto it = std::find(used_.begin(), used_.end(), *index);
  if (it != used_.end()) return data_[static_cast<std::size_t>(it - used_.begin())];
  AlignedBuffer<std::byte>& buffer = storage_.emplace_back(info.bytes());
  NARROW_TRY(source_->read_raw(*index, 0, info.shape.rows(), buffer.data()));
  used_.push_back(*index);
  data_.push_back(buffer.data());
  return static_cast<const std::byte*>(buffer.data());
}

Status Int8Parts::attach(const std::string& stem, std::int64_t expert, std::int64_t n_expert,
                         ops::Weight& w) {
  if (settings_->weight_bits == 4) {
    // Rows of no whole blocks are stored as floats and multiplied in fp32.
    if (ops::packed_kernel(w.stored.format) == nullptr) return {};
    w.row_scale = true;
  }
  if (w.stored.format == Format::kI8) NARROW_TRY(attach_codes(stem, expert, n_expert, w));
  NARROW_TRY(attach_scheme(stem, w));
  return attach_outliers(stem, expert, n_expert, w);
}

Status Int8Parts::attach_codes(const std::string& stem, std::int64_t expert, std::int64_t n_expert,
                               ops::Weight& w) {
  const std::string name = stem + std::string(kWeightScale);
  const std::int64_t n = w.n();
  NARROW_ASSIGN(const std::byte* bytes,
                part(name, {Format::kF32}, n_expert > 1 ? Shape{n_expert, n} : Shape{n}, nullptr));
  if (bytes == nullptr) {
    return make_error(ErrorCode::kNotFound, "{}: tensor '{}' f32 is missing: '{}.weight' holds codes only",
                      file(), name, stem);
  }
  if (w.k() > kernels::kMaxDenseAsymmetricRows) {
    return make_error(ErrorCode::kUnsupported, "{}: tensor '{}.weight' has rows of {} codes; {} at most",
                      file(), stem, w.k(), kernels::kMaxDenseAsymmetricRows);
  }
  w.code_scales = reinterpret_cast<const float*>(bytes) + expert * n;
  for (std::int64_t i = 0; i < n; ++i) {
    if (std::isfinite(w.code_scales[i]) && w.code_scales[i] >= 0.0f) continue;
    return make_error(ErrorCode::kCorrupt, "{}: tensor '{}' holds {}; scales are finite and not negative",
                      file(), name, w.code_scales[i]);
  }
  return {};
}

Status Int8Parts::attach_scheme(const std::string& stem, ops::Weight& w) {
  w.scheme.asymmetric = settings_->asymmetric;
  if (!settings_->static_scales) return {};
  const std::string name = stem + std::string(kInputScale);
  NARROW_ASSIGN(const std::byte* scale, part(name, {Format::kF32}, Shape{1}, nullptr));
  if (scale == nullptr) {
    return make_error(ErrorCode::kNotFound, "{}: tensor '{}' f32 [1] is missing, and scales are static",
                      file(), name);
  }
  std::memcpy(&w.scheme.scale, scale, sizeof w.scheme.scale);
  if (!(w.scheme.scale > 0.0f) || !std::isfinite(w.scheme.scale) || !std::isfinite(1.0f / w.scheme.scale)) {
    return make_error(ErrorCode::kCorrupt, "{}: tensor '{}' holds {}; a scale is above 0 and finite", file(),
                      name, w.scheme.scale);
  }
  if (!settings_->asymmetric) return {};
  const std::string zero_name = stem + std::string(kInputZero);
  NARROW_ASSIGN(const std::byte* zero, part(zero_name, {Format::kI32}, Shape{1}, nullptr));
  if (zero == nullptr) return {};  // 0
  std::memcpy(&w.scheme.zero, zero, sizeof w.scheme.zero);
  if (w.scheme.zero < -128 || w.scheme.zero > 127) {
    return make_error(ErrorCode::kCorrupt, "{}: tensor '{}' holds {}; a zero point is -128 to 127", file(),
                      zero_name, w.scheme.zero);
  }
  return {};
}

Status Int8Parts::attach_outliers(const std::string& stem, std::int64_t expert, std::int64_t n_expert,
                                  ops::Weight& w) {
  const std::string name = stem + std::string(kOutlierIndex),
                    weight_name = stem + std::string(kOutlierWeight);
  const std::optional<std::size_t> index = source_->find(name);
  if (!index) return {};
  const std::int64_t count = source_->tensors()[*index].shape.elements();
  NARROW_ASSIGN(const std::byte* columns, part(name, {Format::kI32}, Shape{count}, nullptr));
  w.outliers = reinterpret_cast<const std::int32_t*>(columns);
  w.n_outliers = count;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int32_t before = i > 0 ? w.outliers[i - 1] : -1;
    if (w.outliers[i] > before && w.outliers[i] < w.k()) continue;
    return make_error(ErrorCode::kCorrupt,
                      "{}: tensor '{}' holds {} after {}; columns ascend and are below {}", file(), name,
                      w.outliers[i], before, w.k());
  }
  const Shape shape = n_expert > 1 ? Shape{n_expert, w.n(), count} : Shape{w.n(), count};
  Format format = Format::kF16;
  NARROW_ASSIGN(const std::byte* weights, part(weight_name, {Format::kF16, Format::kF32}, shape, &format));
  if (weights == nullptr) {
    // Then they are in the weight itself.
    if (w.code_scales == nullptr) return {};
    return make_error(ErrorCode::kNotFound, "{}: tensor '{}' is missing: '{}' names {} columns", file(),
                      weight_name, name, count);
  }
  const std::size_t expert_bytes = static_cast<std::size_t>(w.n()) * row_bytes(format, count);
  w.outlier_stored = {format, Shape{w.n(), count}, weights + static_cast<std::size_t>(expert) * expert_bytes};
  return {};
}

Status check_same_input(const std::string& file, const std::string& stem_a, const ops::Weight& a,
                        const std::string& stem_b, const ops::Weight& b) {
  const bool same = a.scheme.scale == b.scheme.scale && a.scheme.zero == b.scheme.zero &&
                    std::equal(a.outliers, a.outliers + a.n_outliers, b.outliers, b.outliers + b.n_outliers);
  if (same) return {};
  return make_error(ErrorCode::kCorrupt,
                    "{}: '{}' and '{}' share an input but not its scale and outlier columns", file, stem_a,
                    stem_b);
}

}  // namespace narrow::runtime
