// Whole-row int8 products: generic/ against sums in 64-bit integers written out here, every other instruction
// set of this host against generic/ bit for bit.
#include "kernels/dense_int8.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "base/aligned_buffer.h"
#include "base/rng.h"
#include "kernels/dispatch.h"
#include "kernels/generic/table.h"
#include "testing/testing.h"

namespace narrow::kernels {
namespace {

const DenseInt8Kernel& oracle() { return *generic::table().dense_int8; }

class DenseInt8EveryIsa : public ::testing::TestWithParam<const KernelTable*> {
 protected:
  const DenseInt8Kernel& kernel() const { return *GetParam()->dense_int8; }
};
INSTANTIATE_TEST_SUITE_P(Host, DenseInt8EveryIsa, ::testing::ValuesIn(available_kernels(cpu_features())),
                         [](const auto& param) { return std::string(param.param->name); });

enum class Fill { kRandom, kLargest, kSmallest };

std::int8_t code(Rng& rng, Fill fill, int least) {
  if (fill == Fill::kLargest) return 127;
  if (fill == Fill::kSmallest) return static_cast<std::int8_t>(least);
  return static_cast<std::int8_t>(least +
                                  static_cast<int>(rng.next_u64() % static_cast<std::uint64_t>(128 - least)));
}

// Codes and scales of one product.
struct Case {
  std::int64_t m, n, k;
  std::vector<std::int8_t> weights, weight_zero, q;
  std::vector<float> weight_scale, scale;
  std::vector<std::int32_t> zero, sum;

  Case(std::int64_t m_, std::int64_t n_, std::int64_t k_, bool asymmetric_rows, bool asymmetric_weights,
       Fill fill = Fill::kRandom)
      : m(m_), n(n_), k(k_) {
    Rng rng(static_cast<std::uint64_t>(m * 7919 + n * 31 + k));
    for (std::int64_t i = 0; i < n * k; ++i) {
      weights.push_back(code(rng, fill, asymmetric_weights ? -128 : -127));
    }
    for (std::int64_t i = 0; i < n; ++i) {
      weight_scale.push_back(rng.uniform(0.01f, 1.0f));
      if (!asymmetric_weights) continue;
      weight_zero.push_back(fill == Fill::kRandom
                                ? code(rng, fill, -128)
                                : static_cast<std::int8_t>(fill == Fill::kLargest ? -128 : 127));
    }
    q.assign(static_cast<std::size_t>(m * dense_int8_stride(k)), 0);
    for (std::int64_t t = 0; t < m; ++t) {
      std::int32_t total = 0;
      for (std::int64_t i = 0; i < k; ++i) {
        const std::int8_t c = code(rng, fill, -128);
        q[static_cast<std::size_t>(t * dense_int8_stride(k) + i)] = c;
        total += c;
      }
      sum.push_back(total);
      scale.push_back(rng.uniform(0.001f, 1.0f));
      zero.push_back(!asymmetric_rows          ? 0
                     : fill == Fill::kLargest  ? -128
                     : fill == Fill::kSmallest ? 127
                                               : code(rng, Fill::kRandom, -128));
    }
  }
  DenseInt8Rows rows() const { return {q.data(), scale.data(), zero.data(), sum.data(), m, k}; }

