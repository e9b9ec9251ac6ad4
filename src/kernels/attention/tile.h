// The product that both halves of attention are made of: C [rows, columns] = A [rows, k] * B [k, columns]
// with B read through a loader. Scores: A = queries, B = keys. Output: A = probabilities, B = values.
//
// Register tile: kMaxRows rows by V::kMaxPanels panels of 16 columns. With AVX-512 that is 6 x 4 vectors: 24
// sums, 4 vectors of B and one broadcast of A are 29 of 32 registers, and 24 multiply-adds (12 cycles on two
// ports) need 10 loads (5 cycles). AVX2: 6 x 2 vectors, 12 + 2 + 1 of 16 registers, 8 loads for 12.
#pragma once

#include <cstdint>

#include "kernels/attention/loaders.h"

namespace narrow::kernels::attention {

inline constexpr int kMaxRows = 6;

// Memory that is needed after this product, fetched into the cache bit by bit while the product runs: pages
// are far from each other, where the processor's own prefetch does not follow. Every step of k asks for two
// lines.
template <int kPanels>
struct ReadAhead {
  static constexpr int kTilePanels = kPanels;
  const std::byte* at;
  std::size_t step;  // bytes per step of k

  // `bytes` over a product of n steps and so many panels.
  template <class V>
  static ReadAhead over(const std::byte* p, std::size_t bytes, std::int64_t n, std::int64_t panels) {
    const std::int64_t tiles = (panels + kPanels - 1) / kPanels;
    return {p, bytes / static_cast<std::size_t>(n * tiles)};
  }
  void next() {
    __builtin_prefetch(at, 0, 2);
    __builtin_prefetch(at + step / 2, 0, 2);
    at += step;
  }
};
struct NoReadAhead {
  static constexpr int kTilePanels = 4;
  void next() {}
};

// Columns of P panels. c is [R, ...] with c_stride floats between rows. factor null: C = A * B; otherwise
// C[r] = factor[r] * C[r] + A * B.
template <class V, int R, int P, class Loader, class Ahead>
static inline void multiply_tile(const float* a, std::int64_t a_stride, std::int64_t n, Loader loader,
                                 Ahead& ahead, const float* factor, float* c, std::int64_t c_stride) {
  constexpr int kVectors = P * Panel<V>::kVectors;
  typename V::F sum[R][kVectors];
  NARROW_UNROLL
  for (int r = 0; r < R; ++r) {
    NARROW_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      sum[r][v] = factor == nullptr ? V::zero()
                                    : V::mul(V::load(c + r * c_stride + v * V::kWidth), V::set1(factor[r]));
    }
  }
  for (std::int64_t begin = 0; begin < n; begin += Loader::kBlock) {
    loader.template block<P>(begin);
    const std::int64_t end = n - begin < Loader::kBlock ? n : begin + Loader::kBlock;
    for (std::int64_t k = begin; k < end; k += Loader::kStep) {
      NARROW_UNROLL
      for (int u = 0; u < Loader::kStep; ++u) {
        typename V::F b[kVectors];
        ahead.next();
        loader.template fetch<P>(k + u, u, b);
        NARROW_UNROLL
        for (int r = 0; r < R; ++r) {
          const typename V::F x = V::set1(a[r * a_stride + k + u]);
          NARROW_UNROLL
          for (int v = 0; v < kVectors; ++v) sum[r][v] = V::fma(x, b[v], sum[r][v]);
        }
      }
    }
  }
  NARROW_UNROLL
  for (int r = 0; r < R; ++r) {
    NARROW_UNROLL
    for (int v = 0; v < kVectors; ++v) V::store(c + r * c_stride + v * V::kWidth, sum[r][v]);
  }
}

template <class V, int R, class Loader, class Ahead>
static inline void multiply_rows(const float* a, std::int64_t a_stride, std::int64_t n, const Loader& loader,
                                 Ahead& ahead, std::int64_t panels, const float* factor, float* c,
                                 std::int64_t c_stride) {
  constexpr int kStep = V::kMaxPanels < Ahead::kTilePanels ? V::kMaxPanels : Ahead::kTilePanels;
  for (std::int64_t p = 0; p < panels; p += kStep) {
    const Loader at = loader.panels_from(p);
    float* to = c + 16 * p;
    const std::int64_t left = panels - p;
    if (left >= kStep) {
      multiply_tile<V, R, kStep>(a, a_stride, n, at, ahead, factor, to, c_stride);
      continue;
    }
    if constexpr (kStep == 4) {
      if (left == 1) multiply_tile<V, R, 1>(a, a_stride, n, at, ahead, factor, to, c_stride);
      if (left == 2) multiply_tile<V, R, 2>(a, a_stride, n, at, ahead, factor, to, c_stride);
      if (left == 3) multiply_tile<V, R, 3>(a, a_stride, n, at, ahead, factor, to, c_stride);
    }
  }
}

// rows is 1 .. kMaxRows.
template <class V, class Loader, class Ahead>
static void multiply(int rows, const float* a, std::int64_t a_stride, std::int64_t n, const Loader& loader,
                     Ahead ahead, std::int64_t panels, const float* factor, float* c, std::int64_t c_stride) {
  static_assert(V::kMaxPanels == 1 || V::kMaxPanels == 4);
  switch (rows) {
    case 1:
      return multiply_rows<V, 1>(a, a_stride, n, loader, ahead, panels, factor, c, c_stride);
    case 2:
      return multiply_rows<V, 2>(a, a_stride, n, loader, ahead, panels, factor, c, c_stride);
    case 3:
      return multiply_rows<V, 3>(a, a_stride, n, loader, ahead, panels, factor, c, c_stride);
    case 4:
      return multiply_rows<V, 4>(a, a_stride, n, loader, ahead, panels, factor, c, c_stride);
    case 5:
      return multiply_rows<V, 5>(a, a_stride, n, loader, ahead, panels, factor, c, c_stride);
    default:
      return multiply_rows<V, 6>(a, a_stride, n, loader, ahead, panels, factor, c, c_stride);
  }
}

// Writes B as floats: element (k, 16 p + i) at out[k * k_stride + p * panel_stride + i].
template <class V, class Loader>
static void expand(std::int64_t n, const Loader& loader, std::int64_t panels, float* out,
                   std::int64_t k_stride, std::int64_t panel_stride) {
  for (std::int64_t p = 0; p < panels; ++p) {
    Loader at = loader.panels_from(p);
    for (std::int64_t k = 0; k < n; k += Loader::kStep) {
      if (k % Loader::kBlock == 0) at.template block<1>(k);
      NARROW_UNROLL
      for (int u = 0; u < Loader::kStep; ++u) {
        typename V::F b[Panel<V>::kVectors];
        at.template fetch<1>(k + u, u, b);
        float* to = out + (k + u) * k_stride + p * panel_stride;
        NARROW_UNROLL
        for (int i = 0; i < Panel<V>::kVectors; ++i) V::store(to + i * V::kWidth, b[i]);
      }
    }
  }
}

}  // namespace narrow::kernels::attention
