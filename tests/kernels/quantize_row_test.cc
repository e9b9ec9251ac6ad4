// Quantized activation rows on every instruction set of this host: the definition in packed.h by a plain
// computation in here, equality with generic/ bit for bit, and the fused norm.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "base/rng.h"
#include "kernels/dispatch.h"
#include "kernels/generic/kernels.h"
#include "kernels/packed.h"
#include "testing/testing.h"

namespace narrow::kernels {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct Quantized {
  std::vector<std::int8_t> q;
  std::vector<float> scale;
  std::vector<std::int32_t> sums;
  // Room behind each array shows writes past the end.
  explicit Quantized(std::int64_t k)
      : q(static_cast<std::size_t>(k) + 64, 99),
        scale(static_cast<std::size_t>(k / kActivationGroup) + 16, 99.0f),
        sums(static_cast<std::size_t>(k / kSumRun) + 16, 99) {}
};

Quantized quantize(void (*kernel)(const float*, std::int64_t, std::int8_t*, float*, std::int32_t*),
                   const std::vector<float>& x) {
  const auto k = static_cast<std::int64_t>(x.size());
  Quantized r(k);
  kernel(x.data(), k, r.q.data(), r.scale.data(), r.sums.data());
  return r;
}

// NaN equals NaN whatever its bits; everything else by value and sign.
void expect_equal(const Quantized& got, const Quantized& want, const std::string& what) {
  EXPECT_EQ(got.q, want.q) << what;
  EXPECT_EQ(got.sums, want.sums) << what;
  ASSERT_EQ(got.scale.size(), want.scale.size());
  for (std::size_t g = 0; g < want.scale.size(); ++g) {
    if (std::isnan(want.scale[g])) {
      EXPECT_TRUE(std::isnan(got.scale[g])) << what << " group " << g;
    } else {
      EXPECT_EQ(std::memcmp(&got.scale[g], &want.scale[g], sizeof(float)), 0)
          << what << " group " << g << ": " << got.scale[g] << " for " << want.scale[g];
    }
  }
}

class QuantizeRow : public ::testing::TestWithParam<const KernelTable*> {
 protected:
  const KernelTable& kt() const { return *GetParam(); }
};
INSTANTIATE_TEST_SUITE_P(Host, QuantizeRow, ::testing::ValuesIn(available_kernels(cpu_features())),
                         [](const auto& param) { return std::string(param.param->name); });

TEST_P(QuantizeRow, FollowsTheDefinition) {
  Rng rng(1);
  std::vector<float> x(32 * 7);
  for (float& v : x) v = 3.0f * rng.normal();
  x[5] = -40.0f;
  const Quantized got = quantize(kt().quantize_row, x);
  for (std::size_t g = 0; g < 7; ++g) {
    float absmax = 0.0f;
    for (std::size_t i = 0; i < 32; ++i) absmax = std::max(absmax, std::abs(x[g * 32 + i]));
    EXPECT_EQ(got.scale[g], absmax / 127.0f);
    int sums[2] = {0, 0}, largest = 0;
    for (std::size_t i = 0; i < 32; ++i) {
      const int q = got.q[g * 32 + i];
      // Half a step, and a little for the rounded inverse.
      EXPECT_NEAR(static_cast<float>(q) * got.scale[g], x[g * 32 + i], 0.5001f * got.scale[g]);
      sums[i / 16] += q;
      largest = std::max(largest, std::abs(q));
    }
    EXPECT_EQ(largest, 127);
    EXPECT_EQ(got.sums[2 * g], sums[0]);
    EXPECT_EQ(got.sums[2 * g + 1], sums[1]);
  }
  EXPECT_EQ(got.q[5], -127);
}

TEST_P(QuantizeRow, TiesRoundToEven) {
  std::vector<float> x(32, 0.0f);
  x[0] = 127.0f;  // the step is 1
  x[1] = 0.5f, x[2] = 1.5f, x[3] = 2.5f, x[4] = -0.5f, x[5] = -1.5f, x[6] = -2.5f, x[7] = 126.5f;
  const Quantized got = quantize(kt().quantize_row, x);
  EXPECT_EQ(got.scale[0], 1.0f);
  const std::vector<int> want = {127, 0, 2, 2, 0, -2, -2, 126};
  for (std::size_t i = 0; i < want.size(); ++i) EXPECT_EQ(got.q[i], want[i]) << i;
}

TEST_P(QuantizeRow, ExtremeGroups) {
  const float tiny = std::numeric_limits<float>::denorm_min(), least = std::numeric_limits<float>::min();
  const float most = std::numeric_limits<float>::max();
  struct Case {
    float fill, special, scale;
    int code;  // of `special`
  };
  const Case cases[] = {
      {0.0f, 0.0f, 0.0f, 0},
      {-0.0f, -0.0f, 0.0f, 0},
      {tiny, -tiny, 0.0f, 0},  // 127 / absmax is infinite
      {0.0f, least, 0.0f, 0},  // as it is for the smallest normal number
      {most, -most, most / 127.0f, -127},
      {1.0f, kInf, kInf, 0},
      {1.0f, -kInf, kInf, 0},
      {1.0f, kNan, kNan, 0},
      {kInf, kNan, kNan, 0},
      {-5.0f, 5.0f, 5.0f / 127.0f, 127},
  };
  for (const Case& c : cases) {
    for (std::size_t at = 0; at < 32 * 5; at += 13) {  // in each group of a block of any width
      std::vector<float> x(32 * 5, 1.0f);
      const std::size_t g = at / 32;
      for (std::size_t i = 0; i < 32; ++i) x[g * 32 + i] = c.fill;
      x[at] = c.special;
      const Quantized got = quantize(kt().quantize_row, x);
      if (std::isnan(c.scale)) {
        EXPECT_TRUE(std::isnan(got.scale[g]));
      } else {
        EXPECT_EQ(got.scale[g], c.scale) << c.fill << " " << c.special;
      }
      EXPECT_EQ(got.q[at], c.code) << c.fill << " " << c.special;
      EXPECT_EQ(got.scale[(g + 1) % 5], 1.0f / 127.0f);  // neighbours do not notice
      EXPECT_EQ(got.sums[(2 * g + 2) % 10], 127 * 16);
      expect_equal(got, quantize(generic::quantize_row, x), "extreme");
    }
  }
}

TEST_P(QuantizeRow, EqualsGenericBitForBit) {
  Rng rng(2);
  for (std::int64_t k = 32; k <= 8192; k += k < 1024 ? 32 : 352) {
    std::vector<float> x(static_cast<std::size_t>(k));
    for (float& v : x) {
      // Every exponent, and halves of codes in between.
      const std::uint64_t kind = rng.next_u64() % 8;
      v = kind == 0   ? std::ldexp(rng.normal(), static_cast<int>(rng.next_u64() % 280) - 145)
          : kind == 1 ? static_cast<float>(static_cast<int>(rng.next_u64() % 255) - 127) * 0.5f
          : kind == 2 ? 0.0f
                      : rng.normal();
    }
    if (k % 5 == 0) {  // whatever 32 bits can say
      for (float& v : x) {
        const auto bits = static_cast<std::uint32_t>(rng.next_u64());
        if (rng.next_u64() % 64 == 0) std::memcpy(&v, &bits, sizeof(v));
      }
    }
    expect_equal(quantize(kt().quantize_row, x), quantize(generic::quantize_row, x),
                 "k = " + std::to_string(k));
    if (HasFailure()) return;
  }
}

TEST_P(QuantizeRow, FusedNormEqualsNormThenQuantize) {
  Rng rng(3);
  for (const std::int64_t k : {32, 64, 96, 160, 576, 640, 1536, 4544, 8192}) {
    std::vector<float> x(static_cast<std::size_t>(k)), gain(x);
    for (float& v : x) v = 2.0f * rng.normal();
    for (float& v : gain) v = 1.0f + 0.3f * rng.normal();
    Quantized got(k), want(k);
    kt().rms_norm_quantize(x.data(), gain.data(), 1e-5f, k, got.q.data(), got.scale.data(), got.sums.data());
    generic::rms_norm_quantize(x.data(), gain.data(), 1e-5f, k, want.q.data(), want.scale.data(),
                               want.sums.data());
    expect_equal(got, want, "fused, generic");
    std::vector<float> normed(x);
    kt().rms_norm(x.data(), gain.data(), 1e-5f, normed.data(), k);
    expect_equal(got, quantize(kt().quantize_row, normed), "fused");
  }
}

}  // namespace
}  // namespace narrow::kernels
