// Every instruction set that this host has, generic/ among them, against sums in double written out here.
#include <cmath>
#include <cstring>
#include <functional>
#include <iterator>
#include <limits>
#include <numbers>
#include <vector>

#include "base/rng.h"
#include "formats/format.h"
#include "kernels/dispatch.h"
#include "testing/testing.h"

namespace narrow::kernels {
namespace {

constexpr std::int64_t kLengths[] = {1,  2,  7,  8,  15, 16,  17,  31,   32,
                                     33, 63, 64, 65, 96, 100, 576, 1000, 1537};

std::vector<float> random_vector(std::int64_t n, std::uint64_t seed, float scale = 1.0f) {
  Rng rng(seed);
  std::vector<float> v(static_cast<std::size_t>(n));
  for (float& x : v) x = scale * rng.normal();
  return v;
}

void expect_near(const std::vector<float>& got, const std::vector<float>& want, float relative,
                 float absolute, const std::string& what) {
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    ASSERT_NEAR(got[i], want[i], absolute + relative * std::abs(want[i])) << what << " at " << i;
  }
}

// One test instance per table of this host; the names in the log say which ran.
class EveryIsa : public ::testing::TestWithParam<const KernelTable*> {
 protected:
  const KernelTable& kt() const { return *GetParam(); }
};
INSTANTIATE_TEST_SUITE_P(Host, EveryIsa, ::testing::ValuesIn(available_kernels(cpu_features())),
                         [](const auto& param) { return std::string(param.param->name); });

TEST_P(EveryIsa, Dot) {
  for (const std::int64_t k : kLengths) {
    const std::vector<float> x = random_vector(k, 1), y = random_vector(k, 2);
    double want = 0, magnitude = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      want += static_cast<double>(x[i]) * y[i];
      magnitude += std::abs(static_cast<double>(x[i]) * y[i]);
    }
    // Rounding errors of a sum grow with the sum of magnitudes.
    EXPECT_NEAR(kt().dot_f32(x.data(), y.data(), k), want, 1e-6 * magnitude) << k;
  }
}

TEST_P(EveryIsa, ElementwiseSums) {
  for (const std::int64_t k : kLengths) {
    const std::vector<float> x = random_vector(k, 3), y = random_vector(k, 4);
    std::vector<float> axpy = y, add = y, mul = y, want_axpy = y, want_add = y, want_mul = y;
    kt().axpy_f32(0.37f, x.data(), axpy.data(), k);
    kt().add_f32(x.data(), add.data(), k);
    kt().mul_f32(x.data(), mul.data(), k);
    for (std::size_t i = 0; i < x.size(); ++i) {
      want_axpy[i] += 0.37f * x[i];
      want_add[i] += x[i];
      want_mul[i] *= x[i];
    }
    expect_near(axpy, want_axpy, 1e-6f, 1e-6f, "axpy");
    EXPECT_EQ(add, want_add);
    EXPECT_EQ(mul, want_mul);
  }
}

TEST_P(EveryIsa, Norms) {
  for (const std::int64_t k : kLengths) {
    const std::vector<float> x = random_vector(k, 5, 3.0f), gain = random_vector(k, 6),
                             bias = random_vector(k, 7);
    double squares = 0, sum = 0, variance = 0;
    for (const float v : x) {
      squares += static_cast<double>(v) * v;
      sum += v;
    }
    const double n = static_cast<double>(k), mean = sum / n;
    for (const float v : x) variance += (v - mean) * (v - mean) / n;
    std::vector<float> want_rms(x), want_layer(x), want_plain(x);
    for (std::size_t i = 0; i < x.size(); ++i) {
      want_rms[i] = static_cast<float>(x[i] / std::sqrt(squares / n + 1e-5) * gain[i]);
      want_plain[i] = static_cast<float>((x[i] - mean) / std::sqrt(variance + 1e-5) * gain[i]);
      want_layer[i] = want_plain[i] + bias[i];
    }
    std::vector<float> got = x;  // in place
    kt().rms_norm(got.data(), gain.data(), 1e-5f, got.data(), k);
    expect_near(got, want_rms, 2e-6f, 1e-6f, "rms");
    got = x;
    kt().layer_norm(got.data(), gain.data(), bias.data(), 1e-5f, got.data(), k);
    expect_near(got, want_layer, 2e-5f, 2e-5f, "layer");
    kt().layer_norm(x.data(), gain.data(), nullptr, 1e-5f, got.data(), k);
    expect_near(got, want_plain, 2e-5f, 2e-5f, "layer without bias");
  }
}