  float want(std::int64_t t, std::int64_t f) const {
    std::int64_t total = 0;
    const std::int64_t z = weight_zero.empty() ? 0 : weight_zero[static_cast<std::size_t>(f)];
    for (std::int64_t i = 0; i < k; ++i) {
      total +=
          (q[static_cast<std::size_t>(t * dense_int8_stride(k) + i)] - zero[static_cast<std::size_t>(t)]) *
          (weights[static_cast<std::size_t>(f * k + i)] - z);
    }
    EXPECT_LE(std::abs(total), std::numeric_limits<std::int32_t>::max());
    return (scale[static_cast<std::size_t>(t)] * weight_scale[static_cast<std::size_t>(f)]) *
           static_cast<float>(total);
  }
};

// y [m, n + 3] with the columns beyond n as they were.
std::vector<float> product(const DenseInt8Kernel& kernel, const Case& c) {
  const std::int64_t panels = (c.n + kDenseInt8PanelRows - 1) / kDenseInt8PanelRows;
  const std::size_t panel_bytes = kernel.panel_bytes(c.k);
  EXPECT_EQ(panel_bytes % 64, 0u);
  AlignedBuffer<std::byte> packed(panel_bytes * static_cast<std::size_t>(panels));
  std::memset(packed.data(), 0x55, packed.size());
  for (std::int64_t p = 0; p < panels; ++p) {
    const std::int64_t first = p * kDenseInt8PanelRows;
    kernel.pack(c.weights.data() + first * c.k, c.k, c.weight_scale.data() + first,
                c.weight_zero.empty() ? nullptr : c.weight_zero.data() + first,
                std::min(kDenseInt8PanelRows, c.n - first), c.k,
                packed.data() + static_cast<std::size_t>(p) * panel_bytes);
  }
  const std::int64_t stride = c.n + 3;
  std::vector<float> out(static_cast<std::size_t>(c.m * stride), -7.0f);
  kernel.multiply(packed.data(), c.n, c.rows(), out.data(), stride);
  for (std::int64_t t = 0; t < c.m; ++t) {
    for (std::int64_t i = c.n; i < stride; ++i) {
      EXPECT_EQ(out[static_cast<std::size_t>(t * stride + i)], -7.0f) << "written beyond the features";
    }
  }
  return out;
}

void expect_same_bits(const std::vector<float>& got, const std::vector<float>& want,
                      const std::string& what) {
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(std::memcmp(&got[i], &want[i], sizeof(float)), 0)
        << what << " at " << i << ": " << got[i] << " for " << want[i];
  }
}

std::string text(const Case& c) {
  return "m " + std::to_string(c.m) + " n " + std::to_string(c.n) + " k " + std::to_string(c.k);
}

TEST(DenseInt8, GenericIsTheFormula) {
  for (const std::int64_t k : {1, 3, 4, 63, 64, 65, 172, 576}) {
    for (int scheme = 0; scheme < 4; ++scheme) {
      const Case c(5, 19, k, (scheme & 1) != 0, (scheme & 2) != 0);
      const std::vector<float> got = product(oracle(), c);
      for (std::int64_t t = 0; t < c.m; ++t) {
        for (std::int64_t f = 0; f < c.n; ++f) {
          ASSERT_EQ(got[static_cast<std::size_t>(t * (c.n + 3) + f)], c.want(t, f)) << text(c);
        }
      }
    }
  }
}

// Every m up to several tiles, whole and partial panels.
TEST_P(DenseInt8EveryIsa, EveryNumberOfTokens) {
  for (std::int64_t m = 1; m <= 70; ++m) {
    const Case c(m, m % 3 == 0 ? 48 : 7 + m, 132, m % 2 == 0, m % 5 == 0);
    expect_same_bits(product(kernel(), c), product(oracle(), c), text(c));
  }
}

TEST_P(DenseInt8EveryIsa, EveryRowLength) {
  for (const std::int64_t k : {1,   2,   5,   31,  32,  33,  60,  64,   68,   100,  127, 128,
                               129, 172, 192, 256, 320, 576, 640, 1536, 2047, 4544, 8192}) {
    for (const std::int64_t m : {1, 3, 17, 33}) {
      const Case c(m, 35, k, true, false);
      expect_same_bits(product(kernel(), c), product(oracle(), c), text(c));
    }
  }
}

// Codes all of one sign and as large as they get, at the longest rows: the sum still fits.
TEST_P(DenseInt8EveryIsa, ExtremesDoNotOverflow) {
  for (const Fill fill : {Fill::kLargest, Fill::kSmallest}) {
    for (const Case& c : {Case(1, 2, kMaxDenseSymmetric, false, false, fill),
                          Case(18, 2, kMaxDenseSymmetric, false, false, fill),
                          Case(1, 2, kMaxDenseAsymmetricRows, true, false, fill),
                          Case(18, 2, kMaxDenseAsymmetricRows, true, false, fill),
                          Case(1, 2, kMaxDenseAsymmetric, true, true, fill),
                          Case(18, 2, kMaxDenseAsymmetric, true, true, fill)}) {
      const std::vector<float> got = product(kernel(), c);
      for (const std::int64_t t : {std::int64_t{0}, c.m - 1}) {
        EXPECT_EQ(got[static_cast<std::size_t>(t * (c.n + 3) + 1)], c.want(t, 1)) << text(c);
      }
    }
  }
}

struct Quantized {
  std::vector<std::int8_t> q;
  float scale = -1.0f;
  std::int32_t zero = -1, sum = -1;
};

Quantized quantize(const DenseInt8Kernel& kernel, const DenseInt8Scheme& scheme,
                   const std::vector<float>& x) {
  Quantized r;
  r.q.assign(static_cast<std::size_t>(dense_int8_padded(static_cast<std::int64_t>(x.size()))), 99);
  kernel.quantize_row(scheme, x.data(), static_cast<std::int64_t>(x.size()), r.q.data(), &r.scale, &r.zero,
                      &r.sum);
  return r;
}

constexpr DenseInt8Scheme kSchemes[] = {
    {false, 0.0f, 0}, {true, 0.0f, 0}, {false, 0.01f, 0}, {true, 0.02f, -37}};

TEST(DenseInt8, RowsAreWithinHalfAStep) {
  Rng rng(3);
  for (const DenseInt8Scheme& scheme : kSchemes) {
    std::vector<float> x(333);
    for (float& v : x) v = 0.3f * rng.normal() + 0.5f;
    const Quantized r = quantize(oracle(), scheme, x);
    std::int32_t total = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      total += r.q[i];
      const float back = r.scale * static_cast<float>(r.q[i] - r.zero);
      // The zero point of a dynamic scheme is rounded too, so its ends may lie one half step further.
      const bool inside = r.q[i] > -127 && r.q[i] < 127;
      if (inside) {
        EXPECT_NEAR(back, x[i], 0.5001f * r.scale + 1e-6f);
      } else if (scheme.scale == 0.0f) {
        EXPECT_NEAR(back, x[i], 1.001f * r.scale);
      }
    }
    EXPECT_EQ(r.sum, total);
    for (std::size_t i = x.size(); i < r.q.size(); ++i) EXPECT_EQ(r.q[i], 0);
  }
}

