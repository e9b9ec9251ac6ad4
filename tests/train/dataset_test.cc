#include "train/dataset.h"

#include <algorithm>
#include <set>

#include "testing/testing.h"

namespace narrow::train {
namespace {

// Tokens 1, 2, 3 ...: a window says where it came from.
Document counting(std::int64_t n) {
  Document d;
  for (std::int64_t i = 1; i <= n; ++i) d.ids.push_back(static_cast<std::int32_t>(i));
  return d;
}

std::vector<std::int64_t> firsts(const Batch& b, std::int64_t column) {
  std::vector<std::int64_t> out;
  for (std::int64_t i = 0; i < b.tokens.size(0); ++i) out.push_back(b.tokens[i][column].item<std::int64_t>());
  return out;
}

DatasetOptions options() {
  DatasetOptions o;
  o.n_ctx = 8;
  o.n_vocab = 1000;
  o.validation_windows = 3;
  o.seed = 5;
  return o;
}

TEST(Dataset, WindowsCoverTheTextOnce) {
  const Document docs[] = {counting(100)};
  ASSERT_OK_AND_ASSIGN(const Dataset data, Dataset::create(docs, options()));
  EXPECT_EQ(data.training_windows(), 9);
  EXPECT_EQ(data.validation_windows(), 3);
  EXPECT_EQ(data.text_tokens(), 100);
  EXPECT_EQ(data.dropped_tokens(), 4);
  std::set<std::int64_t> seen;
  for (std::int64_t step = 0; step < 3; ++step) {
    const Batch b = data.batch(step, {3, 0, 1});
    ASSERT_EQ(b.tokens.sizes(), (std::vector<std::int64_t>{3, 8}));
    for (const std::int64_t f : firsts(b, 0)) {
      EXPECT_EQ((f - 1) % 8, 0);
      EXPECT_TRUE(seen.insert(f).second) << f << " twice in an epoch";
    }
    EXPECT_EQ(b.tokens[0][7].item<std::int64_t>(), b.tokens[0][0].item<std::int64_t>() + 7);
    EXPECT_EQ(b.counted(), 3 * 7);  // the last token of a window predicts nothing
  }
  const Batch held = data.validation(0, 10);
  ASSERT_EQ(held.tokens.size(0), 3);
  EXPECT_EQ(firsts(held, 0), (std::vector<std::int64_t>{2 * 8 + 1, 6 * 8 + 1, 10 * 8 + 1}));  // evenly spread
  for (const std::int64_t f : firsts(held, 0)) EXPECT_FALSE(seen.contains(f)) << f << " was trained on";
  EXPECT_EQ(firsts(data.validation(1, 1), 0), (std::vector<std::int64_t>{6 * 8 + 1}));
}

TEST(Dataset, BosBeginsEveryWindow) {
  DatasetOptions o = options();
  o.bos = 999;
  const Document docs[] = {counting(30), counting(40)};
  ASSERT_OK_AND_ASSIGN(const Dataset data, Dataset::create(docs, o));
  EXPECT_EQ(data.training_windows() + data.validation_windows(), 10);  // 70 tokens in sevens: joined
  const Batch b = data.batch(0, {7, 0, 1});
  for (const std::int64_t f : firsts(b, 0)) EXPECT_EQ(f, 999);
  EXPECT_EQ(b.counted(), 7 * 7);
}

TEST(Dataset, BatchIsAFunctionOfSeedStepAndRank) {
  const Document docs[] = {counting(800)};
  ASSERT_OK_AND_ASSIGN(const Dataset data, Dataset::create(docs, options()));
  ASSERT_OK_AND_ASSIGN(const Dataset again, Dataset::create(docs, options()));
  const BatchPlan whole = {8, 0, 1};
  // In any order, also back into an earlier epoch and across the border of two.
  for (const std::int64_t step : {40, 3, 12, 0, 40}) {
    const Batch b = data.batch(step, whole);
    EXPECT_TRUE(at::equal(b.tokens, again.batch(step, whole).tokens));
    const Batch left = data.batch(step, {8, 0, 2}), right = data.batch(step, {8, 1, 2});
    EXPECT_TRUE(at::equal(b.tokens, at::cat({left.tokens, right.tokens})));
    EXPECT_TRUE(at::equal(b.mask, at::cat({left.mask, right.mask})));
  }
  EXPECT_NE(firsts(data.batch(0, {97, 0, 1}), 0), firsts(data.batch(1, {97, 0, 1}), 0)) << "not reshuffled";
  DatasetOptions other = options();
  other.seed = 6;
  ASSERT_OK_AND_ASSIGN(const Dataset reseeded, Dataset::create(docs, other));
  EXPECT_FALSE(at::equal(data.batch(0, whole).tokens, reseeded.batch(0, whole).tokens));
  EXPECT_DOUBLE_EQ(data.epochs(97, whole), 8.0);
}

TEST(Dataset, EveryEpochHasEveryWindowOnce) {
  const Document docs[] = {counting(800)};
  ASSERT_OK_AND_ASSIGN(const Dataset data, Dataset::create(docs, options()));
  for (std::int64_t epoch = 0; epoch < 3; ++epoch) {
    std::vector<std::int64_t> f = firsts(data.batch(epoch, {97, 0, 1}), 0);
    std::sort(f.begin(), f.end());
    EXPECT_EQ(std::unique(f.begin(), f.end()), f.end());
  }
}

TEST(Dataset, MaskIsOfThePredictedToken) {
  DatasetOptions o = options();
  o.validation_windows = 0;
  Document d = counting(24);
  d.counts.assign(24, 0);
  d.counts[0] = 1;  // begins a window: nothing predicts it, so this window has nothing to learn from
  d.counts[11] = d.counts[12] = 1;
  d.counts[23] = 1;
  const Document docs[] = {d};
  ASSERT_OK_AND_ASSIGN(const Dataset data, Dataset::create(docs, o));
  ASSERT_EQ(data.training_windows(), 2);
  EXPECT_EQ(data.dropped_tokens(), 8);
  const Batch b = data.batch(0, {2, 0, 1});
  for (std::int64_t w = 0; w < 2; ++w) {
    for (std::int64_t i = 0; i < 8; ++i) {
      const std::int64_t next = i < 7 ? b.tokens[w][i + 1].item<std::int64_t>() : -1;
      EXPECT_EQ(b.mask[w][i].item<bool>(), next == 12 || next == 13 || next == 24) << w << " " << i;
    }
  }
}

void expect_error(const Result<Dataset>& r, ErrorCode code, const std::vector<std::string>& words) {
  ASSERT_FALSE(r.ok());
  EXPECT_EQ(r.error().code, code);
  for (const auto& w : words) EXPECT_NE(r.error().message.find(w), std::string::npos) << r.error().message;
}

TEST(Dataset, RefusesWhatCannotBeTrainedOn) {
  const Document none[] = {counting(0)}, few[] = {counting(31)}, enough[] = {counting(32)};
  expect_error(Dataset::create({}, options()), ErrorCode::kInvalidArgument, {"no token"});
  expect_error(Dataset::create(none, options()), ErrorCode::kInvalidArgument, {"no token"});
  expect_error(Dataset::create(few, options()), ErrorCode::kInvalidArgument, {"31", "32", "3 held out"});
  EXPECT_OK(Dataset::create(enough, options()));
  DatasetOptions small = options();
  small.n_vocab = 32;
  expect_error(Dataset::create(enough, small), ErrorCode::kCorrupt, {"32", "another model"});
  Document silent = counting(32);
  silent.counts.assign(32, 0);
  const Document silents[] = {silent};
  expect_error(Dataset::create(silents, options()), ErrorCode::kInvalidArgument, {"answer"});
  DatasetOptions one = options();
  one.n_ctx = 1;
  expect_error(Dataset::create(enough, one), ErrorCode::kInvalidArgument, {"1 tokens"});
  EXPECT_FALSE(Dataset::check({8, 0, 3}).ok());
  EXPECT_FALSE(Dataset::check({8, 2, 2}).ok());
  EXPECT_OK(Dataset::check({8, 1, 2}));
}

}  // namespace
}  // namespace narrow::train
