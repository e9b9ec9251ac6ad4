#include "formats/format.h"

#include <bit>

#include "formats/floats.h"
#include "formats/iq1_m.h"
#include "formats/iq1_s.h"
#include "formats/iq2_s.h"
#include "formats/iq2_xs.h"
#include "formats/iq2_xxs.h"
#include "formats/iq3_s.h"
#include "formats/iq3_xxs.h"
#include "formats/iq4_nl.h"
#include "formats/iq4_xs.h"
#include "formats/mxfp4.h"
#include "formats/q2_k.h"
#include "formats/q3_k.h"
#include "formats/q4_0.h"
#include "formats/q4_1.h"
#include "formats/q4_k.h"
#include "formats/q5_0.h"
#include "formats/q5_1.h"
#include "formats/q5_k.h"
#include "formats/q6_k.h"
#include "formats/q8_0.h"
#include "formats/tq1_0.h"
#include "formats/tq2_0.h"

namespace narrow {

static_assert(std::endian::native == std::endian::little, "block structs are read as they are on disk");

namespace {

using namespace formats;  // NOLINT: the table names every codec once

constexpr FormatInfo scalar_row(Format f, std::string_view name, int bytes, DecodeRow decode,
                                EncodeRow encode, float rms_budget) {
  return {f, name, FormatKind::kFloat, 1, bytes, decode, encode, rms_budget};
}

constexpr FormatInfo integer_row(Format f, std::string_view name, int bytes) {
  return {f, name, FormatKind::kInteger, 1, bytes, nullptr, nullptr, 0.0f};
}

template <class Block>
constexpr FormatInfo block_row(Format f, std::string_view name, int block_size, DecodeRow decode,
                               EncodeRow encode, float rms_budget) {
  return {f,      name,      FormatKind::kQuantized, block_size, static_cast<int>(sizeof(Block)), decode,
          encode, rms_budget};
}

// clang-format off
constexpr FormatInfo kTable[] = {
    scalar_row(Format::kF32, "f32", 4, decode_f32, encode_f32, 0.0f),
    scalar_row(Format::kF16, "f16", 2, decode_f16, encode_f16, 2.2e-4f),
    scalar_row(Format::kBF16, "bf16", 2, decode_bf16, encode_bf16, 1.75e-3f),
    scalar_row(Format::kF64, "f64", 8, decode_f64, encode_f64, 0.0f),
    scalar_row(Format::kF8_E4M3, "f8_e4m3", 1, decode_f8_e4m3, nullptr, 0.0f),
    scalar_row(Format::kF8_E5M2, "f8_e5m2", 1, decode_f8_e5m2, nullptr, 0.0f),

    block_row<BlockQ4_0>(Format::kQ4_0, "q4_0", 32, decode_q4_0, encode_q4_0, 0.086f),
    block_row<BlockQ4_1>(Format::kQ4_1, "q4_1", 32, decode_q4_1, encode_q4_1, 0.073f),
    block_row<BlockQ5_0>(Format::kQ5_0, "q5_0", 32, decode_q5_0, encode_q5_0, 0.0425f),
    block_row<BlockQ5_1>(Format::kQ5_1, "q5_1", 32, decode_q5_1, encode_q5_1, 0.0355f),
    block_row<BlockQ8_0>(Format::kQ8_0, "q8_0", 32, decode_q8_0, encode_q8_0, 0.005f),

    block_row<BlockQ2_K>(Format::kQ2_K, "q2_k", kSuperBlock, decode_q2_k, encode_q2_k, 0.275f),
    block_row<BlockQ3_K>(Format::kQ3_K, "q3_k", kSuperBlock, decode_q3_k, encode_q3_k, 0.152f),
    block_row<BlockQ4_K>(Format::kQ4_K, "q4_k", kSuperBlock, decode_q4_k, encode_q4_k, 0.0735f),
    block_row<BlockQ5_K>(Format::kQ5_K, "q5_k", kSuperBlock, decode_q5_k, encode_q5_k, 0.036f),
    block_row<BlockQ6_K>(Format::kQ6_K, "q6_k", kSuperBlock, decode_q6_k, encode_q6_k, 0.0176f),

    block_row<BlockIQ1_S>(Format::kIQ1_S, "iq1_s", kSuperBlock, decode_iq1_s, encode_iq1_s, 0.48f),
    block_row<BlockIQ1_M>(Format::kIQ1_M, "iq1_m", kSuperBlock, decode_iq1_m, encode_iq1_m, 0.445f),
    block_row<BlockIQ2_XXS>(Format::kIQ2_XXS, "iq2_xxs", kSuperBlock, decode_iq2_xxs, encode_iq2_xxs, 0.345f),
    block_row<BlockIQ2_XS>(Format::kIQ2_XS, "iq2_xs", kSuperBlock, decode_iq2_xs, encode_iq2_xs, 0.3f),
    block_row<BlockIQ2_S>(Format::kIQ2_S, "iq2_s", kSuperBlock, decode_iq2_s, encode_iq2_s, 0.253f),
    block_row<BlockIQ3_XXS>(Format::kIQ3_XXS, "iq3_xxs", kSuperBlock, decode_iq3_xxs, encode_iq3_xxs, 0.187f),
    block_row<BlockIQ3_S>(Format::kIQ3_S, "iq3_s", kSuperBlock, decode_iq3_s, encode_iq3_s, 0.136f),
    block_row<BlockIQ4_NL>(Format::kIQ4_NL, "iq4_nl", 32, decode_iq4_nl, encode_iq4_nl, 0.077f),
    block_row<BlockIQ4_XS>(Format::kIQ4_XS, "iq4_xs", kSuperBlock, decode_iq4_xs, encode_iq4_xs, 0.0775f),

    block_row<BlockTQ1_0>(Format::kTQ1_0, "tq1_0", kSuperBlock, decode_tq1_0, encode_tq1_0, 0.46f),
    block_row<BlockTQ2_0>(Format::kTQ2_0, "tq2_0", kSuperBlock, decode_tq2_0, encode_tq2_0, 0.46f),
    block_row<BlockMXFP4>(Format::kMXFP4, "mxfp4", 32, decode_mxfp4, encode_mxfp4, 0.118f),

    integer_row(Format::kI8, "i8", 1),
    integer_row(Format::kI16, "i16", 2),
    integer_row(Format::kI32, "i32", 4),
    integer_row(Format::kI64, "i64", 8),
    integer_row(Format::kU8, "u8", 1),
    integer_row(Format::kU16, "u16", 2),
    integer_row(Format::kU32, "u32", 4),
    integer_row(Format::kU64, "u64", 8),
    integer_row(Format::kBool, "bool", 1),
};
// clang-format on

constexpr char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

bool equal_without_case(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (lower(a[i]) != lower(b[i])) return false;
  }
  return true;
}

const FormatInfo* find_id(std::uint32_t id) {
  for (const FormatInfo& row : kTable) {
    if (static_cast<std::uint32_t>(row.format) == id) return &row;
  }
  return nullptr;
}

Status check_length(const FormatInfo& info, std::int64_t k) {
  if (k < 0 || k % info.block_size != 0) {
    return make_error(ErrorCode::kInvalidArgument, "{}: row length {} is not a multiple of its block of {}",
                      info.name, k, info.block_size);
  }
  return {};
}

}  // namespace

