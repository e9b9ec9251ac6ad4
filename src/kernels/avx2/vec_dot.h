// Products of one stored row and fp32 activations, decoded in registers. k is a multiple of the block size.
#pragma once

#include <cstddef>
#include <cstdint>

namespace narrow::kernels::avx2 {

float vec_dot_f16_f32(const std::byte* w, const float* x, std::int64_t k);
float vec_dot_bf16_f32(const std::byte* w, const float* x, std::int64_t k);
float vec_dot_q8_0_f32(const std::byte* w, const float* x, std::int64_t k);
float vec_dot_q4_0_f32(const std::byte* w, const float* x, std::int64_t k);
float vec_dot_q4_1_f32(const std::byte* w, const float* x, std::int64_t k);
float vec_dot_q5_0_f32(const std::byte* w, const float* x, std::int64_t k);
float vec_dot_q5_1_f32(const std::byte* w, const float* x, std::int64_t k);
float vec_dot_iq4_nl_f32(const std::byte* w, const float* x, std::int64_t k);
float vec_dot_q4_k_f32(const std::byte* w, const float* x, std::int64_t k);
float vec_dot_q5_k_f32(const std::byte* w, const float* x, std::int64_t k);
float vec_dot_q6_k_f32(const std::byte* w, const float* x, std::int64_t k);

}  // namespace narrow::kernels::avx2
