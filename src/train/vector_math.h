// Elementary functions in a form that the compiler turns into vector code.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace narrow::train {

// e^x within 2e-7 of its value; 0 below -87.3, where floats end.
inline float exp_approx(float x) {
  const float clamped = x < -87.3f ? -87.3f : (x > 88.0f ? 88.0f : x);
  const float n = std::nearbyint(clamped * 1.44269504f);
  const float r = (clamped - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts (Cody and Waite)
  float p = 1.0f / 5040.0f;                                           // Taylor's series on |r| <= ln 2 / 2
  p = p * r + 1.0f / 720.0f;
  p = p * r + 1.0f / 120.0f;
  p = p * r + 1.0f / 24.0f;
  p = p * r + 1.0f / 6.0f;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const float power = std::bit_cast<float>((static_cast<std::int32_t>(n) + 127) << 23);
  return x < -87.3f ? 0.0f : p * power;
}

// The greatest of n > 0 numbers.
inline float greatest(const float* x, std::int64_t n) {
  float m = x[0];
#pragma omp simd reduction(max : m)
  for (std::int64_t i = 0; i < n; ++i) m = x[i] > m ? x[i] : m;
  return m;
}

// y = e^(x - shift); the sum of y. x and y may be the same.
inline float exp_row(const float* x, float shift, float* y, std::int64_t n) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < n; ++i) {
    y[i] = exp_approx(x[i] - shift);
    sum += y[i];
  }
  return sum;
}

inline float dot(const float* x, const float* y, std::int64_t n) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < n; ++i) sum += x[i] * y[i];
  return sum;
}

}  // namespace narrow::train
