#include "train/nodes/block_weight.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "base/rng.h"
#include "train/nodes/random.h"

namespace narrow::train {
namespace {

using testing::same_bits;

at::Tensor weights(std::int64_t n, std::int64_t k, std::uint64_t seed, float scale = 0.1f) {
  return testing::random(n, k, seed, scale);
}

std::vector<Format> grid_formats() {
  std::vector<Format> out;
  for (const FormatInfo& f : all_formats()) {
    if (formats::grid_codec(f.format) != nullptr) out.push_back(f.format);
  }
  return out;
}

std::vector<std::byte> encoded(Format f, const at::Tensor& x, bool search = true) {
  const std::size_t row = row_bytes(f, x.size(1));
  std::vector<std::byte> out(static_cast<std::size_t>(x.size(0)) * row);
  for (std::int64_t r = 0; r < x.size(0); ++r) {
    EXPECT_TRUE(encode_row(f, x.data_ptr<float>() + r * x.size(1),
                           out.data() + static_cast<std::size_t>(r) * row, x.size(1), {.search = search})
                    .ok());
  }
  return out;
}

at::Tensor decoded(Format f, const std::vector<std::byte>& bytes, std::int64_t n, std::int64_t k) {
  at::Tensor y = at::empty({n, k}, at::kFloat);
  const std::size_t row = row_bytes(f, k);
  for (std::int64_t r = 0; r < n; ++r) {
    EXPECT_TRUE(
        decode_row(f, bytes.data() + static_cast<std::size_t>(r) * row, y.data_ptr<float>() + r * k, k).ok());
  }
  return y;
}

std::shared_ptr<BlockWeight> make(Format f, const at::Tensor& x, const BlockWeightOptions& options = {}) {
  auto node = BlockWeight::create(f, encoded(f, x), x.size(0), x.size(1), options);
  EXPECT_TRUE(node.ok()) << node.error().message;
  return *node;
}

TEST(BlockWeight, AppliedIsWhatIsStored) {
  const at::Tensor x = weights(3, 512, 1);
  for (const Format f : grid_formats()) {
    for (const BlockScales scales :
         {BlockScales::kFixed, BlockScales::kLearned, BlockScales::kAbsMax, BlockScales::kSearched}) {
      const auto node = make(f, x, {.scales = scales});
      SCOPED_TRACE(node->describe());
      const at::Tensor w = weights(3, 512, 2, 0.15f);  // other weights than the scales are for
      const auto bytes = node->encode(w);
      ASSERT_TRUE(bytes.ok()) << bytes.error().message;
      EXPECT_TRUE(same_bits(node->apply(w), decoded(f, *bytes, 3, 512)));
    }
  }
}

TEST(BlockWeight, MovedScalesAreStoredToo) {
  const at::Tensor x = weights(2, 512, 3);
  for (const Format f : grid_formats()) {
    const auto node = make(f, x, {.scales = BlockScales::kLearned});
    SCOPED_TRACE(node->describe());
    const at::Tensor before = node->apply(x).detach();
    {
      const at::NoGradGuard no_grad;
      Rng rng(4);
      for (const NamedTensor& p : node->parameters()) {
        at::Tensor flat = p.tensor.view({-1});
        for (std::int64_t i = 0; i < flat.numel(); ++i) flat[i].mul_(rng.uniform(0.4f, 1.7f));
      }
    }
    const at::Tensor after = node->apply(x).detach();
    EXPECT_FALSE(same_bits(before, after));
    const auto bytes = node->encode(x);
    ASSERT_TRUE(bytes.ok());
    EXPECT_TRUE(same_bits(after, decoded(f, *bytes, 2, 512)));
  }
}

// The nearest level, by brute force over what the format can decode to.
TEST(BlockWeight, TakesTheNearestValue) {
  const at::Tensor x = weights(1, 256, 5), w = weights(1, 256, 6, 0.2f);
  for (const Format f : grid_formats()) {
    const auto node = make(f, x);
    SCOPED_TRACE(node->describe());
    const FormatInfo& info = format_info(f);
    const formats::GridCodec& codec = *formats::grid_codec(f);
    const at::Tensor y = node->apply(w);
    const std::vector<std::byte> bytes = encoded(f, x);
    std::vector<float> scale(256), min(256);
    for (std::int64_t b = 0; b < 256 / info.block_size; ++b) {
      formats::read_grid(f, bytes.data() + b * info.block_bytes, scale.data(), min.data());
      for (std::int64_t j = 0; j < info.block_size; ++j) {
        const auto g = static_cast<std::size_t>(j / codec.group);
        const float v = w.data_ptr<float>()[b * info.block_size + j];
        float best = INFINITY;
        for (const float level : codec.levels)
          best = std::fmin(best, std::fabs(scale[g] * level + min[g] - v));
        const float off = std::fabs(y.data_ptr<float>()[b * info.block_size + j] - v);
        ASSERT_LE(off, best * (1 + 1e-5f) + 1e-7f) << b << " " << j;
      }
    }
  }
}

TEST(BlockWeight, StartLatentGivesTheStartAndLeansToTheReference) {
  const at::Tensor x = weights(4, 512, 7);
  for (const Format f : grid_formats()) {
    for (const BlockScales scales : {BlockScales::kFixed, BlockScales::kLearned}) {
      const auto node = make(f, x, {.scales = scales});
      SCOPED_TRACE(node->describe());
      // Codes that rounding would not choose, as error feedback leaves them.
      const at::Tensor reference = x + weights(4, 512, 8, 0.05f);
      const at::Tensor latent = node->start_latent(reference), start = node->start_values();
      EXPECT_TRUE(same_bits(start, decoded(f, encoded(f, x), 4, 512)));
      EXPECT_TRUE(at::equal(node->apply(latent), start));
      EXPECT_LT((latent - reference).abs().sum().item<float>(),
                (start - reference).abs().sum().item<float>());
    }
  }
}

TEST(BlockWeight, ZeroBlocks) {
  const at::Tensor x = at::zeros({1, 256}), w = weights(1, 256, 9);
  for (const Format f : grid_formats()) {
    const auto node = make(f, x, {.scales = BlockScales::kLearned});
    SCOPED_TRACE(node->describe());
    const at::Tensor latent = node->start_latent(w).requires_grad_(true);
    const at::Tensor y = node->apply(latent);
    EXPECT_EQ(y.abs().sum().item<float>(), 0.0f);
    if (f == Format::kMXFP4) continue;  // has no scale of 0
    // A wish for larger values of the same sign: the scale grows.
    y.backward(latent.detach().sign().neg());
    EXPECT_LT(node->parameters()[0].tensor.grad().max().item<float>(), 0.0f);
  }
}

TEST(BlockWeight, ClippedWeightsHaveNoGradientUnlessAsked) {
  const at::Tensor x = weights(1, 64, 10);
  for (const bool pass : {false, true}) {
    const auto node = make(Format::kQ4_0, x, {.pass_clipped = pass});
    at::Tensor w = x.clone();
    w[0][3] = 10;
    w[0][40] = -10;
    w.requires_grad_(true);
    node->apply(w).backward(at::full({1, 64}, 2.0f));
    EXPECT_EQ(w.grad()[0][3].item<float>(), pass ? 2.0f : 0.0f);
    EXPECT_EQ(w.grad()[0][40].item<float>(), pass ? 2.0f : 0.0f);
    EXPECT_EQ(w.grad()[0][5].item<float>(), 2.0f);
  }
  const auto anew = make(Format::kQ4_0, x, {.scales = BlockScales::kAbsMax});
  at::Tensor w = x.clone().requires_grad_(true);
  anew->apply(w).backward(at::full({1, 64}, 2.0f));
  EXPECT_TRUE(at::equal(w.grad(), at::full({1, 64}, 2.0f)));
}

TEST(BlockWeight, PhasesAndDtypes) {
  const at::Tensor x = weights(2, 64, 11);
  const auto node = make(Format::kQ4_0, x, {.scales = BlockScales::kLearned});
  node->set_phase(Phase::kOff);
  EXPECT_TRUE(node->apply(x).is_same(x));
  node->set_phase(Phase::kFrozen);
  EXPECT_FALSE(node->apply(x).requires_grad());
  node->set_phase(Phase::kOn);
  EXPECT_TRUE(node->apply(x).requires_grad());
  EXPECT_EQ(node->apply(x.to(at::kBFloat16)).scalar_type(), at::kBFloat16);
  const at::Tensor fine = node->apply(x.to(at::kDouble));
  EXPECT_EQ(fine.scalar_type(), at::kDouble);
  EXPECT_TRUE(at::equal(fine.to(at::kFloat), node->apply(x)));
}

TEST(BlockWeight, NaNIsNotHidden) {
  at::Tensor x = weights(1, 64, 12);
  const auto node = make(Format::kQ4_0, x);
  x[0][7] = NAN;
  EXPECT_TRUE(std::isnan(node->apply(x)[0][7].item<float>()));
  const auto bytes = node->encode(x);
  ASSERT_FALSE(bytes.ok());
  EXPECT_EQ(bytes.error().code, ErrorCode::kNumeric);
  EXPECT_EQ(bytes.error().message, "weight [0, 7] is nan; q4_0 stores finite numbers only");
}

TEST(BlockWeight, RefusesWhatDoesNotFit) {
  EXPECT_EQ(BlockWeight::create(Format::kIQ2_S, {}, 1, 256).error().code, ErrorCode::kUnsupported);
  EXPECT_EQ(BlockWeight::create(Format::kQ4_0, std::vector<std::byte>(18), 1, 33).error().code,
            ErrorCode::kInvalidArgument);
  EXPECT_EQ(BlockWeight::create(Format::kQ4_0, std::vector<std::byte>(17), 1, 32).error().message,
            "q4_0 weight of [1, 32] starts from 17 bytes, not from 18");
  std::vector<std::byte> infinite(18);
  infinite[1] = std::byte{0x7c};
  EXPECT_EQ(BlockWeight::create(Format::kQ4_0, infinite, 1, 32).error().code, ErrorCode::kNumeric);
}

}  // namespace
}  // namespace narrow::train
