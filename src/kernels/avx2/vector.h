// Pieces that the AVX2 kernels share. Everything is static: this code must stay in its own translation units.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace narrow::kernels::avx2 {

static inline float horizontal_max(__m256 v) {
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

// The sum of 64 lanes (generic/lanes.h), lane i in element i % 8 of s[i / 8].
static inline float sum_lanes(const __m256 (&s)[8]) {
  const __m256 low = _mm256_add_ps(_mm256_add_ps(s[0], s[4]), _mm256_add_ps(s[2], s[6]));
  const __m256 high = _mm256_add_ps(_mm256_add_ps(s[1], s[5]), _mm256_add_ps(s[3], s[7]));
  const __m256 v = _mm256_add_ps(low, high);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

// Sums up k elements in lanes. add(i, s) gives s with the elements i .. i + 7 added, add_one(i, s) the number
// s with element i added.
template <class Add, class AddOne>
static inline float sum_row(std::int64_t k, Add add, AddOne add_one) {
  __m256 s[8];
  for (int j = 0; j < 8; ++j) s[j] = _mm256_setzero_ps();
  std::int64_t i = 0;
  for (; i + 64 <= k; i += 64) {
    for (int j = 0; j < 8; ++j) s[j] = add(i + 8 * j, s[j]);
  }
  for (int j = 0; j < 8; ++j) {
    if (i + 8 * j + 8 <= k) s[j] = add(i + 8 * j, s[j]);
  }
  if (k % 8 != 0) {
    alignas(32) float lanes[64];
    for (int j = 0; j < 8; ++j) _mm256_store_ps(lanes + 8 * j, s[j]);
    for (i = k / 8 * 8; i < k; ++i) lanes[i % 64] = add_one(i, lanes[i % 64]);
    for (int j = 0; j < 8; ++j) s[j] = _mm256_load_ps(lanes + 8 * j);
  }
  return sum_lanes(s);
}

// generic/exp.h, bit for bit.
static inline __m256 exp_ps(__m256 x) {
  const __m256 underflow = _mm256_cmp_ps(x, _mm256_set1_ps(-87.3f), _CMP_LT_OQ);
  x = _mm256_min_ps(_mm256_set1_ps(88.3f), x);  // in this order NaN stays
  const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504088896341f)),
                                   _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), x);
  r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
  __m256 p = _mm256_set1_ps(1.9875691500e-4f);
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.3981999507e-3f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(8.3334519073e-3f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(4.1665795894e-2f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.6666665459e-1f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(5.0000001201e-1f));
  p = _mm256_fmadd_ps(p, _mm256_mul_ps(r, r), _mm256_add_ps(r, _mm256_set1_ps(1.0f)));
  const __m256i exponent =
      _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
  return _mm256_andnot_ps(underflow, _mm256_mul_ps(p, _mm256_castsi256_ps(exponent)));
}

// In place over k values, eight at a time; the last few go through a padded buffer.
template <class F>
static inline void map_ps(float* x, std::int64_t k, F f) {
  std::int64_t i = 0;
  for (; i + 8 <= k; i += 8) _mm256_storeu_ps(x + i, f(_mm256_loadu_ps(x + i)));
  if (i == k) return;
  alignas(32) float tail[8] = {};
  for (std::int64_t j = i; j < k; ++j) tail[j - i] = x[j];
  _mm256_store_ps(tail, f(_mm256_load_ps(tail)));
  for (std::int64_t j = i; j < k; ++j) x[j] = tail[j - i];
}

}  // namespace narrow::kernels::avx2
