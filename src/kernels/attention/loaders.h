// Cached keys and values as fp32 vectors, one loader per stored layout (kernels/attention.h).
//
// A loader is a matrix B [k, columns] whose columns come in panels of 16. fetch<P>(k, u, b) fills b with row
// k of P neighbouring panels; u = k % kStep is known at compile time; block(k) is called at every multiple
// of kBlock first. For keys k runs along head_dim and columns are positions, for values the reverse.
//
// V is the vector of an instruction set, defined in that folder's attention.cc, in an unnamed namespace:
// all of these templates then belong to that translation unit alone.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__clang__)
#define NARROW_UNROLL _Pragma("unroll")
#else
#define NARROW_UNROLL _Pragma("GCC unroll 32")
#endif

namespace narrow::kernels::attention {

template <class V>
struct Panel {
  static constexpr int kVectors = 16 / V::kWidth;  // of 16 columns
};

template <class V>
static inline typename V::F load_real(const float* p) {
  return V::load(p);
}
template <class V>
static inline typename V::F load_real(const std::uint16_t* p) {
  return V::load_f16(p);
}

// f32 or f16 keys and values, and what expand() made of the others.
template <class V, class T>
struct RealLoader {
  static constexpr std::int64_t kBlock = std::int64_t{1} << 40;
  static constexpr int kStep = 1;
  const T* base;
  std::int64_t k_stride, panel_stride;

  template <int P>
  void block(std::int64_t) {}
  template <int P>
  void fetch(std::int64_t k, int, typename V::F* b) const {
    const T* row = base + k * k_stride;
    NARROW_UNROLL
    for (int p = 0; p < P; ++p) {
      NARROW_UNROLL
      for (int i = 0; i < Panel<V>::kVectors; ++i) {
        b[p * Panel<V>::kVectors + i] = load_real<V>(row + p * panel_stride + i * V::kWidth);
      }
    }
  }
  RealLoader panels_from(std::int64_t panel) const {
    return {base + panel * panel_stride, k_stride, panel_stride};
  }
  RealLoader rows_from(std::int64_t k) const { return {base + k * k_stride, k_stride, panel_stride}; }
};

template <class V, bool kFourBits>
struct QuantizedKeys {
  static constexpr std::int64_t kBlock = 32;
  static constexpr int kStep = kFourBits ? 2 : 1;
  static constexpr int kVectors = Panel<V>::kVectors;
  const std::byte* base;
  std::int64_t head_dim;
  std::size_t panel_bytes;
  typename V::F scale[V::kMaxPanels * kVectors];

  QuantizedKeys(const std::byte* b, std::int64_t d, std::size_t bytes)
      : base(b), head_dim(d), panel_bytes(bytes) {}
  QuantizedKeys panels_from(std::int64_t panel) const {
    return {base + static_cast<std::size_t>(panel) * panel_bytes, head_dim, panel_bytes};
  }
  template <int P>
  void block(std::int64_t k) {
    NARROW_UNROLL
    for (int p = 0; p < P; ++p) {
      const auto* scales =
          reinterpret_cast<const std::uint16_t*>(base + static_cast<std::size_t>(p) * panel_bytes);
      NARROW_UNROLL
      for (int i = 0; i < kVectors; ++i) {
        scale[p * kVectors + i] = V::load_f16(scales + k / 32 * 16 + i * V::kWidth);
      }
    }
  }
  template <int P>
  void fetch(std::int64_t k, int u, typename V::F* b) const {
    // Scales come first: 16 halves for every 32 elements are one byte per element and lane.
    const std::byte* row = base + head_dim + (kFourBits ? k / 2 : k) * 16;
    NARROW_UNROLL
    for (int p = 0; p < P; ++p) {
      NARROW_UNROLL
      for (int i = 0; i < kVectors; ++i) {
        const std::byte* codes = row + static_cast<std::size_t>(p) * panel_bytes + i * V::kWidth;
        const typename V::F q = kFourBits ? V::load_nibbles(codes, 4 * u) : V::load_i8(codes);
        b[p * kVectors + i] = V::mul(q, scale[p * kVectors + i]);
      }
    }
  }
};

template <class V, bool kFourBits>
struct QuantizedValues {
  static_assert(V::kMaxPanels == 1 || V::kMaxPanels % 2 == 0);
  static constexpr std::int64_t kBlock = std::int64_t{1} << 40;
  static constexpr int kStep = 1;
  static constexpr int kVectors = Panel<V>::kVectors;
  static constexpr int kBlockBytes = kFourBits ? 18 : 34;
  const std::byte* base;  // block of the first panel, in the first row
  std::size_t row_bytes;
  int half;  // 1: the first panel is the upper half of its block

  QuantizedValues panels_from(std::int64_t panel) const {
    return {base + (half + panel) / 2 * kBlockBytes, row_bytes, static_cast<int>((half + panel) % 2)};
  }
  QuantizedValues rows_from(std::int64_t k) const {
    return {base + static_cast<std::size_t>(k) * row_bytes, row_bytes, half};
  }
  template <int P>
  void block(std::int64_t) {}
  template <int P>
  void fetch(std::int64_t k, int, typename V::F* b) const {
    const std::byte* row = base + static_cast<std::size_t>(k) * row_bytes;
    typename V::F scale = V::zero();
    NARROW_UNROLL
    for (int p = 0; p < P; ++p) {
      const std::byte* at = row + p / 2 * kBlockBytes;
      const int upper = P == 1 ? half : p % 2;  // tiles of more panels start at a block
      if (p % 2 == 0) scale = V::set1_f16(at);
      NARROW_UNROLL
      for (int i = 0; i < kVectors; ++i) {
        const std::byte* codes = at + 2 + i * V::kWidth;
        const typename V::F q =
            kFourBits ? V::load_nibbles(codes, 4 * upper) : V::load_i8(codes + 16 * upper);
        b[p * kVectors + i] = V::mul(q, scale);
      }
    }
  }
};

}  // namespace narrow::kernels::attention
