#include "ops/attention.h"

#include <cmath>

#include "base/rng.h"
#include "base/thread_team.h"
#include "testing/testing.h"

namespace narrow::ops {
namespace {

std::vector<float> random_vector(std::int64_t n, std::uint64_t seed) {
  Rng rng(seed);
  std::vector<float> v(static_cast<std::size_t>(n));
  for (float& x : v) x = rng.normal();
  return v;
}

struct Case {
  const char* what;
  AttentionSpec spec;
  std::int64_t first, m;
};

// heads, key heads, head_dim, scale, softcap, window
const Case kCases[] = {
    {"one token", {4, 4, 16, 0.25f, 0.0f, 0}, 0, 1},
    {"decode", {6, 2, 16, 0.25f, 0.0f, 0}, 70, 1},
    {"prefill over several blocks", {6, 2, 24, 0.2f, 0.0f, 0}, 0, 83},
    {"second chunk", {4, 1, 8, 0.3f, 0.0f, 0}, 37, 41},
    {"window", {4, 2, 16, 0.25f, 0.0f, 16}, 0, 90},
    {"window of one", {2, 2, 8, 0.3f, 0.0f, 1}, 5, 40},
    {"window in decode", {4, 2, 16, 0.25f, 0.0f, 16}, 50, 1},
    {"softcap", {4, 2, 16, 1.0f, 5.0f, 0}, 3, 40},
};

// Sums over every pair in double.
std::vector<double> direct(const Case& c, const std::vector<float>& q, const std::vector<float>& keys,
                           const std::vector<float>& values, std::int64_t capacity) {
  const AttentionSpec& s = c.spec;
  std::vector<double> out(q.size(), 0.0);
  for (std::int64_t r = 0; r < c.m; ++r) {
    for (std::int64_t h = 0; h < s.n_head; ++h) {
      const std::int64_t kv = h / (s.n_head / s.n_head_kv), p = c.first + r;
      const std::int64_t begin = s.window > 0 ? std::max<std::int64_t>(0, p - s.window + 1) : 0;
      std::vector<double> weight;
      double total = 0;
      for (std::int64_t t = begin; t <= p; ++t) {
        double dot = 0;
        for (std::int64_t i = 0; i < s.head_dim; ++i) {
          dot += static_cast<double>(q[static_cast<std::size_t>((r * s.n_head + h) * s.head_dim + i)]) *
                 keys[static_cast<std::size_t>((kv * capacity + t) * s.head_dim + i)];
        }
        dot *= s.scale;
        if (s.softcap > 0) dot = s.softcap * std::tanh(dot / s.softcap);
        weight.push_back(std::exp(dot));
        total += weight.back();
      }
      for (std::int64_t t = begin; t <= p; ++t) {
        for (std::int64_t i = 0; i < s.head_dim; ++i) {
          out[static_cast<std::size_t>((r * s.n_head + h) * s.head_dim + i)] +=
              weight[static_cast<std::size_t>(t - begin)] / total *
              values[static_cast<std::size_t>((kv * capacity + t) * s.head_dim + i)];
        }
      }
    }
  }
  return out;
}

TEST(Attention, AgainstDirectSumsAndSameBitsForAnyNumberOfThreads) {
  for (const Case& c : kCases) {
    const AttentionSpec& s = c.spec;
    const std::int64_t capacity = c.first + c.m + 3;  // what lies beyond must not be read as a key
    const std::int64_t cols = s.n_head * s.head_dim;
    const std::vector<float> q = random_vector(c.m * cols, 1);
    std::vector<float> keys = random_vector(s.n_head_kv * capacity * s.head_dim, 2), values = keys;
    for (float& v : values) v = -v;
    for (std::int64_t h = 0; h < s.n_head_kv; ++h) {
      for (std::int64_t i = (c.first + c.m) * s.head_dim; i < capacity * s.head_dim; ++i) {
        keys[static_cast<std::size_t>(h * capacity * s.head_dim + i)] = std::nanf("");
        values[static_cast<std::size_t>(h * capacity * s.head_dim + i)] = std::nanf("");
      }
    }
    const CacheView kv{keys.data(), capacity * s.head_dim}, vv{values.data(), capacity * s.head_dim};
    std::vector<float> out(q.size()), first_out;
    for (const int threads : {1, 2, 3}) {
      set_thread_count(threads);
      ASSERT_OK(attention(s, {q.data(), c.m, cols}, kv, vv, c.first, {out.data(), c.m, cols}));
      if (threads == 1) first_out = out;
      EXPECT_EQ(out, first_out) << c.what;
    }
    set_thread_count(0);
    const std::vector<double> want = direct(c, q, keys, values, capacity);
    for (std::size_t i = 0; i < out.size(); ++i) ASSERT_NEAR(out[i], want[i], 2e-6) << c.what << " at " << i;
  }
}

TEST(Attention, ErrorsNameTheShapes) {
  std::vector<float> x(64);
  const Status s = attention({4, 3, 8, 1.0f, 0.0f, 0}, {x.data(), 2, 32}, {}, {}, 0, {x.data(), 2, 32});
  ASSERT_FALSE(s.ok());
  EXPECT_NE(s.error().message.find("4 heads of 8 over 3"), std::string::npos) << s.error().message;
  EXPECT_FALSE(attention({4, 2, 8, 1.0f, 0.0f, 0}, {x.data(), 2, 24}, {}, {}, 0, {x.data(), 2, 24}).ok());
}

}  // namespace
}  // namespace narrow::ops
