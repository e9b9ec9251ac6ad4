#include "train/nodes/codebook_weight.h"

#include <gtest/gtest.h>

#include "testing/testing.h"
#include "train/nodes/random.h"

namespace narrow::train {
namespace {

using testing::random;
using testing::same_bits;

constexpr std::int64_t kN = 3, kK = 512;

std::vector<std::byte> codebook_bytes(Format f, const at::Tensor& w) {
  std::vector<std::byte> out(kN * row_bytes(f, kK));
  const std::vector<float> importance(kK, 1.0f);
  for (std::int64_t r = 0; r < kN; ++r) {
    format_info(f).encode(w.data_ptr<float>() + r * kK,
                          out.data() + static_cast<std::size_t>(r) * row_bytes(f, kK), kK,
                          {.importance = importance.data(), .search = true});
  }
  return out;
}

at::Tensor codebook_values(Format f, const std::vector<std::byte>& bytes) {
  at::Tensor out = at::empty({kN, kK});
  for (std::int64_t r = 0; r < kN; ++r) {
    EXPECT_OK(decode_row(f, bytes.data() + static_cast<std::size_t>(r) * row_bytes(f, kK),
                         out.data_ptr<float>() + r * kK, kK));
  }
  return out;
}

// f(format, node, start bytes)
template <class F>
void for_formats(const F& f) {
  int formats = 0;
  for (const FormatInfo& info : all_formats()) {
    if (!CodebookWeight::supports(info.format)) continue;
    ++formats;
    SCOPED_TRACE(info.name);
    const std::vector<std::byte> start = codebook_bytes(info.format, random(kN, kK, 5, 0.05f));
    ASSERT_OK_AND_ASSIGN(const auto node, CodebookWeight::create(info.format, start, kN, kK));
    f(info.format, *node, start);
  }
  EXPECT_GE(formats, 5);
}

TEST(CodebookWeight, StartsAsTheBytesItIsGiven) {
  for_formats([](Format f, CodebookWeight& node, const std::vector<std::byte>& start) {
    const at::Tensor w = random(kN, kK, 1);
    EXPECT_TRUE(same_bits(node.apply(w).detach(), codebook_values(f, start)));
    const auto bytes = node.encode(w);
    ASSERT_OK(bytes);
    EXPECT_EQ(*bytes, start);
  });
}

TEST(CodebookWeight, StoresWhatItComputedWith) {
  for_formats([](Format f, CodebookWeight& node, const std::vector<std::byte>& start) {
    {
      const at::NoGradGuard off;
      node.parameters()[0].tensor.mul_(1.0371);
    }
    const at::Tensor w = at::zeros({kN, kK});
    const auto bytes = node.encode(w);
    ASSERT_OK(bytes);
    EXPECT_NE(*bytes, start);
    EXPECT_TRUE(same_bits(node.apply(w).detach(), codebook_values(f, *bytes)));
  });
}

// Values are linear in the factors.
TEST(CodebookWeight, GradientsAreThoseOfTheFactors) {
  for_formats([](Format f, CodebookWeight& node, const std::vector<std::byte>& start) {
    const at::Tensor c = random(kN, kK, 2), factor = node.parameters()[0].tensor;
    torch::autograd::backward({(c * node.apply(at::zeros({kN, kK}))).sum()}, {});
    const at::Tensor want =
        (c * codebook_values(f, start)).view({kN, factor.size(1), -1}).sum(-1) / factor.detach();
    EXPECT_TRUE(at::allclose(factor.grad(), want, 1e-4, 1e-3));
    EXPECT_GT(want.abs().max().item<double>(), 1.0);
  });
}

TEST(CodebookWeight, BadInputIsRefused) {
  const std::vector<std::byte> start = codebook_bytes(Format::kIQ3_XXS, random(kN, kK, 5, 0.05f));
  EXPECT_EQ(CodebookWeight::create(Format::kQ4_0, start, kN, kK).status().error().code,
            ErrorCode::kUnsupported);
  EXPECT_EQ(CodebookWeight::create(Format::kIQ3_XXS, start, kN + 1, kK).status().error().code,
            ErrorCode::kInvalidArgument);
  std::vector<std::byte> bad = start;
  bad[1] = std::byte{0x7c};  // infinity
  bad[0] = std::byte{0};
  EXPECT_EQ(CodebookWeight::create(Format::kIQ3_XXS, bad, kN, kK).status().error().code, ErrorCode::kNumeric);
}

}  // namespace
}  // namespace narrow::train