std::span<const FormatInfo> all_formats() { return kTable; }

const FormatInfo& format_info(Format f) {
  const FormatInfo* row = find_id(static_cast<std::uint32_t>(f));
  assert(row != nullptr);
  return *row;
}

const FormatInfo* find_format(std::uint32_t gguf_id) {
  return gguf_id < kFirstPrivateId ? find_id(gguf_id) : nullptr;
}

const FormatInfo* find_format(std::string_view name) {
  for (const FormatInfo& row : kTable) {
    if (equal_without_case(row.name, name)) return &row;
  }
  return nullptr;
}

std::size_t row_bytes(Format f, std::int64_t k) {
  const FormatInfo& info = format_info(f);
  return static_cast<std::size_t>(k / info.block_size) * static_cast<std::size_t>(info.block_bytes);
}

Status decode_row(Format f, const std::byte* src, float* dst, std::int64_t k) {
  const FormatInfo& info = format_info(f);
  if (info.decode == nullptr) {
    return make_error(ErrorCode::kUnsupported, "{}: integers do not decode to weights", info.name);
  }
  NARROW_TRY(check_length(info, k));
  info.decode(src, dst, k);
  return {};
}

Status encode_row(Format f, const float* src, std::byte* dst, std::int64_t k, const EncodeOptions& options) {
  const FormatInfo& info = format_info(f);
  if (info.encode == nullptr) {
    return make_error(ErrorCode::kUnsupported, "{}: narrow reads this type but does not write it", info.name);
  }
  NARROW_TRY(check_length(info, k));
  info.encode(src, dst, k, options);
  return {};
}

std::int64_t find_non_finite(const float* x, std::int64_t k) {
  // All exponent bits set: NaN or infinity. Chunks keep the common path free of branches.
  constexpr std::int64_t kChunk = 256;
  for (std::int64_t i = 0; i < k; i += kChunk) {
    const std::int64_t end = i + kChunk < k ? i + kChunk : k;
    std::uint32_t bad = 0;
    for (std::int64_t j = i; j < end; ++j) {
      bad |= (std::bit_cast<std::uint32_t>(x[j]) & 0x7f800000u) == 0x7f800000u ? 1u : 0u;
    }
    if (bad == 0) continue;
    for (std::int64_t j = i; j < end; ++j) {
      if ((std::bit_cast<std::uint32_t>(x[j]) & 0x7f800000u) == 0x7f800000u) return j;
    }
  }
  return -1;
}

}  // namespace narrow
