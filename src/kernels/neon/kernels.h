// ARMv8.2 kernels with the dot product instructions; kernel_table.h says what each computes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace narrow::kernels::neon {

float dot_f32(const float* x, const float* y, std::int64_t k);
void axpy_f32(float a, const float* x, float* y, std::int64_t k);

void rms_norm(const float* x, const float* gain, float eps, float* y, std::int64_t k);

void layer_norm(const float* x, const float* gain, const float* bias, float eps, float* y, std::int64_t k);

void rope_half(float* x, const float* cos, const float* sin, std::int64_t dims);
void rope_interleaved(float* x, const float* cos, const float* sin, std::int64_t dims);

void softmax(float* x, std::int64_t k);
void softcap(float* x, float cap, std::int64_t k);

void silu(float* x, std::int64_t k);
void gelu_tanh(float* x, std::int64_t k);
void gelu_erf(float* x, std::int64_t k);
void silu_mul(float* gate, const float* up, std::int64_t k);
void gelu_tanh_mul(float* gate, const float* up, std::int64_t k);

void quantize_row(const float* x, std::int64_t k, std::int8_t* q, float* scale, std::int32_t* sums);
void rms_norm_quantize(const float* x, const float* gain, float eps, std::int64_t k, std::int8_t* q,
                       float* scale, std::int32_t* sums);

std::int64_t int8_peak(std::int64_t rounds);

}  // namespace narrow::kernels::neon
