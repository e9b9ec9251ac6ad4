#include "calib/walk.h"

#include "model/tiny_models.h"
#include "testing/testing.h"

namespace narrow::calib {
namespace {

TokenWindows some_windows(std::int32_t n_vocab) {
  TokenWindows w;
  w.lengths = {300, 300, 200, 312, 100};  // three steps of at most 512 tokens
  std::int32_t t = 3;
  for (const std::int64_t n : w.lengths) {
    for (std::int64_t i = 0; i < n; ++i) w.tokens.push_back(t = (t * 7 + 5) % n_vocab);
  }
  return w;
}

std::vector<float> values(Stream& s) { return {s.all().data, s.all().data + s.size() * s.width()}; }

// A layer's halves one after the other are the layer, to the bit; a parallel residual has none.
TEST(Walk, HalvesMakeTheLayer) {
  NARROW_REQUIRE_SHARED();
  for (const std::string name : model::kTinyModels) {
    SCOPED_TRACE(name);
    ASSERT_OK_AND_ASSIGN(const std::shared_ptr<const model::ModelSource> source,
                         model::ModelSource::open(model::tiny(name)));
    if (source->config().parallel_residual) continue;
    const TokenWindows windows = some_windows(static_cast<std::int32_t>(source->config().n_vocab));
    ASSERT_OK_AND_ASSIGN(Stream whole, embed(source, windows));
    Stream parts = whole.copy();
    ASSERT_OK(run_layer(source, 0, windows, whole, &whole, nullptr, null_progress()));
    WalkOptions options;
    options.half = runtime::Half::kAttention;
    ASSERT_OK(run_layer(source, 0, windows, parts, &parts, nullptr, null_progress(), options));
    EXPECT_NE(values(parts), values(whole));
    options.half = runtime::Half::kFeedForward;
    ASSERT_OK(run_layer(source, 0, windows, parts, &parts, nullptr, null_progress(), options));
    EXPECT_EQ(values(parts), values(whole));
  }
}

TEST(Walk, StepsThatAreNotTakenStay) {
  NARROW_REQUIRE_SHARED();
  ASSERT_OK_AND_ASSIGN(const std::shared_ptr<const model::ModelSource> source,
                       model::ModelSource::open(model::tiny("llama")));
  const TokenWindows windows = some_windows(static_cast<std::int32_t>(source->config().n_vocab));
  ASSERT_OK_AND_ASSIGN(const LayerRun run, LayerRun::create(source, 0, windows));
  ASSERT_GE(run.steps().size(), 3u);
  ASSERT_OK_AND_ASSIGN(Stream before, embed(source, windows));
  Stream all = before.copy(), some = before.copy();
  ASSERT_OK(run_layer(source, 0, windows, all, &all, nullptr, null_progress()));
  WalkOptions options;
  options.every = 2;
  ASSERT_OK(run_layer(source, 0, windows, some, &some, nullptr, null_progress(), options));
  for (std::size_t i = 0; i < run.steps().size(); ++i) {
    const WalkStep& s = run.steps()[i];
    Stream& same_as = i % 2 == 0 ? all : before;
    for (std::int64_t j = 0; j < s.tokens * all.width(); ++j) {
      ASSERT_EQ(some.rows(s.begin, s.tokens).data[j], same_as.rows(s.begin, s.tokens).data[j]) << i;
    }
  }
}

}  // namespace
}  // namespace narrow::calib
