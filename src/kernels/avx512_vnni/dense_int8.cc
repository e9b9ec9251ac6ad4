#include "kernels/avx512_vnni/dense_int8.h"

#include <immintrin.h>

#include "kernels/avx512_vnni/vector.h"
#include "kernels/generic/dense_int8.h"

namespace narrow::kernels::avx512_vnni {
namespace {

using generic::DenseInt8Row;
using generic::DenseInt8Trailer;

// Register tile: 2 panels x 12 tokens are 24 accumulators, and each step of 4 elements loads 2 code vectors
// and broadcasts 12 activations for 24 products, so that with two load ports the two product ports are never
// starved; 24 independent sums cover the products' latency of 5 cycles many times.
constexpr int kTilePanels = 2, kTileTokens = 12;
constexpr std::int64_t kChunkBytes = 512 * 1024;

inline __m512i broadcast4(const std::int8_t* q) {
  std::int32_t four;
  __builtin_memcpy(&four, q, sizeof four);
  return _mm512_set1_epi32(four);
}

// sums += products of 4 unsigned codes w and 4 signed codes a per lane. Written as an instruction, because
// gcc 12 copies and spills accumulators around its intrinsic.
inline void multiply_add(__m512i& sums, __m512i w, __m512i a) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(w), "v"(a));
}

// Per panel: what the sums become.
struct Epilogue {
  __m512 scale;
  __m512i zero, sum;
  __mmask16 lanes;
  bool symmetric;  // zero is 128 everywhere: no need for slow multiplications of int32
};

inline Epilogue load_epilogue(const std::byte* trailer, std::int64_t n_rows) {
  const auto* t = reinterpret_cast<const DenseInt8Trailer*>(trailer);
  const __m512i zero = _mm512_load_si512(t->zero);
  return {_mm512_load_ps(t->scale), zero, _mm512_load_si512(t->sum),
          n_rows >= 16 ? static_cast<__mmask16>(0xffff) : tail_mask(n_rows),
          _mm512_cmpneq_epi32_mask(zero, _mm512_set1_epi32(128)) == 0};
}

inline void store(const Epilogue& e, __m512i sums, const DenseInt8Rows& x, std::int64_t t, float* out) {
  const __m512i row_sum = _mm512_set1_epi32(x.sum[t]);
  const __m512i offset = e.symmetric ? _mm512_slli_epi32(row_sum, 7) : _mm512_mullo_epi32(e.zero, row_sum);
  sums = _mm512_sub_epi32(sums, offset);
  if (x.zero[t] != 0) {
    sums = _mm512_sub_epi32(sums, _mm512_mullo_epi32(e.sum, _mm512_set1_epi32(x.zero[t])));
  }
  const __m512 scale = _mm512_mul_ps(_mm512_set1_ps(x.scale[t]), e.scale);
  _mm512_mask_storeu_ps(out, e.lanes, _mm512_mul_ps(scale, _mm512_cvtepi32_ps(sums)));
}

// P panels of which n_rows features are wanted, tokens t .. t + T.
template <int P, int T>
void tile(const std::byte* panels, std::int64_t n_rows, const DenseInt8Rows& x, std::int64_t t, float* out,
          std::int64_t out_stride) {
  const std::int64_t padded = dense_int8_padded(x.k), stride = dense_int8_stride(x.k);
  const std::int64_t panel_size = generic::dense_int8_panel_size(x.k);
  __m512i acc[P][T];
#pragma GCC unroll 16
  for (int p = 0; p < P; ++p) {
#pragma GCC unroll 16
    for (int i = 0; i < T; ++i) acc[p][i] = _mm512_setzero_si512();
  }
  // Rows are addressed as one pointer per three rows, plus 0, 1 or 2 strides: fewer registers than rows.
  constexpr int kPointers = (T + 2) / 3;
  const std::int8_t* q[kPointers];
#pragma GCC unroll 16
  for (int i = 0; i < kPointers; ++i) q[i] = x.q + (t + 3 * i) * stride;
  for (std::int64_t i = 0; i < padded; i += 4) {
    __m512i w[P];
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) w[p] = _mm512_load_si512(panels + p * panel_size + i * 16);
#pragma GCC unroll 16
    for (int j = 0; j < T; ++j) {
      const __m512i a = broadcast4(q[j / 3] + j % 3 * stride + i);
#pragma GCC unroll 16
      for (int p = 0; p < P; ++p) multiply_add(acc[p][j], w[p], a);
    }
  }
#pragma GCC unroll 16
  for (int p = 0; p < P; ++p) {
    const Epilogue e =
        load_epilogue(panels + (p + 1) * panel_size - sizeof(DenseInt8Trailer), n_rows - 16 * p);
#pragma GCC unroll 16
    for (int j = 0; j < T; ++j) {
      store(e, acc[p][j], x, t + j, out + (t + j) * out_stride + 16 * p);
    }
  }
}

using Tile = void (*)(const std::byte*, std::int64_t, const DenseInt8Rows&, std::int64_t, float*,
                      std::int64_t);