TEST_P(EveryIsa, RopeTurnsPairsByTheAngle) {
  for (const std::int64_t dims : {2, 4, 16, 24, 64, 128}) {
    const std::vector<float> x = random_vector(dims, 8), angle = random_vector(dims / 2, 9, 2.0f);
    std::vector<float> cos(angle), sin(angle);
    for (std::size_t i = 0; i < angle.size(); ++i) {
      cos[i] = std::cos(angle[i]);
      sin[i] = std::sin(angle[i]);
    }
    std::vector<float> half = x, interleaved = x;
    kt().rope_half(half.data(), cos.data(), sin.data(), dims);
    kt().rope_interleaved(interleaved.data(), cos.data(), sin.data(), dims);
    const auto check = [&](const std::vector<float>& got, std::size_t a, std::size_t b, std::size_t pair) {
      // As complex numbers: (a + ib) * e^(i angle).
      const double r = std::hypot(x[a], x[b]), phase = std::atan2(x[b], x[a]) + angle[pair];
      EXPECT_NEAR(got[a], r * std::cos(phase), 2e-6);
      EXPECT_NEAR(got[b], r * std::sin(phase), 2e-6);
    };
    for (std::size_t i = 0; i < angle.size(); ++i) {
      check(half, i, i + angle.size(), i);
      check(interleaved, 2 * i, 2 * i + 1, i);
    }
  }
}

TEST_P(EveryIsa, Softmax) {
  for (const std::int64_t k : kLengths) {
    for (const float scale : {0.1f, 3.0f, 60.0f}) {
      std::vector<float> x = random_vector(k, 10, scale);
      if (k > 3) x[2] = -std::numeric_limits<float>::infinity();
      double max = x[0], sum = 0;
      for (const float v : x) max = std::max<double>(max, v);
      std::vector<float> want(x);
      for (const float v : x) sum += std::exp(v - max);
      for (std::size_t i = 0; i < x.size(); ++i) want[i] = static_cast<float>(std::exp(x[i] - max) / sum);
      kt().softmax(x.data(), k);
      expect_near(x, want, 2e-5f, 1e-9f, "softmax");
      if (k > 3) {
        EXPECT_EQ(x[2], 0.0f);
      }
    }
  }
  kt().softmax(nullptr, 0);
}

TEST_P(EveryIsa, FunctionsOfOneNumber) {
  std::vector<float> x = {0.0f,  -0.0f, 1e-20f, -1e-20f, 0.5f,   -0.5f, 3.0f,
                          -3.0f, 10.0f, -10.0f, 60.0f,   -60.0f, 1e4f,  -1e4f};
  for (const float v : random_vector(1000, 11, 4.0f)) x.push_back(v);
  struct Case {
    const char* name;
    std::function<void(float*, std::int64_t)> kernel;
    double (*exact)(double);
  };
  const Case cases[] = {
      {"silu", kt().silu, [](double v) { return v / (1 + std::exp(-v)); }},
      {"gelu_tanh", kt().gelu_tanh,
       [](double v) {
         return v / 2 * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (v + 0.044715 * v * v * v)));
       }},
      {"gelu_erf", kt().gelu_erf, [](double v) { return v / 2 * (1 + std::erf(v / std::numbers::sqrt2)); }},
      {"relu", kt().relu, [](double v) { return v > 0 ? v : 0; }},
      {"softcap 30", [this](float* p, std::int64_t k) { kt().softcap(p, 30.0f, k); },
       [](double v) { return 30 * std::tanh(v / 30); }},
  };
  for (const Case& c : cases) {
    for (const std::int64_t k : {std::int64_t{13}, static_cast<std::int64_t>(x.size())}) {
      std::vector<float> got(x.begin(), x.begin() + k), want = got;
      for (float& v : want) v = static_cast<float>(c.exact(v));
      c.kernel(got.data(), k);
      expect_near(got, want, 3e-6f, 3e-6f, c.name);
    }
  }
}

