// Rotations folded into a model's weights leave what it computes as it was; where they cannot, a sentence
// says why.
#include "model/rotate.h"

#include <cstring>
#include <map>

#include "base/thread_team.h"
#include "model/fold.h"
#include "model/overlay.h"
#include "model/tiny_models.h"
#include "same_function.h"

namespace narrow::model {
namespace {

using narrow::testing::greatest_difference;
using narrow::testing::logits_of;
using narrow::testing::open_tiny;

// Archs whose residual stream cannot be turned, and the reason.
const std::map<std::string, std::string> kRefused = {
    {"gemma2",
     "gemma2: the gains of 'blk.0.post_attention_norm.weight' differ and are applied to what enters the "
     "residual stream, where no weight can take them, so the stream cannot be rotated"},
    {"gemma3",
     "gemma3: the gains of 'blk.0.post_attention_norm.weight' differ and are applied to what enters the "
     "residual stream, where no weight can take them, so the stream cannot be rotated"},
    {"olmo2",
     "olmo2: the gains of 'blk.0.post_attention_norm.weight' differ and are applied to what enters the "
     "residual stream, where no weight can take them, so the stream cannot be rotated"},
    {"llama",
     "llama: the head is tied to the embedding and the final norm's gains differ; residual rotation would "
     "need an untied head (+0 MB as f32)"},
};

class Rotations : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    NARROW_REQUIRE_SHARED();
    ASSERT_OK_AND_ASSIGN(source_, open_tiny(GetParam()));
    ASSERT_OK_AND_ASSIGN(before_, logits_of(source_));
  }
  std::shared_ptr<const ModelSource> source_;
  std::vector<float> before_;
};

TEST_P(Rotations, OfHeadsKeepTheFunction) {
  const auto turned = std::make_shared<TransformedSource>(source_);
  ASSERT_OK(rotate_heads(11, *turned));
  std::size_t changed = 0;
  for (std::size_t i = 0; i < turned->tensors().size(); ++i) {
    if (!turned->changed(i)) continue;
    ++changed;
    EXPECT_NE(read_all(*turned, i), read_all(*source_, i)) << turned->tensors()[i].name;
  }
  EXPECT_GE(changed, 2u * static_cast<std::size_t>(source_->config().n_layer));
  ASSERT_OK_AND_ASSIGN(const std::vector<float> after, logits_of(turned));
  EXPECT_LE(greatest_difference(before_, after), 1e-3f);
}

TEST_P(Rotations, OfTheResidualStreamKeepTheFunction) {
  ASSERT_OK_AND_ASSIGN(const std::string refusal, residual_refusal(*source_));
  const auto turned = std::make_shared<TransformedSource>(source_);
  if (const auto it = kRefused.find(GetParam()); it != kRefused.end()) {
    EXPECT_EQ(refusal, it->second);
    const Status s = rotate_residual(11, *turned);
    ASSERT_FALSE(s.ok());
    EXPECT_EQ(s.error().code, ErrorCode::kUnsupported);
    EXPECT_EQ(s.error().message, refusal);
    return;
  }
  if (!refusal.empty()) {
    EXPECT_NE(refusal.find("tied to the embedding"), std::string::npos) << refusal;
    EXPECT_TRUE(source_->config().tied_head);
    return;
  }
  ASSERT_OK(rotate_heads(12, *turned));
  ASSERT_OK(rotate_residual(11, *turned));
  const std::size_t embedding = *turned->find("token_embd.weight");
  EXPECT_NE(read_all(*turned, embedding), read_all(*source_, embedding));
  ASSERT_OK_AND_ASSIGN(const std::vector<float> after, logits_of(turned));
  EXPECT_LE(greatest_difference(before_, after), 1e-3f);
}

// A tied head allows it once the final gains are all the same.
TEST_P(Rotations, OfATiedStreamNeedEqualFinalGains) {
  ASSERT_OK_AND_ASSIGN(const std::string refusal, residual_refusal(*source_));
  if (refusal.find("tied") == std::string::npos || source_->config().norm == NormKind::kLayer) return;
  const auto flat = std::make_shared<OverlaySource>(source_);
  ASSERT_OK(flat->replace(*source_->find("output_norm.weight"),
                          std::vector<float>(static_cast<std::size_t>(source_->config().n_embd), 1.5f)));
  ASSERT_OK_AND_ASSIGN(const std::vector<float> before, logits_of(flat));
  const auto turned = std::make_shared<TransformedSource>(flat);
  ASSERT_OK(rotate_residual(3, *turned));
  ASSERT_OK_AND_ASSIGN(const std::vector<float> after, logits_of(turned));
  EXPECT_LE(greatest_difference(before, after), 1e-3f);
}

// Ranges of rows are pieces of the whole, for any number of threads, and folds can follow.
TEST_P(Rotations, ReadAlikeInPieces) {
  std::vector<std::vector<float>> first;
  for (const int threads : {1, 3}) {
    set_thread_count(threads);
    const auto turned = std::make_shared<TransformedSource>(source_);
    ASSERT_OK(rotate_heads(1, *turned));
    ASSERT_OK_AND_ASSIGN(const FoldPlan plan, find_folds(*turned));
    for (const FoldGroup& g : plan.groups) {
      ASSERT_OK(apply_fold(g, std::vector<float>(static_cast<std::size_t>(g.channels), 0.5f), *turned));
    }
    for (std::size_t i = 0; i < turned->tensors().size(); ++i) {
      const std::vector<float> all = read_all(*turned, i);
      const Shape& shape = turned->tensors()[i].shape;
      const std::int64_t mid = shape.rows() / 3, k = shape.row_length();
      std::vector<std::byte> raw(static_cast<std::size_t>((shape.rows() - mid) * k) * sizeof(float));
      if (turned->changed(i)) {
        EXPECT_TRUE(turned->view(i).empty());
        EXPECT_EQ(turned->tensors()[i].format, Format::kF32);
        ASSERT_OK(turned->read_raw(i, mid, shape.rows(), raw.data()));
        EXPECT_EQ(std::memcmp(raw.data(), all.data() + mid * k, raw.size()), 0);
      }
      if (threads == 1) first.push_back(all);
      EXPECT_EQ(first[i], all);
    }
    ASSERT_OK_AND_ASSIGN(const std::vector<float> after, logits_of(turned));
    EXPECT_LE(greatest_difference(before_, after), 1e-3f);
  }
  set_thread_count(0);
}

INSTANTIATE_TEST_SUITE_P(All, Rotations, ::testing::ValuesIn(narrow::testing::kTinyModels),
                         [](const auto& m) {
                           std::string s = m.param;
                           std::replace(s.begin(), s.end(), '-', '_');
                           return s;
                         });

}  // namespace
}  // namespace narrow::model
