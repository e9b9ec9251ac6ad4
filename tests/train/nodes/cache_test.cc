#include "train/nodes/cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "base/rng.h"
#include "base/scalar.h"
#include "kernels/attention.h"
#include "kernels/dispatch.h"
#include "train/nodes/random.h"

namespace narrow::train {
namespace {

using testing::random;

TEST(CacheNode, ValuesAreTheStoredRows) {
  const at::Tensor x = random(5, 64, 1);
  for (const Format f : {Format::kQ8_0, Format::kQ4_0, Format::kF16}) {
    const auto node = *CacheNode::create(f, 64);
    const at::Tensor y = node->apply(x.view({5, 1, 64})).view({5, 64});
    // The store's rule, written out (kernels/attention.h).
    for (std::int64_t b = 0; b < 10; ++b) {
      const float* v = x.data_ptr<float>() + 32 * b;
      float extreme = 0;
      for (int j = 0; j < 32; ++j) extreme = std::fabs(v[j]) > std::fabs(extreme) ? v[j] : extreme;
      for (int j = 0; j < 32; ++j) {
        float want = round_to_f16(v[j]);
        if (f == Format::kQ8_0) {
          const float s = round_to_f16(std::fabs(extreme) / 127);
          want = s * std::min(127.0f, std::max(-127.0f, std::nearbyint(v[j] * (1 / s))));
        } else if (f == Format::kQ4_0) {
          const float s = round_to_f16(extreme / -8);
          want = s * (std::min(15.0f, std::max(0.0f, std::nearbyint(v[j] * (1 / s)) + 8)) - 8);
        }
        ASSERT_EQ(y.data_ptr<float>()[32 * b + j], want) << format_info(f).name << " " << b << " " << j;
      }
    }
  }
}

// Scores of the engine's attention: a query that is one at d and zero elsewhere reads element d of the key.
// With two positions and values 1 and 0 the output is the sigmoid of the scores' difference.
TEST(CacheNode, KeysAreWhatAttentionReads) {
  constexpr std::int64_t kDim = 64;
  const at::Tensor keys = random(2, kDim, 2);
  for (const Format f : {Format::kQ8_0, Format::kQ4_0}) {
    for (const bool rotate : {false, true}) {
      const auto node = *CacheNode::create(f, kDim, rotate);
      const at::Tensor y = node->apply(keys);
      const auto layout = kernels::head_layout(f, Format::kF32, kDim, rotate);
      ASSERT_TRUE(layout.ok());
      const std::unique_ptr<std::byte, void (*)(void*)> page(
          static_cast<std::byte*>(std::aligned_alloc(64, layout->bytes)), std::free);
      std::memset(page.get(), 0, layout->bytes);
      for (std::int64_t p = 0; p < 2; ++p) {
        const std::vector<float> value(kDim, p == 0 ? 1.0f : 0.0f);
        kernels::kernels().attention->store(*layout, keys.data_ptr<float>() + p * kDim, value.data(), p,
                                            page.get());
      }
      const std::unique_ptr<float, void (*)(void*)> scratch(
          static_cast<float*>(
              std::aligned_alloc(64, (kernels::attention_scratch_floats(*layout, 1) * 4 + 63) / 64 * 64)),
          std::free);
      for (std::int64_t d = 0; d < kDim; ++d) {
        std::vector<float> q(kDim, 0.0f);
        q[static_cast<std::size_t>(d)] = 1;
        const std::byte* pages[] = {page.get()};
        kernels::AttentionItem item;
        item.q = q.data();
        item.tokens = item.group = 1;
        item.first = 1;
        item.end = 2;
        item.pages = pages;
        alignas(64) float acc[kDim], max = 0, sum = 0;
        kernels::kernels().attention->attend(*layout, item, acc, &max, &sum, scratch.get());
        const double difference = y[0][d].item<double>() - y[1][d].item<double>();
        EXPECT_NEAR(acc[0] / sum, 1 / (1 + std::exp(-difference)), 2e-6) << node->describe() << " " << d;
      }
    }
  }
}

TEST(CacheNode, GradientsPassAndHeadsMustFit) {
  const auto node = *CacheNode::create(Format::kQ4_0, 64, true);
  at::Tensor x = random(2, 64, 3).requires_grad_(true);
  const at::Tensor g = random(2, 64, 4);
  node->apply(x).backward(g);
  EXPECT_TRUE(at::equal(x.grad(), g));
  EXPECT_EQ(CacheNode::create(Format::kQ4_0, 80).error().code, ErrorCode::kUnsupported);
  EXPECT_EQ(CacheNode::create(Format::kQ4_K, 64).error().code, ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace narrow::train