template <int P>
constexpr Tile kTiles[kTileTokens + 1] = {nullptr,     tile<P, 1>,  tile<P, 2>, tile<P, 3>, tile<P, 4>,
                                          tile<P, 5>,  tile<P, 6>,  tile<P, 7>, tile<P, 8>, tile<P, 9>,
                                          tile<P, 10>, tile<P, 11>, tile<P, 12>};

// One token: the time is that of reading the panel, in order; four sums cover the products' latency.
void single(const std::byte* panel, std::int64_t n_rows, const DenseInt8Rows& x, float* out) {
  const std::int64_t padded = dense_int8_padded(x.k);
  __m512i acc[4];
#pragma GCC unroll 16
  for (int i = 0; i < 4; ++i) acc[i] = _mm512_setzero_si512();
  for (std::int64_t i = 0; i < padded; i += 16) {
#pragma GCC unroll 16
    for (int j = 0; j < 4; ++j) {
      multiply_add(acc[j], _mm512_load_si512(panel + i * 16 + j * 64), broadcast4(x.q + i + 4 * j));
    }
  }
  const __m512i sums = _mm512_add_epi32(_mm512_add_epi32(acc[0], acc[1]), _mm512_add_epi32(acc[2], acc[3]));
  store(load_epilogue(panel + padded * 16, n_rows), sums, x, 0, out);
}

}  // namespace

void dense_int8_quantize_row(const DenseInt8Scheme& scheme, const float* x, std::int64_t k, std::int8_t* q,
                             float* scale, std::int32_t* zero, std::int32_t* sum) {
  __m512 lo = _mm512_setzero_ps(), hi = lo;
  __mmask16 nan = 0;
  for (std::int64_t i = 0; i < k; i += 16) {
    const __mmask16 mask = k - i >= 16 ? static_cast<__mmask16>(0xffff) : tail_mask(k - i);
    const __m512 v = _mm512_maskz_loadu_ps(mask, x + i);
    lo = _mm512_min_ps(lo, v);
    hi = _mm512_max_ps(hi, v);
    nan = static_cast<__mmask16>(nan | _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q));
  }
  const DenseInt8Row row =
      generic::dense_int8_row(scheme, _mm512_reduce_min_ps(lo), _mm512_reduce_max_ps(hi), nan != 0);
  const __m512 inverse = _mm512_set1_ps(row.inverse);
  const __m512 z = _mm512_set1_ps(static_cast<float>(row.zero));
  const __m512 least = _mm512_set1_ps(scheme.asymmetric ? -128.0f : -127.0f);
  const __m512 most = _mm512_set1_ps(127.0f);
  __m512i total = _mm512_setzero_si512();
  for (std::int64_t i = 0; i < dense_int8_padded(k); i += 16) {
    const std::int64_t left = row.usable ? k - i : 0;
    const __mmask16 mask = left >= 16 ? static_cast<__mmask16>(0xffff) : left > 0 ? tail_mask(left) : 0;
    const __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, x + i), inverse);
    __m512 code = _mm512_add_ps(_mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), z);
    code = _mm512_min_ps(_mm512_max_ps(code, least), most);
    const __m512i codes = _mm512_maskz_cvtps_epi32(mask, code);
    total = _mm512_add_epi32(total, codes);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(q + i), _mm512_cvtepi32_epi8(codes));
  }
  *scale = row.scale;
  *zero = row.zero;
  *sum = _mm512_reduce_add_epi32(total);
}

void dense_int8_multiply(const std::byte* panels, std::int64_t n_rows, const DenseInt8Rows& x, float* out,
                         std::int64_t out_stride) {
  const std::int64_t panel_size = generic::dense_int8_panel_size(x.k);
  if (x.m == 1) {
    for (std::int64_t n = 0; n < n_rows; n += 16, panels += panel_size) {
      single(panels, n_rows - n, x, out + n);
    }
    return;
  }
  // Tokens in chunks that stay in the second-level cache while all panels pass.
  const std::int64_t fit = kChunkBytes / dense_int8_stride(x.k) / kTileTokens * kTileTokens;
  const std::int64_t chunk = fit > kTileTokens ? fit : kTileTokens;
  for (std::int64_t first = 0; first < x.m; first += chunk) {
    const std::int64_t end = x.m - first < chunk ? x.m : first + chunk;
    // Tiles of equal height, since a low one has too few sums to cover the latency.
    const std::int64_t tiles_high = (end - first + kTileTokens - 1) / kTileTokens;
    const std::int64_t height = (end - first + tiles_high - 1) / tiles_high;
    for (std::int64_t n = 0; n < n_rows; n += 16 * kTilePanels) {
      const Tile* tiles = n_rows - n > 16 ? kTiles<kTilePanels> : kTiles<1>;
      for (std::int64_t t = first; t < end; t += height) {
        const std::int64_t tokens = end - t < height ? end - t : height;
        tiles[tokens](panels + n / 16 * panel_size, n_rows - n, x, t, out + n, out_stride);
      }
    }
  }
}

const DenseInt8Kernel kDenseInt8 = {
    .quantize_row = dense_int8_quantize_row,
    .panel_bytes = generic::dense_int8_panel_bytes,
    .pack = generic::dense_int8_pack,
    .multiply = dense_int8_multiply,
};

}  // namespace narrow::kernels::avx512_vnni