TEST_P(EveryIsa, GatedFunctionsAreFunctionTimesUp) {
  for (const std::int64_t k : kLengths) {
    const std::vector<float> gate = random_vector(k, 14, 4.0f), up = random_vector(k, 15, 2.0f);
    std::vector<float> silu = gate, gelu = gate, want_silu = gate, want_gelu = gate;
    for (std::size_t i = 0; i < gate.size(); ++i) {
      const double v = gate[i], u = up[i];
      want_silu[i] = static_cast<float>(v / (1 + std::exp(-v)) * u);
      want_gelu[i] = static_cast<float>(
          u * v / 2 * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (v + 0.044715 * v * v * v))));
    }
    kt().silu_mul(silu.data(), up.data(), k);
    kt().gelu_tanh_mul(gelu.data(), up.data(), k);
    expect_near(silu, want_silu, 3e-6f, 1e-5f, "silu_mul");
    expect_near(gelu, want_gelu, 3e-6f, 1e-5f, "gelu_tanh_mul");
  }
}

// What rows of a model may hold and what they should not: each kind fills a whole row.
std::vector<float> row_of_kind(int kind, std::int64_t k, std::uint64_t seed) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  constexpr float kSpecial[] = {
      0.0f,   -0.0f, std::numeric_limits<float>::quiet_NaN(), 1.0f, kInf, -3.0f, -kInf, 88.2f, -87.31f,
      -87.2f, 1e-30f};
  Rng rng(seed);
  std::vector<float> v = random_vector(k, seed, kind == 1 ? 1e4f : kind == 2 ? 30.0f : 1.0f);
  for (float& x : v) {
    if (kind == 3) x = std::ldexp(x, -140);                                          // denormal
    if (kind == 4) x = std::ldexp(x, static_cast<int>(rng.next_u64() % 200) - 130);  // any size
    if (kind == 5) x = 0.0f;
    if (kind == 6) x = -0.0f;
    if (kind == 7 && rng.next_u64() % 16 == 0) x = kSpecial[rng.next_u64() % std::size(kSpecial)];
    if (kind == 8 && rng.next_u64() % 4 == 0) x = -kInf;
  }
  return v;
}
constexpr int kKinds = 9;

// NaN equals NaN, whatever its bits.
bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (std::isnan(a[i]) && std::isnan(b[i])) continue;
    if (std::memcmp(&a[i], &b[i], sizeof(float)) != 0) return false;
  }
  return a.size() == b.size();
}

