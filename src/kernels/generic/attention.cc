#include "kernels/generic/attention.h"

#include <algorithm>
#include <cmath>

#include "base/scalar.h"
#include "kernels/attention/flash.h"

namespace narrow::kernels::generic {
namespace {

// Sixteen floats and plain loops.
struct Vector {
  static constexpr int kWidth = 16;
  static constexpr int kMaxPanels = 1;
  struct F {
    float at[kWidth];
  };

  template <class Function>
  static F make(Function f) {
    F x;
    for (int i = 0; i < kWidth; ++i) x.at[i] = f(i);
    return x;
  }
  static F zero() { return set1(0.0f); }
  static F set1(float x) {
    return make([=](int) { return x; });
  }
  static F load(const float* p) {
    return make([=](int i) { return p[i]; });
  }
  static void store(float* p, const F& x) { std::copy(x.at, x.at + kWidth, p); }
  static F add(const F& a, const F& b) {
    return make([&](int i) { return a.at[i] + b.at[i]; });
  }
  static F sub(const F& a, const F& b) {
    return make([&](int i) { return a.at[i] - b.at[i]; });
  }
  static F mul(const F& a, const F& b) {
    return make([&](int i) { return a.at[i] * b.at[i]; });
  }
  static F div(const F& a, const F& b) {
    return make([&](int i) { return a.at[i] / b.at[i]; });
  }
  static F fma(const F& a, const F& b, const F& c) {
    return make([&](int i) { return std::fma(a.at[i], b.at[i], c.at[i]); });
  }
  static F max(const F& a, const F& b) {
    return make([&](int i) { return std::max(a.at[i], b.at[i]); });
  }
  static F min(const F& a, const F& b) {
    return make([&](int i) { return std::min(a.at[i], b.at[i]); });
  }
  static F exp2(const F& x) {
    return make([&](int i) { return std::exp2(x.at[i]); });
  }
  static F round(const F& x) {
    return make([&](int i) { return std::nearbyint(x.at[i]); });
  }
  static float first(const F& x) { return x.at[0]; }
  static float reduce_max(const F& x) { return *std::max_element(x.at, x.at + kWidth); }
  static float reduce_add(const F& x) {
    float sum = 0.0f;
    for (const float v : x.at) sum += v;
    return sum;
  }
  // Lanes outside [begin, end) become -infinity.
  static F keep(const F& x, std::int64_t begin, std::int64_t end) {
    constexpr float kNone = -std::numeric_limits<float>::infinity();
    return make([&](int i) { return i >= begin && i < end ? x.at[i] : kNone; });
  }

  static F load_f16(const std::uint16_t* p) {
    return make([=](int i) { return to_f32(f16{p[i]}); });
  }
  static void store_f16(std::uint16_t* p, const F& x) {
    for (int i = 0; i < kWidth; ++i) p[i] = to_f16(x.at[i]).bits;
  }
  static F set1_f16(const std::byte* p) {
    f16 h;
    std::memcpy(&h, p, sizeof(h));
    return set1(to_f32(h));
  }
  static F load_i8(const std::byte* p) {
    return make([=](int i) { return static_cast<float>(static_cast<std::int8_t>(p[i])); });
  }
  // Codes in bits shift .. shift + 3 of 16 bytes, minus 8.
  static F load_nibbles(const std::byte* p, int shift) {
    return make([=](int i) { return static_cast<float>(((std::to_integer<int>(p[i]) >> shift) & 15) - 8); });
  }
};

}  // namespace

constinit const AttentionKernels kAttention = {attention::store<Vector>, attention::attend<Vector>};

}  // namespace narrow::kernels::generic
