// Packed weights and prepared activations, as products use them.
#include "ops/weight.h"

#include <cmath>

#include "base/rng.h"
#include "base/thread_team.h"
#include "formats/format.h"
#include "kernels/dispatch.h"
#include "ops/matmul.h"
#include "testing/testing.h"

namespace narrow::ops {
namespace {

std::vector<float> random_vector(std::int64_t n, std::uint64_t seed) {
  Rng rng(seed);
  std::vector<float> v(static_cast<std::size_t>(n));
  for (float& x : v) x = rng.normal();
  return v;
}

struct Stored {
  std::vector<std::byte> bytes;
  std::vector<float> decoded;
  Weight weight;
};

Stored store(Format format, std::int64_t n, std::int64_t k, std::uint64_t seed) {
  Stored s;
  s.decoded = random_vector(n * k, seed);
  s.bytes.resize(static_cast<std::size_t>(n) * row_bytes(format, k));
  s.weight = TensorView{format, Shape{n, k}, s.bytes.data()};
  for (std::int64_t r = 0; r < n; ++r) {
    std::byte* row = s.bytes.data() + static_cast<std::size_t>(r) * row_bytes(format, k);
    EXPECT_OK(encode_row(format, s.decoded.data() + r * k, row, k));
    EXPECT_OK(decode_row(format, row, s.decoded.data() + r * k, k));
  }
  return s;
}

// |got - want| relative to the size of the sums, for y = x * w^T.
double error_of(const std::vector<float>& got, const std::vector<float>& x, const std::vector<float>& w,
                std::int64_t m, std::int64_t n, std::int64_t k) {
  double worst = 0;
  for (std::int64_t t = 0; t < m; ++t) {
    for (std::int64_t r = 0; r < n; ++r) {
      double want = 0, squares = 0;
      for (std::int64_t i = 0; i < k; ++i) {
        const double p = static_cast<double>(x[static_cast<std::size_t>(t * k + i)]) *
                         w[static_cast<std::size_t>(r * k + i)];
        want += p;
        squares += p * p;
      }
      worst = std::max(worst, std::abs(got[static_cast<std::size_t>(t * n + r)] - want) / std::sqrt(squares));
    }
  }
  return worst;
}

// Every format with an integer kernel, and int8 per channel: products near those of the decoded weights, the
// same for any number of threads, and each weight's pages offered back once.
TEST(PackedWeights, ProductsOfEveryFormat) {
  const std::int64_t m = 5, n = 83, k = 512;
  const std::vector<float> x = random_vector(m * k, 1);
  int tested = 0;
  for (const FormatInfo& f : all_formats()) {
    if (!f.can_encode()) continue;
    for (const bool dense : {false, true}) {
      const bool integer = dense || packed_kernel(f.format) != nullptr;
      const bool codebook =
          f.name.starts_with("iq1") || f.name.starts_with("iq2") || f.name.starts_with("iq3");
      EXPECT_TRUE(integer || codebook || f.kind != FormatKind::kQuantized) << f.name;
      if (!integer) continue;
      ++tested;
      struct Scheme {
        bool dense_only, asymmetric;
        float scale;  // 0: dynamic
        std::int32_t zero;
      };
      for (const Scheme& scheme : {Scheme{false, false, 0, 0}, Scheme{true, true, 0, 0},
                                   Scheme{true, false, 0.04f, 0}, Scheme{true, true, 0.04f, -5}}) {
        if (scheme.dense_only && !dense) continue;
        Stored a = store(f.format, n, k, 2), b = store(f.format, n, k, 3);
        PackedWeights packed;
        PackAs as;
        as.dense = dense;
        a.weight.scheme = b.weight.scheme = {scheme.asymmetric, scheme.scale, scheme.zero};
        std::vector<std::size_t> done;
        packed.pack({&a.weight, &b.weight}, as, [&](std::size_t i) { done.push_back(i); });
        EXPECT_EQ(done, (std::vector<std::size_t>{0, 1}));
        EXPECT_TRUE(a.weight.packed() && b.weight.packed());
        EXPECT_EQ(a.weight.dense != nullptr, dense);

        std::vector<float> first;
        for (const int threads : {1, 2, 3}) {
          set_thread_count(threads);
          Activations rows;
          const Forms forms = Forms::of({&a.weight, &b.weight});
          EXPECT_EQ(forms.f32, false);
          rows.assign({x.data(), m, k}, forms);
          std::vector<float> y(static_cast<std::size_t>(2 * m * n)), ya(static_cast<std::size_t>(m * n));
          const Product products[] = {{a.weight, {y.data(), m, n}}, {b.weight, {y.data() + m * n, m, n}}};
          ASSERT_OK(matmul(rows, products));
          if (first.empty()) first = y;
          EXPECT_EQ(y, first) << f.name << " threads " << threads;
          std::copy(y.begin(), y.begin() + m * n, ya.begin());
          // 8-bit rounding of one or both sides: far below this; a wrong scale or row is far above.
          EXPECT_LT(error_of(ya, x, a.decoded, m, n, k), dense ? 0.1 : 0.05)
              << f.name << (dense ? " dense" : "");
        }
        set_thread_count(0);
      }
    }
  }
  EXPECT_GE(tested, 14);
}

TEST(PackedWeights, UnpreparedActivationsAreRefused) {
  Stored a = store(Format::kQ8_0, 16, 64, 2);
  PackedWeights packed;
  packed.pack({&a.weight}, {}, [](std::size_t) {});
  const std::vector<float> x = random_vector(64, 1);
  std::vector<float> y(16);
  const Status s = matmul(ConstMatrix(x.data(), 1, 64), a.weight, {y.data(), 1, 16});
  ASSERT_FALSE(s.ok());
  EXPECT_NE(s.error().message.find("not prepared"), std::string::npos) << s.error().message;
}

// The fused forms equal norm or activation first, quantization after.
TEST(Activations, FusedFormsEqualTheSteps) {
  const std::int64_t m = 3, k = 96;
  const std::vector<float> x = random_vector(m * k, 4), gain = random_vector(k, 5),
                           up = random_vector(m * k, 6);
  Forms blocks;
  blocks.blocks = true;
  Forms both = blocks;
  both.f32 = true;
  std::vector<float> normed(static_cast<std::size_t>(m * k));
  Activations fused, steps;
  fused.assign_rms_norm({x.data(), m, k}, gain.data(), 1e-5f, blocks, {normed.data(), m, k});
  EXPECT_EQ(fused.f32().data, nullptr);
  steps.assign_rms_norm({x.data(), m, k}, gain.data(), 1e-5f, both, {normed.data(), m, k});
  EXPECT_EQ(steps.f32().data, normed.data());
  for (std::int64_t i = 0; i < m * k; ++i) {
    EXPECT_LE(std::abs(fused.blocks().q[i] - steps.blocks().q[i]), 1) << i;
  }
  const kernels::KernelTable& kt = kernels::kernels();
  std::vector<float> gate = x, want = x;
  Activations gated;
  gated.assign_activated({kt.silu, kt.silu_mul}, {gate.data(), m, k}, {up.data(), m, k}, both);
  for (std::int64_t i = 0; i < m * k; ++i) {
    const auto s = static_cast<std::size_t>(i);
    EXPECT_NEAR(gate[s], x[s] / (1.0f + std::exp(-x[s])) * up[s], 1e-5f) << i;
  }
  std::vector<float> plain = x;
  gated.assign_activated({kt.relu, nullptr}, {plain.data(), m, k}, {}, both);
  for (std::size_t i = 0; i < plain.size(); ++i) EXPECT_EQ(plain[i], std::max(x[i], 0.0f));
  plain = x;
  gated.assign_activated({kt.relu, nullptr}, {plain.data(), m, k}, {up.data(), m, k}, both);
  for (std::size_t i = 0; i < plain.size(); ++i) EXPECT_EQ(plain[i], std::max(x[i], 0.0f) * up[i]);
}

}  // namespace
}  // namespace narrow::ops
