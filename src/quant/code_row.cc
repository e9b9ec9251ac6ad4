#include "quant/code_row.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/scalar.h"

namespace narrow::quant {
namespace {

f16 load_half(const std::byte* at) {
  f16 v;
  std::memcpy(&v, at, sizeof(v));
  return v;
}

void store_half(std::byte* at, f16 v) { std::memcpy(at, &v, sizeof(v)); }

}  // namespace

bool CodeRow::supports(Format format) {
  return formats::grid_codec(format) != nullptr || formats::unit_codec(format) != nullptr;
}

CodeRow::CodeRow(Format format, std::int64_t k)
    : info_(&format_info(format)),
      grid_(formats::grid_codec(format)),
      units_(formats::unit_codec(format)),
      unit_(grid_ != nullptr ? 1 : units_->unit),
      block_(info_->block_size),
      block_bytes_(static_cast<std::size_t>(info_->block_bytes)),
      k_(k),
      bytes_(row_bytes(format, k)) {
  if (grid_ == nullptr) {
    d_offset_ = units_->d_offset;
    return;
  }
  group_ = grid_->group;
  d_offset_ = grid_->d_offset;
  dmin_offset_ = grid_->dmin_offset;
  middle_.fill(std::numeric_limits<float>::infinity());
  if (!grid_->uniform) {
    for (std::size_t c = 0; c + 1 < grid_->levels.size(); ++c) {
      middle_[c] = 0.5f * (grid_->levels[c] + grid_->levels[c + 1]);
    }
  }
  codes_.resize(static_cast<std::size_t>(k));
  scale_.resize(static_cast<std::size_t>(k / group_));
  inverse_.resize(scale_.size());
  min_.resize(scale_.size());
}

std::uint8_t CodeRow::nearest(float x, std::size_t group) const {
  const float* levels = grid_->levels.data();
  const int last = static_cast<int>(grid_->levels.size()) - 1;
  const float t = (x - min_[group]) * inverse_[group];
  if (grid_->uniform) {
    return static_cast<std::uint8_t>(
        std::clamp(std::nearbyint(t - levels[0]), 0.0f, static_cast<float>(last)));
  }
  int c = 0;
  for (const float m : middle_) c += t > m ? 1 : 0;
  return static_cast<std::uint8_t>(c);
}

void CodeRow::read(std::int64_t b) {
  const std::int64_t first = b * (block_ / group_);
  formats::read_grid(info_->format, bytes_of(b), scale_.data() + first, min_.data() + first);
  for (std::int64_t i = first; i < first + block_ / group_; ++i) {
    const auto g = static_cast<std::size_t>(i);
    inverse_[g] = scale_[g] != 0 ? 1.0f / scale_[g] : 0.0f;
    if (!std::isfinite(inverse_[g])) inverse_[g] = 0.0f;
  }
}

void CodeRow::write(std::int64_t b) {
  if (grid_ != nullptr) grid_->write(bytes_of(b), codes_.data() + b * block_);
}

void CodeRow::fit(const float* x, const float* importance, bool search) {
  EncodeOptions options;
  options.importance = importance;
  options.search = search;
  info_->encode(x, bytes_.data(), k_, options);
  if (grid_ == nullptr) return;
  for (std::int64_t b = 0; b < k_ / block_; ++b) read(b);
  for (std::int64_t j = 0; j < k_; ++j) {
    codes_[static_cast<std::size_t>(j)] = nearest(x[j], static_cast<std::size_t>(j / group_));
  }
}

void CodeRow::encode_block(std::int64_t b, const float* x, const float* importance, bool search) {
  saved_bytes_.assign(bytes_of(b), bytes_of(b) + block_bytes_);
  EncodeOptions options;
  options.importance = importance;
  options.search = search;
  info_->encode(x, bytes_of(b), block_, options);
  if (grid_ == nullptr) return;
  const auto own = codes_.begin() + static_cast<std::ptrdiff_t>(b * block_);
  saved_codes_.assign(own, own + block_);
  read(b);
  for (std::int64_t j = 0; j < block_; ++j) {
    own[j] = nearest(x[j], static_cast<std::size_t>((b * block_ + j) / group_));
  }
}

void CodeRow::restore_block(std::int64_t b) {
  std::copy(saved_bytes_.begin(), saved_bytes_.end(), bytes_of(b));
  if (grid_ == nullptr) return;
  std::copy(saved_codes_.begin(), saved_codes_.end(),
            codes_.begin() + static_cast<std::ptrdiff_t>(b * block_));
  read(b);
}

void CodeRow::block_values(std::int64_t b, float* y) {
  if (grid_ == nullptr) {
    info_->decode(bytes_of(b), y, block_);
  } else {
    grid_values(b * block_, block_, y);
  }
}

void CodeRow::grid_values(std::int64_t begin, std::int64_t n, float* y) const {
  for (std::int64_t j = begin; j < begin + n; ++j) {
    const auto g = static_cast<std::size_t>(j / group_);
    *y++ = scale_[g] * grid_->levels[codes_[static_cast<std::size_t>(j)]] + min_[g];
  }
}

void CodeRow::decide(std::int64_t u, const float* x, const float* metric, float* y) {
  if (grid_ == nullptr) {
    const std::int64_t per_block = block_ / unit_;
    units_->decide(bytes_of(u / per_block), static_cast<int>(u % per_block), x, metric, y);
    return;
  }
  const auto g = static_cast<std::size_t>(u / group_);
  const std::uint8_t c = nearest(*x, g);
  codes_[static_cast<std::size_t>(u)] = c;
  *y = scale_[g] * grid_->levels[c] + min_[g];
}

void CodeRow::values(float* y) {
  if (grid_ == nullptr) {
    info_->decode(bytes_.data(), y, k_);
  } else {
    grid_values(0, k_, y);
  }
}

bool CodeRow::directions(std::int64_t b, float* d, float* dmin, float* a, float* m) {
  if (d_offset_ < 0) return false;
  std::byte* block = bytes_of(b);
  write(b);
  const f16 one = to_f16(1.0f), zero = to_f16(0.0f);
  const f16 stored_d = load_half(block + d_offset_);
  const f16 stored_min = has_min() ? load_half(block + dmin_offset_) : zero;
  *d = to_f32(stored_d);
  *dmin = to_f32(stored_min);
  store_half(block + d_offset_, one);
  if (has_min()) store_half(block + dmin_offset_, zero);
  info_->decode(block, a, block_);
  if (has_min()) {
    store_half(block + d_offset_, zero);
    store_half(block + dmin_offset_, one);
    info_->decode(block, m, block_);
    store_half(block + dmin_offset_, stored_min);
  }
  store_half(block + d_offset_, stored_d);
  return true;
}

void CodeRow::set_factors(std::int64_t b, float d, float dmin) {
  store_half(bytes_of(b) + d_offset_, to_f16(d));
  if (has_min()) store_half(bytes_of(b) + dmin_offset_, to_f16(dmin));
  if (grid_ != nullptr) read(b);
}

const std::byte* CodeRow::stored() {
  for (std::int64_t b = 0; b < k_ / block_; ++b) write(b);
  return bytes_.data();
}

}  // namespace narrow::quant
