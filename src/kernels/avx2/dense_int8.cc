#include "kernels/avx2/dense_int8.h"

#include <immintrin.h>

#include "kernels/generic/dense_int8.h"

namespace narrow::kernels::avx2 {
namespace {

using generic::DenseInt8Row;
using generic::DenseInt8Trailer;

// Register tile: one panel x 2 tokens are 8 accumulators beside 4 vectors of weights. Codes go through int16,
// since the instruction for bytes saturates: unsigned 255 * 127 twice is beyond an int16.
constexpr int kTileTokens = 2;

inline __m256i load_i32(const std::int32_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}

template <int T>
void tile(const std::byte* panel, std::int64_t n_rows, const DenseInt8Rows& x, std::int64_t t, float* out,
          std::int64_t out_stride) {
  const std::int64_t padded = dense_int8_padded(x.k), stride = dense_int8_stride(x.k);
  __m256i acc[T][4];
#pragma GCC unroll 16
  for (int j = 0; j < T; ++j) {
#pragma GCC unroll 16
    for (int v = 0; v < 4; ++v) acc[j][v] = _mm256_setzero_si256();
  }
  for (std::int64_t i = 0; i < padded; i += 4) {
    __m256i w[4];  // 4 features x 4 elements each
#pragma GCC unroll 16
    for (int v = 0; v < 4; ++v) {
      w[v] = _mm256_cvtepu8_epi16(_mm_load_si128(reinterpret_cast<const __m128i*>(panel + i * 16 + v * 16)));
    }
#pragma GCC unroll 16
    for (int j = 0; j < T; ++j) {
      std::int32_t four;
      __builtin_memcpy(&four, x.q + (t + j) * stride + i, sizeof four);
      const __m256i a = _mm256_cvtepi8_epi16(_mm_set1_epi32(four));
#pragma GCC unroll 16
      for (int v = 0; v < 4; ++v) acc[j][v] = _mm256_add_epi32(acc[j][v], _mm256_madd_epi16(w[v], a));
    }
  }
  const auto* trailer = reinterpret_cast<const DenseInt8Trailer*>(panel + padded * 16);
#pragma GCC unroll 16
  for (int j = 0; j < T; ++j) {
    alignas(32) float y[16];
    const __m256i sum = _mm256_set1_epi32(x.sum[t + j]), zero = _mm256_set1_epi32(x.zero[t + j]);
#pragma GCC unroll 16
    for (int half = 0; half < 2; ++half) {
      // Two partial sums per feature, and the order of features within 128-bit halves, are put right.
      const __m256i pairs = _mm256_hadd_epi32(acc[j][2 * half], acc[j][2 * half + 1]);
      __m256i sums = _mm256_permute4x64_epi64(pairs, _MM_SHUFFLE(3, 1, 2, 0));
      sums = _mm256_sub_epi32(sums, _mm256_mullo_epi32(load_i32(trailer->zero + 8 * half), sum));
      sums = _mm256_sub_epi32(sums, _mm256_mullo_epi32(load_i32(trailer->sum + 8 * half), zero));
      const __m256 scale =
          _mm256_mul_ps(_mm256_set1_ps(x.scale[t + j]), _mm256_loadu_ps(trailer->scale + 8 * half));
      _mm256_store_ps(y + 8 * half, _mm256_mul_ps(scale, _mm256_cvtepi32_ps(sums)));
    }
    float* row = out + (t + j) * out_stride;
    if (n_rows >= 16) {
      _mm256_storeu_ps(row, _mm256_load_ps(y));
      _mm256_storeu_ps(row + 8, _mm256_load_ps(y + 8));
    } else {
      for (std::int64_t n = 0; n < n_rows; ++n) row[n] = y[n];
    }
  }
}

void multiply(const std::byte* panels, std::int64_t n_rows, const DenseInt8Rows& x, float* out,
              std::int64_t out_stride) {
  const std::int64_t panel_size = generic::dense_int8_panel_size(x.k);
  for (std::int64_t n = 0; n < n_rows; n += 16, panels += panel_size) {
    std::int64_t t = 0;
    for (; t + kTileTokens <= x.m; t += kTileTokens) {
      tile<kTileTokens>(panels, n_rows - n, x, t, out + n, out_stride);
    }
    if (t < x.m) tile<1>(panels, n_rows - n, x, t, out + n, out_stride);
  }
}

// 8 values, or the `left` < 8 that remain and zeros.
inline __m256 load_row(const float* x, std::int64_t left) {
  if (left >= 8) return _mm256_loadu_ps(x);
  float tail[8] = {};
  for (std::int64_t i = 0; i < left; ++i) tail[i] = x[i];
  return _mm256_loadu_ps(tail);
}

void quantize_row(const DenseInt8Scheme& scheme, const float* x, std::int64_t k, std::int8_t* q, float* scale,
                  std::int32_t* zero, std::int32_t* sum) {
  __m256 low = _mm256_setzero_ps(), high = low, unordered = low;
  for (std::int64_t i = 0; i < k; i += 8) {
    const __m256 v = load_row(x + i, k - i);
    low = _mm256_min_ps(low, v);
    high = _mm256_max_ps(high, v);
    unordered = _mm256_or_ps(unordered, _mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  }
  float lows[8], highs[8], lo = 0.0f, hi = 0.0f;
  _mm256_storeu_ps(lows, low);
  _mm256_storeu_ps(highs, high);
  for (int i = 0; i < 8; ++i) {
    lo = lows[i] < lo ? lows[i] : lo;
    hi = highs[i] > hi ? highs[i] : hi;
  }
  const DenseInt8Row row = generic::dense_int8_row(scheme, lo, hi, _mm256_movemask_ps(unordered) != 0);
  const __m256 inverse = _mm256_set1_ps(row.inverse);
  const __m256 z = _mm256_set1_ps(static_cast<float>(row.zero));
  const __m256 least = _mm256_set1_ps(scheme.asymmetric ? -128.0f : -127.0f);
  const __m256 most = _mm256_set1_ps(127.0f);
  __builtin_memset(q, 0, static_cast<std::size_t>(dense_int8_padded(k)));
  std::int32_t total = 0;
  for (std::int64_t i = 0; i < k && row.usable; i += 8) {
    const __m256 v = _mm256_mul_ps(load_row(x + i, k - i), inverse);
    __m256 code = _mm256_add_ps(_mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), z);
    code = _mm256_min_ps(_mm256_max_ps(code, least), most);
    alignas(32) std::int32_t codes[8];
    _mm256_store_si256(reinterpret_cast<__m256i*>(codes), _mm256_cvtps_epi32(code));
    const std::int64_t count = k - i < 8 ? k - i : 8;
    for (std::int64_t j = 0; j < count; ++j) {
      q[i + j] = static_cast<std::int8_t>(codes[j]);
      total += codes[j];
    }
  }
  *scale = row.scale;
  *zero = row.zero;
  *sum = total;
}

}  // namespace

const DenseInt8Kernel kDenseInt8 = {
    .quantize_row = quantize_row,
    .panel_bytes = generic::dense_int8_panel_bytes,
    .pack = generic::dense_int8_pack,
    .multiply = multiply,
};

}  // namespace narrow::kernels::avx2