// The rule of kernel_table.h. `kernel` overwrites x; nothing beyond k is touched.
TEST_P(EveryIsa, FloatsEqualGenericBitForBit) {
  const KernelTable& oracle = *available_kernels(cpu_features()).back();
  struct Case {
    const char* name;
    void (*kernel)(const KernelTable& t, float* x, const float* y, const float* z, std::int64_t k);
  };
  const Case cases[] = {
      {"dot_f32", [](auto& t, auto* x, auto* y, auto*, auto k) { x[0] = t.dot_f32(x, y, k); }},
      {"axpy_f32", [](auto& t, auto* x, auto* y, auto*, auto k) { t.axpy_f32(0.37f, y, x, k); }},
      {"add_f32", [](auto& t, auto* x, auto* y, auto*, auto k) { t.add_f32(y, x, k); }},
      {"mul_f32", [](auto& t, auto* x, auto* y, auto*, auto k) { t.mul_f32(y, x, k); }},
      {"rms_norm", [](auto& t, auto* x, auto* y, auto*, auto k) { t.rms_norm(x, y, 1e-5f, x, k); }},
      {"layer_norm", [](auto& t, auto* x, auto* y, auto* z, auto k) { t.layer_norm(x, y, z, 1e-5f, x, k); }},
      {"layer_norm without bias",
       [](auto& t, auto* x, auto* y, auto*, auto k) { t.layer_norm(x, y, nullptr, 1e-5f, x, k); }},
      {"rope_half", [](auto& t, auto* x, auto* y, auto* z, auto k) { t.rope_half(x, y, z, k / 2 * 2); }},
      {"rope_interleaved",
       [](auto& t, auto* x, auto* y, auto* z, auto k) { t.rope_interleaved(x, y, z, k / 2 * 2); }},
      {"softmax", [](auto& t, auto* x, auto*, auto*, auto k) { t.softmax(x, k); }},
      {"softcap", [](auto& t, auto* x, auto*, auto*, auto k) { t.softcap(x, 30.0f, k); }},
      {"silu", [](auto& t, auto* x, auto*, auto*, auto k) { t.silu(x, k); }},
      {"gelu_tanh", [](auto& t, auto* x, auto*, auto*, auto k) { t.gelu_tanh(x, k); }},
      {"gelu_erf", [](auto& t, auto* x, auto*, auto*, auto k) { t.gelu_erf(x, k); }},
      {"relu", [](auto& t, auto* x, auto*, auto*, auto k) { t.relu(x, k); }},
      {"silu_mul", [](auto& t, auto* x, auto* y, auto*, auto k) { t.silu_mul(x, y, k); }},
      {"gelu_tanh_mul", [](auto& t, auto* x, auto* y, auto*, auto k) { t.gelu_tanh_mul(x, y, k); }},
  };
  std::vector<std::int64_t> lengths = {96, 128, 576, 1000, 1536, 4544};
  for (std::int64_t k = 1; k <= 70; ++k) lengths.push_back(k);
  for (const std::int64_t k : lengths) {
    for (int kind = 0; kind < kKinds; ++kind) {
      const std::vector<float> x = row_of_kind(kind, k + 16, 20), y = row_of_kind(kind % 5, k, 21),
                               z = row_of_kind(0, k, 22);
      for (const Case& c : cases) {
        std::vector<float> got = x, want = x;
        c.kernel(kt(), got.data(), y.data(), z.data(), k);
        c.kernel(oracle, want.data(), y.data(), z.data(), k);
        EXPECT_TRUE(same_bits(got, want)) << c.name << ", k " << k << ", kind " << kind;
      }
    }
  }
}

// What a sum and an exponential are, in so many words.
TEST_P(EveryIsa, SumsHave64Lanes) {
  // Large numbers that only cancel within a lane, or between lanes 32 apart, leave the small one.
  std::vector<float> x(200, 0.0f);
  const std::vector<float> ones(x.size(), 1.0f);
  x[3] = 1e30f, x[3 + 64] = -1e30f, x[3 + 128] = 1.0f;
  x[7] = 1e30f, x[7 + 32] = -1e30f, x[7 + 16] = 1.0f;
  EXPECT_EQ(kt().dot_f32(x.data(), ones.data(), 200), 2.0f);
  x[3 + 64] = 0.0f, x[4 + 64] = -1e30f;  // meets its counterpart last of all, when both ones are lost
  EXPECT_EQ(kt().dot_f32(x.data(), ones.data(), 200), 0.0f);
}

TEST_P(EveryIsa, ExponentialsEndBeforeDenormals) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  std::vector<float> x = {0.0f, -87.29f, -87.31f, -200.0f, -kInf, -1.0f};
  kt().softmax(x.data(), static_cast<std::int64_t>(x.size()));
  EXPECT_GE(x[1], 0.5f * std::numeric_limits<float>::min());
  EXPECT_EQ(x[2], 0.0f);
  EXPECT_EQ(x[3], 0.0f);
  EXPECT_EQ(x[4], 0.0f);
  std::vector<float> limits = {kInf, -kInf, std::numeric_limits<float>::quiet_NaN()};
  kt().gelu_erf(limits.data(), 3);
  EXPECT_EQ(limits[0], kInf);
  EXPECT_EQ(limits[1], 0.0f);
  EXPECT_TRUE(std::isnan(limits[2]));
}

