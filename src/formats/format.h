// The closed list of stored number formats, one row each, and the row codec behind them.
// On-disk ids are ggml's (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, ggml_type); ids from
// kFirstPrivateId on never reach a GGUF file: they name safetensors types that GGUF lacks.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/result.h"

namespace narrow {

inline constexpr std::uint32_t kFirstPrivateId = 1000;

enum class Format : std::uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kIQ2_XXS = 16,
  kIQ2_XS = 17,
  kIQ3_XXS = 18,
  kIQ1_S = 19,
  kIQ4_NL = 20,
  kIQ3_S = 21,
  kIQ2_S = 22,
  kIQ4_XS = 23,
  kI8 = 24,
  kI16 = 25,
  kI32 = 26,
  kI64 = 27,
  kF64 = 28,
  kIQ1_M = 29,
  kBF16 = 30,
  kTQ1_0 = 34,
  kTQ2_0 = 35,
  kMXFP4 = 39,
  // safetensors only
  kU8 = kFirstPrivateId,
  kU16,
  kU32,
  kU64,
  kBool,
  kF8_E4M3,
  kF8_E5M2,
};

enum class FormatKind : std::uint8_t {
  kFloat,      // f32, f16, bf16, f64, f8: decodes to float
  kQuantized,  // blocks with scales: decodes to float
  kInteger,    // indices and masks: no decode to float
};

// Optional knobs of an encoder.
struct EncodeOptions {
  // One non-negative weight per element of the row (E[x^2] of the activations that meet it, or any other
  // importance); null means that the encoder weights elements by its own data-free rule.
  const float* importance = nullptr;
  // false: plain absmax or min/max scales (the textbook baseline); true: search for the scales.
  bool search = true;
};

using DecodeRow = void (*)(const std::byte* src, float* dst, std::int64_t k);
using EncodeRow = void (*)(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions& options);

// One row of the table. `encode` is null where narrow only reads a format; both are null for integers.
struct FormatInfo {
  Format format;
  std::string_view name;  // lower case, the name users type
  FormatKind kind;
  int block_size;   // elements per block; row lengths must be a multiple of it
  int block_bytes;  // stored bytes per block, scales included
  DecodeRow decode;
  EncodeRow encode;
  // Greatest accepted relative RMS error of encode on N(0,1) rows of 4096; tests hold every format to it.
  float rms_budget;

  constexpr double bpw() const { return 8.0 * block_bytes / block_size; }
  constexpr bool can_encode() const { return encode != nullptr; }
  constexpr bool in_gguf() const { return static_cast<std::uint32_t>(format) < kFirstPrivateId; }
};

// All rows, in a stable order (floats, then quantized by family, then integers).
std::span<const FormatInfo> all_formats();

// The row of a format that is in the enum.
const FormatInfo& format_info(Format f);
// Null for an unknown id or name. Names compare without case.
const FormatInfo* find_format(std::uint32_t gguf_id);
const FormatInfo* find_format(std::string_view name);

// Stored bytes of k elements. k must be a multiple of the block size.
std::size_t row_bytes(Format f, std::int64_t k);

// Decode k elements to fp32 (k a multiple of the block size). kUnsupported for integers.
Status decode_row(Format f, const std::byte* src, float* dst, std::int64_t k);

// Encode k finite fp32 elements. kUnsupported without an encoder, kInvalidArgument for a bad k.
// The caller checks for NaN and infinity (find_non_finite): encoders do not.
Status encode_row(Format f, const float* src, std::byte* dst, std::int64_t k,
                  const EncodeOptions& options = {});

// Index of the first NaN or infinity, or -1.
std::int64_t find_non_finite(const float* x, std::int64_t k);

}  // namespace narrow
