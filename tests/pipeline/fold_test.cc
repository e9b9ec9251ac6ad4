// Scales folded into a model's weights leave what it computes as it was, in every architecture.
#include "model/fold.h"

#include <map>
#include <set>

#include "same_function.h"

namespace narrow::model {
namespace {

using narrow::testing::greatest_difference;
using narrow::testing::logits_of;

std::vector<float> random_scales(std::int64_t n, std::uint64_t seed) {
  Rng rng(seed);
  std::vector<float> s;
  for (std::int64_t i = 0; i < n; ++i) s.push_back(std::exp2(rng.uniform(-1.5f, 1.5f)));
  return s;
}

class Folds : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    NARROW_REQUIRE_SHARED();
    ASSERT_OK_AND_ASSIGN(source_, narrow::testing::open_tiny(GetParam()));
    ASSERT_OK_AND_ASSIGN(plan_, find_folds(*source_));
    ASSERT_OK_AND_ASSIGN(before_, logits_of(source_));
  }
  std::shared_ptr<const ModelSource> source_;
  FoldPlan plan_;
  std::vector<float> before_;
};

TEST_P(Folds, KeepTheFunction) {
  ASSERT_FALSE(plan_.groups.empty());
  const auto all = std::make_shared<OverlaySource>(source_);
  std::map<FoldKind, std::shared_ptr<OverlaySource>> by_kind;
  std::uint64_t seed = 1;
  for (const FoldGroup& g : plan_.groups) {
    auto& own = by_kind[g.kind];
    if (!own) own = std::make_shared<OverlaySource>(source_);
    const std::vector<float> s = random_scales(g.channels, ++seed);
    ASSERT_OK(apply_fold(g, s, *own));
    ASSERT_OK(apply_fold(g, s, *all));
  }
  for (const auto& [kind, overlay] : by_kind) {
    ASSERT_OK_AND_ASSIGN(const std::vector<float> after, logits_of(overlay));
    EXPECT_LE(greatest_difference(before_, after), 1e-3f) << fold_name(kind);
  }
  ASSERT_OK_AND_ASSIGN(const std::vector<float> after, logits_of(all));
  EXPECT_LE(greatest_difference(before_, after), 1e-3f) << "all together";
}

// One side alone must show: otherwise the test above would see nothing.
TEST_P(Folds, OneSideAloneChangesIt) {
  std::set<FoldKind> seen;
  for (FoldGroup g : plan_.groups) {
    if (!seen.insert(g.kind).second) continue;
    g.consumers.clear();
    const auto overlay = std::make_shared<OverlaySource>(source_);
    ASSERT_OK(apply_fold(g, random_scales(g.channels, 5), *overlay));
    ASSERT_OK_AND_ASSIGN(const std::vector<float> after, logits_of(overlay));
    EXPECT_GT(greatest_difference(before_, after), 1e-3f) << g.name;
  }
}

TEST_P(Folds, EveryMatrixHasOnePlaceAtMostOnEachSide) {
  std::map<std::size_t, std::int64_t> consumed;  // rows of each tensor that take scales on their input side
  for (const FoldGroup& g : plan_.groups) {
    for (const FoldPart& p : g.consumers) {
      if (p.columns) consumed[p.tensor] += p.row_end - p.row_begin;
    }
  }
  for (const auto& [tensor, rows] : consumed) {
    EXPECT_EQ(rows, source_->tensors()[tensor].shape.rows()) << source_->tensors()[tensor].name;
  }
}

INSTANTIATE_TEST_SUITE_P(All, Folds, ::testing::ValuesIn(narrow::testing::kTinyModels), [](const auto& m) {
  std::string s = m.param;
  std::replace(s.begin(), s.end(), '-', '_');
  return s;
});

TEST(FoldPlans, SayWhatIsRefusedAndWhy) {
  NARROW_REQUIRE_SHARED();
  struct Row {
    const char *model, *part;
    std::set<FoldKind> kinds;
  };
  using K = FoldKind;
  const Row rows[] = {
      {"llama",
       "llama: the head is tied",
       {K::kAttnNorm, K::kFfnNorm, K::kUpDown, K::kValueOutput, K::kKeyQuery}},
      {"llama3-rope",
       "",
       {K::kAttnNorm, K::kFfnNorm, K::kUpDown, K::kValueOutput, K::kKeyQuery, K::kFinalNorm}},
      {"olmo2", "olmo2: no norm comes before attention", {K::kUpDown, K::kValueOutput, K::kFinalNorm}},
      {"gemma3",
       "gemma3: queries and keys are normalised",
       {K::kAttnNorm, K::kFfnNorm, K::kUpDown, K::kValueOutput}},
      {"gpt2",
       "gpt2: the activation between up and down",
       {K::kAttnNorm, K::kFfnNorm, K::kValueOutput, K::kKeyQuery}},
  };
  for (const Row& row : rows) {
    ASSERT_OK_AND_ASSIGN(const auto source, narrow::testing::open_tiny(row.model));
    ASSERT_OK_AND_ASSIGN(const FoldPlan plan, find_folds(*source));
    std::set<FoldKind> kinds;
    for (const FoldGroup& g : plan.groups) kinds.insert(g.kind);
    EXPECT_EQ(kinds, row.kinds) << row.model;
    std::string all;
    for (const FoldRefusal& r : plan.refused) {
      EXPECT_FALSE(kinds.contains(r.kind));
      all += r.reason + "\n";
    }
    EXPECT_NE(all.find(row.part), std::string::npos) << all;
    EXPECT_EQ(all.empty(), !*row.part) << all;
  }
}

TEST(FoldPlans, BadScalesAreRefused) {
  NARROW_REQUIRE_SHARED();
  ASSERT_OK_AND_ASSIGN(const auto source, narrow::testing::open_tiny("qwen3_moe"));
  ASSERT_OK_AND_ASSIGN(const FoldPlan plan, find_folds(*source));
  OverlaySource overlay(source);
  const FoldGroup& g = plan.groups.front();
  std::vector<float> s(static_cast<std::size_t>(g.channels), 1.0f);
  s.pop_back();
  EXPECT_EQ(apply_fold(g, s, overlay).error().message, "blk.0.attn_norm: 95 scales for 96 channels");
  for (const float bad : {0.0f, -1.0f, std::numeric_limits<float>::infinity(), 1e-45f}) {
    s.assign(96, 1.0f);
    s[3] = bad;
    const Status status = apply_fold(g, s, overlay);
    ASSERT_FALSE(status.ok()) << bad;
    EXPECT_EQ(status.error().message.find("blk.0.attn_norm: the scale of channel 3 is "), 0u);
  }
  EXPECT_FALSE(overlay.replaced(g.producers[0].tensor));
  // Experts have groups of their own.
  EXPECT_EQ(
      std::count_if(plan.groups.begin(), plan.groups.end(), [](const auto& x) { return x.expert == 7; }), 3);
}

TEST(FoldPlans, ChannelsAreSummedUp) {
  FoldPart part;
  part.channel = {0, 1, 0, -1, 1};
  const std::vector<float> values = {1, 2, 3, 100, 6};
  EXPECT_EQ(channel_max(part, 3, values), (std::vector<float>{3, 6, 0}));
  EXPECT_EQ(channel_mean(part, 3, values), (std::vector<float>{2, 4, 0}));
}

}  // namespace
}  // namespace narrow::model