// Nothing beyond dims is touched.
TEST_P(EveryIsa, RopeEqualsGenericBitForBit) {
  const KernelTable& oracle = *available_kernels(cpu_features()).back();
  for (std::int64_t dims = 2; dims <= 256; dims += 2) {
    const std::vector<float> x = random_vector(dims + 32, 16), cos = random_vector(dims / 2, 17),
                             sin = random_vector(dims / 2, 18);
    std::vector<float> half = x, want_half = x, interleaved = x, want_interleaved = x;
    kt().rope_half(half.data(), cos.data(), sin.data(), dims);
    oracle.rope_half(want_half.data(), cos.data(), sin.data(), dims);
    kt().rope_interleaved(interleaved.data(), cos.data(), sin.data(), dims);
    oracle.rope_interleaved(want_interleaved.data(), cos.data(), sin.data(), dims);
    EXPECT_EQ(half, want_half) << dims;
    EXPECT_EQ(interleaved, want_interleaved) << dims;
  }
}

TEST_P(EveryIsa, VecDotsMatchDecodeAndDot) {
  std::string covered;
  for (std::size_t id = 0; id < kVecDotSlots; ++id) {
    const VecDot vec_dot = kt().vec_dot[id];
    if (vec_dot == nullptr) continue;
    const FormatInfo* format = find_format(static_cast<std::uint32_t>(id));
    ASSERT_NE(format, nullptr) << id;
    covered += std::string(format->name) + " ";
    for (const int blocks : {1, 2, 3, 7, 18, 37, 63, 64, 65, 576, 1007}) {
      const std::int64_t k = static_cast<std::int64_t>(format->block_size) * blocks;
      const std::vector<float> weights = random_vector(k, 12), x = random_vector(k, 13);
      std::vector<std::byte> row(row_bytes(format->format, k));
      ASSERT_OK(encode_row(format->format, weights.data(), row.data(), k));
      std::vector<float> decoded(weights);
      ASSERT_OK(decode_row(format->format, row.data(), decoded.data(), k));
      const float got = vec_dot(row.data(), x.data(), k), want = kt().dot_f32(decoded.data(), x.data(), k);
      EXPECT_EQ(got, want) << format->name << " " << k;
    }
  }
  RecordProperty("formats", covered);
}

TEST(Dispatch, BestFirstAndGenericLast) {
  CpuFeatures none;
  const auto only = available_kernels(none);
  ASSERT_EQ(only.size(), 1u);
  EXPECT_EQ(only[0]->name, "generic");
  const auto here = available_kernels(cpu_features());
  EXPECT_EQ(here.back()->name, "generic");
#if defined(__x86_64__)
  // This build's baseline has AVX2.
  EXPECT_GE(here.size(), 2u);
  const CpuFeatures& cpu = cpu_features();
  EXPECT_EQ(here.front()->name, !cpu.avx512_vnni ? "avx2" : cpu.amx_int8 ? "avx512_amx" : "avx512_vnni");
#endif
}

TEST(Dispatch, NamesAreServedOrRefused) {
  for (const KernelTable* t : available_kernels(cpu_features())) {
    ASSERT_OK_AND_ASSIGN(const KernelTable* got, select_kernels(t->name, cpu_features()));
    EXPECT_EQ(got, t);
  }
  const auto unknown = select_kernels("sse9", cpu_features());
  ASSERT_FALSE(unknown.ok());
  EXPECT_EQ(unknown.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(unknown.error().message.find("sse9"), std::string::npos);
  EXPECT_NE(unknown.error().message.find("generic"), std::string::npos);
#if defined(__x86_64__)
  const auto lacking = select_kernels("avx512_vnni", CpuFeatures{});
  ASSERT_FALSE(lacking.ok());
  EXPECT_EQ(lacking.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(lacking.error().message.find("avx512_vnni"), std::string::npos);
#endif
  EXPECT_NE(isa_description().find(std::string(kernels().name)), std::string::npos);
}

}  // namespace
}  // namespace narrow::kernels
