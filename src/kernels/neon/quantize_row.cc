#include "kernels/generic/kernels.h"
#include "kernels/neon/kernels.h"
#include "kernels/neon/vector.h"
#include "kernels/packed.h"

namespace narrow::kernels::neon {
namespace {

// One group of 32, bit for bit as generic/quantize_row.cc.
inline void quantize_group(const float* x, std::int8_t* q, float* scale, std::int32_t* sums) {
  float32x4_t v[8];
  for (int i = 0; i < 8; ++i) v[i] = vld1q_f32(x + 4 * i);
  // Magnitudes compare as integers; what is above infinity's bits is NaN.
  uint32x4_t bits = vdupq_n_u32(0);
  for (const float32x4_t& lane : v) bits = vmaxq_u32(bits, vreinterpretq_u32_f32(vabsq_f32(lane)));
  const std::uint32_t absmax_bits = vmaxvq_u32(bits);
  if (absmax_bits > 0x7f800000u) {
    generic::quantize_row(x, kActivationGroup, q, scale, sums);
    return;
  }
  float absmax;
  __builtin_memcpy(&absmax, &absmax_bits, sizeof(absmax));
  const float inverse = 127.0f / absmax;
  if (!(inverse < __builtin_inff())) {  // absmax is 0 or nearly so
    *scale = 0.0f;
    for (int i = 0; i < 2; ++i) {
      vst1q_s8(q + 16 * i, vdupq_n_s8(0));
      sums[i] = 0;
    }
    return;
  }
  *scale = absmax / 127.0f;
  for (int run = 0; run < 2; ++run) {
    // Nearest even; an infinity times an inverse of 0 is NaN and converts to 0.
    int32x4_t c[4];
    for (int i = 0; i < 4; ++i) c[i] = vcvtnq_s32_f32(vmulq_n_f32(v[4 * run + i], inverse));
    const int16x8_t low = vcombine_s16(vmovn_s32(c[0]), vmovn_s32(c[1]));
    const int16x8_t high = vcombine_s16(vmovn_s32(c[2]), vmovn_s32(c[3]));
    const int8x16_t codes = vcombine_s8(vmovn_s16(low), vmovn_s16(high));
    vst1q_s8(q + 16 * run, codes);
    sums[run] = vaddvq_s32(vdotq_s32(vdupq_n_s32(0), codes, vdupq_n_s8(1)));
  }
}

}  // namespace

void quantize_row(const float* x, std::int64_t k, std::int8_t* q, float* scale, std::int32_t* sums) {
  for (std::int64_t g = 0; g < k / kActivationGroup; ++g) {
    quantize_group(x + 32 * g, q + 32 * g, scale + g, sums + 2 * g);
  }
}

void rms_norm_quantize(const float* x, const float* gain, float eps, std::int64_t k, std::int8_t* q,
                       float* scale, std::int32_t* sums) {
  const float mean = dot_f32(x, x, k) / static_cast<float>(k);
  const float norm = 1.0f / __builtin_sqrtf(mean + eps);
  for (std::int64_t g = 0; g < k / kActivationGroup; ++g) {
    float y[kActivationGroup];
    for (int i = 0; i < kActivationGroup; i += 4) {
      vst1q_f32(y + i, vmulq_f32(vmulq_n_f32(vld1q_f32(x + 32 * g + i), norm), vld1q_f32(gain + 32 * g + i)));
    }
    quantize_group(y, q + 32 * g, scale + g, sums + 2 * g);
  }
}

}  // namespace narrow::kernels::neon
