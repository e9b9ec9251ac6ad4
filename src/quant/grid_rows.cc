#include "quant/grid_rows.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/scalar.h"

namespace narrow::quant {

GridRow::GridRow(Format format, std::int64_t k)
    : info_(&format_info(format)),
      codec_(formats::grid_codec(format)),
      levels_(codec_->levels.data()),
      n_levels_(static_cast<int>(codec_->levels.size())),
      block_(info_->block_size),
      group_(codec_->group),
      block_bytes_(static_cast<std::size_t>(info_->block_bytes)),
      k_(k),
      bytes_(row_bytes(format, k)),
      code_(static_cast<std::size_t>(k)),
      scale_(static_cast<std::size_t>(k / group_)),
      inverse_(scale_.size()),
      min_(scale_.size()) {}

std::uint8_t GridRow::nearest(float x, float inverse, float min) const {
  const float t = (x - min) * inverse;
  if (codec_->uniform) {
    const float c = std::nearbyint(t - levels_[0]);
    return static_cast<std::uint8_t>(std::clamp(c, 0.0f, static_cast<float>(n_levels_ - 1)));
  }
  int c = 0;
  while (c + 1 < n_levels_ && t > 0.5f * (levels_[c] + levels_[c + 1])) ++c;
  return static_cast<std::uint8_t>(c);
}

void GridRow::read(std::int64_t b) {
  const std::int64_t g = b * (block_ / group_);
  formats::read_grid(info_->format, block_bytes(b), scale_.data() + g, min_.data() + g);
  for (std::int64_t i = g; i < g + block_ / group_; ++i) {
    const auto at = static_cast<std::size_t>(i);
    inverse_[at] = scale_[at] != 0 ? 1.0f / scale_[at] : 0.0f;
    if (!std::isfinite(inverse_[at])) inverse_[at] = 0.0f;
  }
}

void GridRow::fit(std::int64_t b, const float* x, const float* importance, bool search) {
  EncodeOptions options;
  options.importance = importance;
  options.search = search;
  info_->encode(x, block_bytes(b), block_, options);
  read(b);
}

bool GridRow::directions(std::int64_t b, float* d, float* dmin, float* a, float* m) {
  if (!has_factors()) return false;
  std::byte* block = block_bytes(b);
  codec_->write(block, code_.data() + b * block_);
  const auto factor = [&](int offset) -> f16 {
    f16 v;
    std::memcpy(&v, block + offset, sizeof(v));
    return v;
  };
  const auto set = [&](int offset, f16 v) { std::memcpy(block + offset, &v, sizeof(v)); };
  const f16 one = to_f16(1.0f), zero = to_f16(0.0f);
  const f16 stored_d = factor(codec_->d_offset);
  const f16 stored_min = has_min() ? factor(codec_->dmin_offset) : zero;
  *d = to_f32(stored_d);
  *dmin = to_f32(stored_min);
  set(codec_->d_offset, one);
  if (has_min()) set(codec_->dmin_offset, zero);
  info_->decode(block, a, block_);
  if (has_min()) {
    set(codec_->d_offset, zero);
    set(codec_->dmin_offset, one);
    info_->decode(block, m, block_);
    set(codec_->dmin_offset, stored_min);
  }
  set(codec_->d_offset, stored_d);
  return true;
}

void GridRow::set_factors(std::int64_t b, float d, float dmin) {
  std::byte* block = block_bytes(b);
  const f16 hd = to_f16(d);
  std::memcpy(block + codec_->d_offset, &hd, sizeof(hd));
  if (has_min()) {
    const f16 hm = to_f16(dmin);
    std::memcpy(block + codec_->dmin_offset, &hm, sizeof(hm));
  }
  read(b);
}

void GridRow::store(std::byte* out) {
  for (std::int64_t b = 0; b < k_ / block_; ++b) codec_->write(block_bytes(b), code_.data() + b * block_);
  std::memcpy(out, bytes_.data(), bytes_.size());
}

}  // namespace narrow::quant
