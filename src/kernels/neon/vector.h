// Pieces that the NEON kernels share. Everything is static: this code must stay in its own translation units.
#pragma once

#include <arm_neon.h>

#include <cstdint>

namespace narrow::kernels::neon {

// The sum of 64 lanes (generic/lanes.h), lane i in element i % 4 of s[i / 4].
static inline float sum_lanes(float32x4_t (&s)[16]) {
  for (int j = 0; j < 8; ++j) s[j] = vaddq_f32(s[j], s[j + 8]);
  for (int j = 0; j < 4; ++j) s[j] = vaddq_f32(s[j], s[j + 4]);
  const float32x4_t four = vaddq_f32(vaddq_f32(s[0], s[2]), vaddq_f32(s[1], s[3]));
  const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
  return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}

// Sums up k elements in lanes. add(i, s) gives s with the elements i .. i + 3 added, add_one(i, s) the number
// s with element i added.
template <class Add, class AddOne>
static inline float sum_row(std::int64_t k, Add add, AddOne add_one) {
  float32x4_t s[16];
  for (float32x4_t& v : s) v = vdupq_n_f32(0.0f);
  std::int64_t i = 0;
  for (; i + 64 <= k; i += 64) {
    for (int j = 0; j < 16; ++j) s[j] = add(i + 4 * j, s[j]);
  }
  for (int j = 0; j < 16; ++j) {
    if (i + 4 * j + 4 <= k) s[j] = add(i + 4 * j, s[j]);
  }
  if (k % 4 != 0) {
    float lanes[64];
    for (int j = 0; j < 16; ++j) vst1q_f32(lanes + 4 * j, s[j]);
    for (i = k / 4 * 4; i < k; ++i) lanes[i % 64] = add_one(i, lanes[i % 64]);
    for (int j = 0; j < 16; ++j) s[j] = vld1q_f32(lanes + 4 * j);
  }
  return sum_lanes(s);
}

// generic/exp.h, bit for bit; the minimum keeps NaN.
static inline float32x4_t exp_ps(float32x4_t x) {
  const uint32x4_t underflow = vcltq_f32(x, vdupq_n_f32(-87.3f));
  x = vminq_f32(x, vdupq_n_f32(88.3f));
  const float32x4_t n = vrndnq_f32(vmulq_f32(x, vdupq_n_f32(1.44269504088896341f)));
  float32x4_t r = vfmsq_f32(x, n, vdupq_n_f32(0.693359375f));
  r = vfmsq_f32(r, n, vdupq_n_f32(-2.12194440e-4f));
  float32x4_t p = vdupq_n_f32(1.9875691500e-4f);
  p = vfmaq_f32(vdupq_n_f32(1.3981999507e-3f), p, r);
  p = vfmaq_f32(vdupq_n_f32(8.3334519073e-3f), p, r);
  p = vfmaq_f32(vdupq_n_f32(4.1665795894e-2f), p, r);
  p = vfmaq_f32(vdupq_n_f32(1.6666665459e-1f), p, r);
  p = vfmaq_f32(vdupq_n_f32(5.0000001201e-1f), p, r);
  p = vfmaq_f32(vaddq_f32(r, vdupq_n_f32(1.0f)), p, vmulq_f32(r, r));
  const int32x4_t exponent = vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)), 23);
  const float32x4_t e = vmulq_f32(p, vreinterpretq_f32_s32(exponent));
  return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(e), underflow));
}

static inline float32x4_t silu_ps(float32x4_t v) {
  return vdivq_f32(v, vaddq_f32(vdupq_n_f32(1.0f), exp_ps(vnegq_f32(v))));
}

// 0.5 (1 + tanh(u)) = 1 / (1 + e^-2u), with u = sqrt(2 / pi) (x + 0.044715 x^3).
static inline float32x4_t gelu_tanh_ps(float32x4_t v) {
  const float32x4_t inner = vfmaq_f32(v, vmulq_n_f32(vmulq_f32(v, v), 0.044715f), v);
  const float32x4_t e = exp_ps(vmulq_n_f32(inner, -2.0f * 0.79788456080286536f));
  return vdivq_f32(v, vaddq_f32(vdupq_n_f32(1.0f), e));
}

// generic/activation.cc says why.
static inline float32x4_t gelu_erf_ps(float32x4_t v) {
  const float32x4_t size = vminq_f32(vabsq_f32(v), vdupq_n_f32(100.0f)), one = vdupq_n_f32(1.0f);
  const float32x4_t z = vmulq_n_f32(size, 0.70710678118654752f);
  const float32x4_t t = vdivq_f32(one, vfmaq_n_f32(one, z, 0.3275911f));
  float32x4_t p = vdupq_n_f32(1.061405429f);
  p = vfmaq_f32(vdupq_n_f32(-1.453152027f), p, t);
  p = vfmaq_f32(vdupq_n_f32(1.421413741f), p, t);
  p = vfmaq_f32(vdupq_n_f32(-0.284496736f), p, t);
  p = vfmaq_f32(vdupq_n_f32(0.254829592f), p, t);
  const float32x4_t erfc = vmulq_f32(vmulq_f32(p, t), exp_ps(vnegq_f32(vmulq_f32(z, z))));
  return vfmsq_f32(vmaxq_f32(v, vdupq_n_f32(0.0f)), vmulq_n_f32(size, 0.5f), erfc);
}

// In place over k values, four at a time; the last few go through a padded buffer.
template <class F>
static inline void map_ps(float* x, std::int64_t k, F f) {
  std::int64_t i = 0;
  for (; i + 4 <= k; i += 4) vst1q_f32(x + i, f(vld1q_f32(x + i)));
  if (i == k) return;
  float tail[4] = {};
  for (std::int64_t j = i; j < k; ++j) tail[j - i] = x[j];
  vst1q_f32(tail, f(vld1q_f32(tail)));
  for (std::int64_t j = i; j < k; ++j) x[j] = tail[j - i];
}

// x[i] = f(x[i]) * y[i], likewise.
template <class F>
static inline void map_mul_ps(float* x, const float* y, std::int64_t k, F f) {
  std::int64_t i = 0;
  for (; i + 4 <= k; i += 4) vst1q_f32(x + i, vmulq_f32(f(vld1q_f32(x + i)), vld1q_f32(y + i)));
  if (i == k) return;
  float tail[4] = {};
  for (std::int64_t j = i; j < k; ++j) tail[j - i] = x[j];
  vst1q_f32(tail, f(vld1q_f32(tail)));
  for (std::int64_t j = i; j < k; ++j) x[j] = tail[j - i] * y[j];
}

}  // namespace narrow::kernels::neon
