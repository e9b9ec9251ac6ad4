#include "eval/evaluate.h"

#include <cmath>

#include "base/rng.h"
#include "base/thread_team.h"
#include "eval/speed.h"
#include "testing/testing.h"

namespace narrow::eval {
namespace {

// A model whose logits depend on nothing but the last token and the position, so that every number can be
// checked by hand, and which records what it was fed.
class ToySession final : public runtime::Session {
 public:
  explicit ToySession(std::int64_t vocab, float sharpness = 1.0f) : vocab_(vocab), sharpness_(sharpness) {}
  Status forward(std::span<const std::int32_t> tokens, runtime::LogitRows rows,
                 std::vector<float>& logits) override {
    logits.clear();
    for (const std::int32_t t : tokens) {
      fed.push_back(t);
      if (rows == runtime::LogitRows::kAll) append(t, logits);
    }
    if (rows == runtime::LogitRows::kLast) append(tokens.back(), logits);
    return {};
  }
  Status forward_from(std::span<const std::int32_t>, std::size_t, std::vector<float>&) override {
    return make_error(ErrorCode::kUnsupported, "not used here");
  }
  std::int64_t position() const override { return static_cast<std::int64_t>(fed.size()); }
  Status truncate(std::int64_t) override {
    ++resets;
    return {};
  }
  std::int64_t n_ctx() const override { return 1 << 20; }
  std::uint64_t cache_bytes() const override { return 0; }
  std::vector<std::int32_t> fed;
  int resets = 0;