TEST(DenseInt8, StaticValuesBeyondSaturate) {
  const std::vector<float> x = {1e9f, -1e9f, std::numeric_limits<float>::infinity(),
                                -std::numeric_limits<float>::infinity(), 0.0f};
  const Quantized symmetric = quantize(oracle(), {false, 0.5f, 0}, x);
  const Quantized asymmetric = quantize(oracle(), {true, 0.5f, 11}, x);
  for (const std::size_t i : {0u, 2u}) {
    EXPECT_EQ(symmetric.q[i], 127);
    EXPECT_EQ(symmetric.q[i + 1], -127);
    EXPECT_EQ(asymmetric.q[i], 127);
    EXPECT_EQ(asymmetric.q[i + 1], -128);
  }
  EXPECT_EQ(symmetric.q[4], 0);
  EXPECT_EQ(asymmetric.q[4], 11);
}

TEST_P(DenseInt8EveryIsa, QuantizedRowsAreGenerics) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  Rng rng(4);
  for (const DenseInt8Scheme& scheme : kSchemes) {
    for (const std::int64_t k : {1, 2, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 100, 576}) {
      for (const float special : {1.0f, 0.0f, 1e-45f, 1e-38f, 3e38f, -3e38f, kInf, -kInf, kNan}) {
        std::vector<float> x(static_cast<std::size_t>(k));
        // Halves of a step appear, so that a wrong rounding of ties shows.
        for (float& v : x) v = special == 0.0f ? 0.0f : std::round(40.0f * rng.normal()) * 0.005f;
        x[rng.next_u64() % static_cast<std::uint64_t>(k)] = special;
        const Quantized got = quantize(kernel(), scheme, x), want = quantize(oracle(), scheme, x);
        ASSERT_EQ(got.q, want.q) << k << " " << special;
        ASSERT_EQ(got.zero, want.zero) << k << " " << special;
        ASSERT_EQ(got.sum, want.sum) << k << " " << special;
        ASSERT_TRUE(got.scale == want.scale || (std::isnan(got.scale) && std::isnan(want.scale)));
        if (std::isnan(special)) {
          ASSERT_TRUE(std::isnan(got.scale));
        }
        if (special == 0.0f && scheme.scale == 0.0f) {
          ASSERT_EQ(got.scale, 0.0f);
        }
      }
    }
  }
}

}  // namespace
}  // namespace narrow::kernels
