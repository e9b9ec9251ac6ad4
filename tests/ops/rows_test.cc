#include "ops/rows.h"

#include <atomic>
#include <cmath>

#include "base/rng.h"
#include "kernels/dispatch.h"
#include "ops/route.h"
#include "testing/testing.h"

namespace narrow::ops {
namespace {

std::vector<float> random_vector(std::int64_t n, std::uint64_t seed) {
  Rng rng(seed);
  std::vector<float> v(static_cast<std::size_t>(n));
  for (float& x : v) x = rng.normal();
  return v;
}

TEST(ForRows, EveryRowOnce) {
  for (const std::int64_t m : {0, 1, 3, 100, 1000}) {
    for (const std::int64_t width : {0, 1, 64, 5000, 100000}) {
      std::vector<std::atomic<int>> seen(static_cast<std::size_t>(m));
      for_rows(m, width, [&](std::int64_t r) { ++seen[static_cast<std::size_t>(r)]; });
      for (const auto& n : seen) EXPECT_EQ(n.load(), 1);
    }
  }
}

TEST(Embedding, DecodesAndScalesRows) {
  const std::int64_t n = 5, k = 64;
  const std::vector<float> table = random_vector(n * k, 1);
  for (const Format f : {Format::kF32, Format::kF16, Format::kQ8_0}) {
    std::vector<std::byte> bytes(static_cast<std::size_t>(n) * row_bytes(f, k));
    for (std::int64_t r = 0; r < n; ++r) {
      ASSERT_OK(encode_row(f, table.data() + r * k,
                           bytes.data() + static_cast<std::size_t>(r) * row_bytes(f, k), k));
    }
    const TensorView view{f, Shape{n, k}, bytes.data()};
    const std::vector<std::int32_t> ids = {4, 0, 4};
    std::vector<float> out(ids.size() * static_cast<std::size_t>(k));
    ASSERT_OK(embedding(view, ids, 2.0f, {out.data(), 3, k}));
    std::vector<float> want(static_cast<std::size_t>(k));
    for (std::size_t r = 0; r < ids.size(); ++r) {
      ASSERT_OK(decode_row(f, view.row(ids[r]), want.data(), k));
      for (std::size_t i = 0; i < want.size(); ++i) EXPECT_EQ(out[r * want.size() + i], 2.0f * want[i]);
    }
    for (const std::int32_t bad : {-1, 5}) {
      const std::vector<std::int32_t> one = {bad};
      const Status s = embedding(view, one, 1.0f, {out.data(), 1, k});
      ASSERT_FALSE(s.ok());
      EXPECT_NE(s.error().message.find(std::to_string(bad)), std::string::npos) << s.error().message;
    }
    EXPECT_FALSE(embedding(view, ids, 1.0f, {out.data(), 2, k}).ok());
  }
}

// Rows wide and many enough to be shared out, with a stride, against the kernel called row by row.
TEST(Rows, NormsActOnEachHead) {
  const std::int64_t m = 300, k = 64, heads = 3, stride = 210;
  const std::vector<float> x = random_vector(m * stride, 2), gain = random_vector(k, 3);
  std::vector<float> y = x;
  const Matrix ym(y.data(), m, heads * k, stride);
  rms_norm(ym, gain.data(), 1e-5f, k, ym);
  for (std::int64_t r = 0; r < m; ++r) {
    std::vector<float> want(x.begin() + r * stride, x.begin() + (r + 1) * stride);
    for (std::int64_t h = 0; h < heads; ++h) {
      kernels::kernels().rms_norm(want.data() + h * k, gain.data(), 1e-5f, want.data() + h * k, k);
    }
    EXPECT_EQ(want, std::vector<float>(y.begin() + r * stride, y.begin() + (r + 1) * stride));
  }
}

TEST(Rows, RopeRotatesOnlyItsDimensions) {
  const std::int64_t m = 4, head_dim = 8, dims = 4, heads = 2;
  const std::vector<float> x = random_vector(m * heads * head_dim, 4);
  std::vector<float> cos(static_cast<std::size_t>(m * dims / 2)), sin(cos);
  for (std::size_t i = 0; i < cos.size(); ++i) {
    cos[i] = std::cos(static_cast<float>(i));
    sin[i] = std::sin(static_cast<float>(i));
  }
  for (const bool interleaved : {false, true}) {
    std::vector<float> y = x;
    rope({y.data(), m, heads * head_dim}, head_dim, dims, interleaved, {cos.data(), m, dims / 2},
         {sin.data(), m, dims / 2});
    for (std::int64_t r = 0; r < m; ++r) {
      for (std::int64_t h = 0; h < heads; ++h) {
        const auto at = static_cast<std::size_t>((r * heads + h) * head_dim);
        const std::size_t a = interleaved ? 2 : 1, b = 3;  // pair 1
        const auto t = static_cast<std::size_t>(r * dims / 2 + 1);
        EXPECT_FLOAT_EQ(y[at + a], x[at + a] * cos[t] - x[at + b] * sin[t]);
        EXPECT_FLOAT_EQ(y[at + b], x[at + b] * cos[t] + x[at + a] * sin[t]);
        for (std::size_t i = dims; i < static_cast<std::size_t>(head_dim); ++i)
          EXPECT_EQ(y[at + i], x[at + i]);
      }
    }
  }
}

TEST(Rows, SumsAndScales) {
  const std::int64_t m = 2, k = 5;
  const std::vector<float> x = random_vector(m * k, 5), base = random_vector(m * k, 6),
                           bias = random_vector(k, 7);
  const auto fresh = [&](auto change) {
    std::vector<float> y = base;
    change(Matrix(y.data(), m, k));
    return y;
  };
  const ConstMatrix xm(x.data(), m, k);
  const auto added = fresh([&](Matrix y) { add_scaled(xm, 1.0f, y); });
  const auto scaled = fresh([&](Matrix y) { add_scaled(xm, 0.5f, y); });
  const auto biased = fresh([&](Matrix y) { add_bias(y, bias.data()); });
  const auto capped = fresh([&](Matrix y) { scale_and_cap(y, 2.0f, 3.0f); });
  const auto untouched = fresh([&](Matrix y) { scale_and_cap(y, 1.0f, 0.0f); });
  for (std::size_t i = 0; i < base.size(); ++i) {
    EXPECT_FLOAT_EQ(added[i], base[i] + x[i]);
    EXPECT_NEAR(scaled[i], base[i] + 0.5f * x[i], 1e-6);
    EXPECT_FLOAT_EQ(biased[i], base[i] + bias[i % static_cast<std::size_t>(k)]);
    EXPECT_NEAR(capped[i], 3.0f * std::tanh(2.0f * base[i] / 3.0f), 1e-5);
    EXPECT_EQ(untouched[i], base[i]);
  }
}

TEST(ChooseExperts, BestFirstLowerIndexOnATie) {
  std::vector<float> logits = {1.0f, 2.0f, 2.0f, 0.0f, /**/ 5.0f, 5.0f, 5.0f, 5.0f};
  const std::vector<Choice> c = choose_experts({logits.data(), 2, 4}, 2, true);
  ASSERT_EQ(c.size(), 4u);
  EXPECT_EQ(c[0].expert, 1);
  EXPECT_EQ(c[1].expert, 2);
  EXPECT_EQ(c[2].expert, 0);
  EXPECT_EQ(c[3].expert, 1);
  for (const Choice& choice : c) EXPECT_NEAR(choice.weight, 0.5f, 1e-6);
  std::vector<float> again = {1.0f, 2.0f, 2.0f, 0.0f};
  const std::vector<Choice> raw = choose_experts({again.data(), 1, 4}, 2, false);
  const double total = std::exp(1.0) + 2 * std::exp(2.0) + 1.0;
  EXPECT_NEAR(raw[0].weight, std::exp(2.0) / total, 1e-6);
}

}  // namespace
}  // namespace narrow::ops