 private:
  void append(std::int32_t t, std::vector<float>& logits) const {
    for (std::int64_t v = 0; v < vocab_; ++v)
      logits.push_back(sharpness_ * static_cast<float>((v * 7 + t * 3) % 11));
  }
  std::int64_t vocab_;
  float sharpness_;
};

TEST(CutWindows, LlamaPerplexityScoresTheSecondHalf) {
  Protocol p;
  p.n_ctx = 8;
  ASSERT_OK_AND_ASSIGN(const auto w, cut_windows(27, p));
  ASSERT_EQ(w.size(), 3u);
  EXPECT_EQ(w[2].begin, 16);
  EXPECT_EQ(w[2].size, 8);
  // llama-perplexity scores n_ctx - n_ctx/2 - 1 tokens of each window.
  EXPECT_EQ(w[2].size - w[2].first_scored, 3);
}

TEST(CutWindows, SlidingWindowScoresEachTokenOnce) {
  for (const std::int64_t n : {16, 17, 40, 41, 63}) {
    for (const std::int64_t stride : {1, 5, 8, 15}) {
      Protocol p;
      p.n_ctx = 16;
      p.stride = stride;
      ASSERT_OK_AND_ASSIGN(const auto windows, cut_windows(n, p));
      std::vector<int> scored(static_cast<std::size_t>(n), 0);
      for (const Window& w : windows) {
        EXPECT_LE(w.size, p.n_ctx);
        for (std::int64_t i = w.first_scored; i < w.size; ++i)
          scored[static_cast<std::size_t>(w.begin + i)]++;
      }
      EXPECT_EQ(scored[0], 0);
      for (std::size_t i = 1; i < scored.size(); ++i)
        EXPECT_EQ(scored[i], 1) << "n " << n << " stride " << stride;
    }
  }
}

TEST(CutWindows, RefusesWhatCannotBeMeasured) {
  Protocol p;
  EXPECT_EQ(cut_windows(511, p).error().code, ErrorCode::kInvalidArgument);
  p.stride = 512;
  EXPECT_FALSE(cut_windows(5000, p).ok());
  p = {};
  p.n_ctx = 2;
  EXPECT_FALSE(cut_windows(5000, p).ok());
  p = {};
  p.max_windows = -1;
  EXPECT_FALSE(cut_windows(5000, p).ok());
}

TEST(Evaluate, FeedsTheWindowsAndPutsBosFirst) {
  std::vector<std::int32_t> ids(20);
  for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<std::int32_t>(i % 5);
  Protocol p;
  p.n_ctx = 8;
  p.bos = 9;
  ToySession s(11);
  ASSERT_OK_AND_ASSIGN(const Evaluation e, evaluate(s, 11, nullptr, ids, p, null_progress()));
  EXPECT_EQ(s.resets, 2);
  EXPECT_EQ(e.windows, 2u);
  EXPECT_EQ(e.scores.size(), 6u);
  EXPECT_EQ(s.fed.size(), 14u);  // the last token of a window is predicted, not fed
  EXPECT_EQ(s.fed[0], 9);
  EXPECT_EQ(s.fed[7], 9);
  EXPECT_EQ(s.fed[8], ids[9]);
}

TEST(Evaluate, ScoresAreThoseOfTheTrueNextToken) {
  Rng rng(4);
  std::vector<std::int32_t> ids(64);
  for (std::int32_t& id : ids) id = static_cast<std::int32_t>(rng.next_u64() % 11);
  Protocol p;
  p.n_ctx = 16;
  ToySession model(11), reference(11, 1.5f);
  ASSERT_OK_AND_ASSIGN(const Evaluation e, evaluate(model, 11, &reference, ids, p, null_progress()));
  std::size_t i = 0;
  for (std::int64_t w = 0; w < 4; ++w) {
    for (std::int64_t t = 9; t < 16; ++t, ++i) {
      ToySession a(11), b(11, 1.5f);
      std::vector<float> la, lb;
      const std::int32_t prev = ids[static_cast<std::size_t>(w * 16 + t - 1)];
      ASSERT_OK(a.forward({&prev, 1}, runtime::LogitRows::kLast, la));
      ASSERT_OK(b.forward({&prev, 1}, runtime::LogitRows::kLast, lb));
      const TokenScore s = score_token(la, lb, ids[static_cast<std::size_t>(w * 16 + t)]);
      EXPECT_EQ(s.nll, e.scores[i].nll);
      EXPECT_EQ(s.kl, e.scores[i].kl);
    }
  }
  EXPECT_EQ(i, e.scores.size());
}

TEST(Evaluate, ADamagedModelIsANumericError) {
  std::vector<std::int32_t> ids(16, 1);
  Protocol p;
  p.n_ctx = 8;
  ToySession s(11, std::nanf(""));
  const auto e = evaluate(s, 11, nullptr, ids, p, null_progress());
  ASSERT_FALSE(e.ok());
  EXPECT_EQ(e.error().code, ErrorCode::kNumeric);
}

TEST(Evaluate, RealModelsSpeedAndSelfDivergence) {
  NARROW_REQUIRE_SHARED();
  ASSERT_OK_AND_ASSIGN(const auto source,
                       model::ModelSource::open(testing::shared_data() / "tiny-models" / "llama"));
  ASSERT_OK_AND_ASSIGN(const auto model, runtime::LoadedModel::load(source));
  runtime::SessionOptions o;
  o.n_ctx = 64;
  ASSERT_OK_AND_ASSIGN(auto a, runtime::Session::create(model, o));
  ASSERT_OK_AND_ASSIGN(auto b, runtime::Session::create(model, o));
  Rng rng(5);
  std::vector<std::int32_t> ids(200);
  for (std::int32_t& id : ids) id = static_cast<std::int32_t>(rng.next_u64() % 320);
  Protocol p;
  p.n_ctx = 64;
  std::vector<double> first;
  for (const int threads : {1, 2}) {
    set_thread_count(threads);
    ASSERT_OK_AND_ASSIGN(const Evaluation e, evaluate(*a, 320, b.get(), ids, p, null_progress()));
    std::vector<double> nll;
    for (const TokenScore& s : e.scores) {
      EXPECT_EQ(s.kl, 0.0);
      EXPECT_TRUE(s.same_top1);
      nll.push_back(s.nll);
    }
    if (first.empty()) first = nll;
    EXPECT_EQ(nll, first);
    // Nothing can predict random tokens better than chance.
    EXPECT_GT(mean_and_error(nll).mean, std::log(320.0) - 0.1);
  }
  set_thread_count(0);
  ASSERT_OK_AND_ASSIGN(const Speed speed, measure_speed(model, {}, 32, 4, 2, null_progress()));
  EXPECT_GT(speed.prefill.median, 0);
  EXPECT_GT(speed.decode.median, 0);
  EXPECT_FALSE(measure_speed(model, {}, 0, 4, 2, null_progress()).ok());
}

}  // namespace
}  // namespace narrow::eval
