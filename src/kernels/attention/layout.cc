#include "kernels/attention.h"

namespace narrow::kernels {
namespace {

constexpr bool is_quantized(Format f) { return f == Format::kQ8_0 || f == Format::kQ4_0; }

Status check(const char* what, Format f, std::int64_t head_dim) {
  if (f != Format::kF32 && f != Format::kF16 && !is_quantized(f)) {
    return make_error(ErrorCode::kUnsupported,
                      "KV cache: {} cannot be stored as {}; use f32, f16, q8_0 or q4_0", what,
                      format_info(f).name);
  }
  if (is_quantized(f) && head_dim % 32 != 0) {
    return make_error(
        ErrorCode::kUnsupported,
        "KV cache: {} as {} need a head size that is a multiple of 32, this model's is {}; use f16", what,
        format_info(f).name, head_dim);
  }
  return {};
}

std::size_t round_up(std::size_t n, std::size_t to) { return (n + to - 1) / to * to; }

}  // namespace

Result<HeadLayout> head_layout(Format keys, Format values, std::int64_t head_dim, bool rotate_keys) {
  if (head_dim < 1 || head_dim > kMaxHeadDim) {
    return make_error(ErrorCode::kUnsupported, "KV cache: head size {} is not in 1 .. {}", head_dim,
                      kMaxHeadDim);
  }
  NARROW_TRY(check("keys", keys, head_dim));
  NARROW_TRY(check("values", values, head_dim));
  HeadLayout l;
  l.keys = keys;
  l.values = values;
  l.head_dim = head_dim;
  l.padded_dim = static_cast<std::int64_t>(round_up(static_cast<std::size_t>(head_dim), kPanelPositions));
  if (rotate_keys) l.rotation = head_dim & -head_dim;
  // A panel of keys takes what its 16 positions take as rows.
  l.panel_bytes = kPanelPositions * row_bytes(keys, head_dim);
  l.value_row_bytes = row_bytes(values, is_quantized(values) ? head_dim : l.padded_dim);
  l.values_offset = round_up(static_cast<std::size_t>(kPagePositions / kPanelPositions) * l.panel_bytes, 64);
  l.bytes = l.values_offset + round_up(static_cast<std::size_t>(kPagePositions) * l.value_row_bytes, 64);
  return l;
}

std::size_t attention_scratch_floats(const HeadLayout& layout, std::int64_t rows) {
  // Scores of one tile and its factors, a page of keys and of values as floats, queries, sums by lane
  // (flash.h).
  const std::int64_t floats = kAttentionTileFloats + 2 * kPagePositions * layout.padded_dim +
                              (rows * layout.head_dim + 15) / 16 * 16 + 16 * rows;
  return static_cast<std::size_t>(floats);
}

}  // namespace narrow::kernels
