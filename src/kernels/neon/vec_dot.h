// Products of one stored row and fp32 activations, decoded in registers. They equal dot_f32 of the decoded
// row bit for bit.
#pragma once

#include <cstddef>
#include <cstdint>

namespace narrow::kernels::neon {

float vec_dot_f16_f32(const std::byte* w, const float* x, std::int64_t k);
float vec_dot_bf16_f32(const std::byte* w, const float* x, std::int64_t k);

}  // namespace narrow::kernels::neon
