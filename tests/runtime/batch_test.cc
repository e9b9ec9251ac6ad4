// Sequences that advance together against each alone.
#include "runtime/batch.h"

#include "base/thread_team.h"
#include "runtime/toy_source.h"
#include "runtime/weights.h"
#include "testing/testing.h"

namespace narrow::runtime {
namespace {

constexpr std::int64_t kVocab = 11;

std::shared_ptr<const LoadedModel> quantized_model(Format format = Format::kQ8_0) {
  auto model = LoadedModel::load(std::make_shared<ToySource>(16, format));
  EXPECT_OK(model);
  EXPECT_TRUE((*model)->weights().head.packed());
  return *model;
}

std::vector<std::int32_t> some_tokens(std::size_t n, std::int32_t seed) {
  std::vector<std::int32_t> ids(n);
  for (std::size_t i = 0; i < n; ++i) ids[i] = static_cast<std::int32_t>((i * i + 3 * i) % 7 + 1) + seed % 3;
  return ids;
}

// Logits of all tokens, the sequence alone and all at once.
std::vector<float> alone(const std::shared_ptr<const LoadedModel>& model,
                         const std::vector<std::int32_t>& ids) {
  auto session = Session::create(model);
  EXPECT_OK(session);
  std::vector<float> logits;
  EXPECT_OK((*session)->forward(ids, LogitRows::kAll, logits));
  return logits;
}

std::vector<float> row(const std::vector<float>& logits, std::size_t r) {
  const auto begin = logits.begin() + static_cast<std::ptrdiff_t>(r * kVocab);
  return {begin, begin + kVocab};
}

TEST(Batch, SequencesEqualThemselvesAlone) {
  for (const Format format : {Format::kQ8_0, Format::kQ4_0}) {
    const auto model = quantized_model(format);
    const std::vector<std::vector<std::int32_t>> texts = {some_tokens(70, 0), some_tokens(5, 1),
                                                          some_tokens(600, 2)};
    ASSERT_OK_AND_ASSIGN(auto batch, Batch::create(model, 3));
    std::vector<Batch::Step> steps;
    for (int s = 0; s < 3; ++s) steps.push_back({s, texts[static_cast<std::size_t>(s)], 0});
    std::vector<float> together;
    ASSERT_OK(batch->forward(steps, together));
    std::vector<float> want;
    for (const auto& ids : texts) {
      const std::vector<float> one = alone(model, ids);
      want.insert(want.end(), one.begin(), one.end());
    }
    EXPECT_EQ(together, want);

    // Token by token after that, all sequences in one pass.
    std::vector<float> step_logits;
    std::vector<std::vector<std::int32_t>> longer = texts;
    for (std::int32_t i = 0; i < 3; ++i) {
      std::vector<std::int32_t> next = {1 + i, 4, 9 - i};
      steps.clear();
      for (std::size_t s = 0; s < 3; ++s) {
        steps.push_back({static_cast<int>(s), {&next[s], 1}, 0});
        longer[s].push_back(next[s]);
      }
      ASSERT_OK(batch->forward(steps, step_logits));
    }
    for (std::size_t s = 0; s < 3; ++s) {
      EXPECT_EQ(batch->position(static_cast<int>(s)), static_cast<std::int64_t>(longer[s].size()));
      const std::vector<float> one = alone(model, longer[s]);
      const std::vector<float> got = row(step_logits, s), expected = row(one, longer[s].size() - 1);
      for (std::size_t v = 0; v < got.size(); ++v) EXPECT_NEAR(got[v], expected[v], 2e-2f) << s << " " << v;
    }
  }
}

TEST(Batch, SameLogitsForAnyThreadCount) {
  const auto model = quantized_model();
  const std::vector<std::int32_t> ids = some_tokens(300, 1);
  set_thread_count(1);
  const std::vector<float> one = alone(model, ids);
  for (const int threads : {2, 5}) {
    set_thread_count(threads);
    EXPECT_EQ(alone(model, ids), one) << threads;
  }
  set_thread_count(0);
}

TEST(Batch, LogitsOnlyWhereAskedFor) {
  const auto model = quantized_model();
  const std::vector<std::int32_t> a = some_tokens(40, 0), b = some_tokens(30, 2);
  ASSERT_OK_AND_ASSIGN(auto batch, Batch::create(model, 2));
  const Batch::Step steps[] = {{1, a, 38}, {0, b, 30}};
  std::vector<float> logits;
  ASSERT_OK(batch->forward(steps, logits));
  ASSERT_EQ(logits.size(), 2u * kVocab);
  const std::vector<float> all = alone(model, a);
  EXPECT_EQ(row(logits, 0), row(all, 38));
  EXPECT_EQ(row(logits, 1), row(all, 39));
}

TEST(Batch, SharedPrefixIsSharedAndIndependent) {
  const auto model = quantized_model();
  const std::vector<std::int32_t> prefix = some_tokens(200, 0);
  ASSERT_OK_AND_ASSIGN(auto batch, Batch::create(model, 3));
  std::vector<float> logits;
  const Batch::Step fill[] = {{0, prefix, prefix.size()}};
  ASSERT_OK(batch->forward(fill, logits));
  EXPECT_TRUE(logits.empty());
  const std::uint64_t before = batch->cache_bytes();
  ASSERT_OK(batch->share_prefix(0, 1, 150));
  ASSERT_OK(batch->share_prefix(0, 2, 200));
  EXPECT_EQ(batch->cache_bytes(), before);
  EXPECT_EQ(batch->position(1), 150);

  const std::vector<std::int32_t> tails[] = {{1, 2, 3}, {4, 5, 6}, {7, 8, 9}};
  const Batch::Step steps[] = {{0, tails[0], 2}, {1, tails[1], 2}, {2, tails[2], 2}};
  ASSERT_OK(batch->forward(steps, logits));
  EXPECT_GT(batch->cache_bytes(), before);
  for (std::size_t s = 0; s < 3; ++s) {
    ASSERT_OK_AND_ASSIGN(auto single, Batch::create(model, 1));
    const std::span<const std::int32_t> head(prefix.data(), s == 1 ? 150 : 200);
    std::vector<float> want;
    const Batch::Step first[] = {{0, head, head.size()}};
    ASSERT_OK(single->forward(first, want));
    const Batch::Step second[] = {{0, tails[s], 2}};
    ASSERT_OK(single->forward(second, want));
    EXPECT_EQ(row(logits, s), want) << s;
  }
}

TEST(Batch, BadStepsChangeNothing) {
  const auto model = quantized_model();
  SessionOptions options;
  options.n_ctx = 8;
  ASSERT_OK_AND_ASSIGN(auto batch, Batch::create(model, 2, options));
  const std::vector<std::int32_t> ids = {1, 2, 3, 4, 5}, bad = {1, 99};
  std::vector<float> logits;
  const Batch::Step good[] = {{0, ids, 4}};
  ASSERT_OK(batch->forward(good, logits));
  const std::vector<std::vector<Batch::Step>> cases = {
      {{2, ids, 0}}, {{-1, ids, 0}}, {{1, ids, 0}, {1, ids, 0}}, {{1, ids, 6}}, {{1, ids, 0}, {0, ids, 0}},
      {{1, bad, 0}}};
  for (const auto& steps : cases) {
    const Status s = batch->forward(steps, logits);
    ASSERT_FALSE(s.ok());
    EXPECT_EQ(s.error().code, ErrorCode::kInvalidArgument);
    EXPECT_EQ(batch->position(0), 5);
    EXPECT_EQ(batch->position(1), 0);
  }
  EXPECT_FALSE(batch->share_prefix(0, 0, 1).ok());
  EXPECT_FALSE(batch->share_prefix(0, 1, 6).ok());
  EXPECT_FALSE(batch->share_prefix(0, 7, 1).ok());
  EXPECT_FALSE(Batch::create(model, 0).ok());
}

}  // namespace
}  // namespace narrow::runtime
