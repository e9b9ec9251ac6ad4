// Unblocked floating-point formats, little-endian, one element per "block".
// f16 and bf16 round to nearest even; encode of f16 keeps finite what is finite only if |x| < 65520: casts
// that must count overflow use formats/cast.h. f8 (E4M3 without infinities, E5M2; OCP 8-bit floating
// point 1.0) is read only.
#pragma once

#include <cstddef>
#include <cstdint>

#include "formats/format.h"

namespace narrow::formats {

void decode_f32(const std::byte* src, float* dst, std::int64_t k);
void encode_f32(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions& options);
void decode_f16(const std::byte* src, float* dst, std::int64_t k);
void encode_f16(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions& options);
void decode_bf16(const std::byte* src, float* dst, std::int64_t k);
void encode_bf16(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions& options);
void decode_f64(const std::byte* src, float* dst, std::int64_t k);
void encode_f64(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions& options);
void decode_f8_e4m3(const std::byte* src, float* dst, std::int64_t k);
void decode_f8_e5m2(const std::byte* src, float* dst, std::int64_t k);

}  // namespace narrow::formats
