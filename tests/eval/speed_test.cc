#include "eval/speed.h"

#include <cmath>

#include "base/thread_team.h"
#include "eval/limits.h"
#include "kernels/dispatch.h"
#include "testing/testing.h"

namespace narrow::eval {
namespace {

Result<std::shared_ptr<const runtime::LoadedModel>> tiny_llama() {
  NARROW_ASSIGN(auto source, model::ModelSource::open(testing::shared_data() / "tiny-models" / "llama"));
  return runtime::LoadedModel::load(source);
}

TEST(Rate, MedianAndSpread) {
  const Rate odd = rate_of({30, 10, 20});
  EXPECT_EQ(odd.median, 20);
  EXPECT_EQ(odd.spread, 1);
  const Rate even = rate_of({40, 10, 20, 30});
  EXPECT_EQ(even.median, 25);
  EXPECT_DOUBLE_EQ(even.spread, 30.0 / 25);
  EXPECT_EQ(rate_of({7}).spread, 0);
}

TEST(SpeedTest, NamesAndTokens) {
  EXPECT_EQ((SpeedTest{.n_prompt = 512}.name()), "pp512");
  EXPECT_EQ((SpeedTest{.n_gen = 64}.name()), "tg64");
  EXPECT_EQ((SpeedTest{.n_prompt = 16, .depth = 4096}.name()), "pp16@d4096");
  EXPECT_EQ((SpeedTest{.n_gen = 64, .batch = 8}.name()), "tg64@b8");
  EXPECT_EQ((SpeedTest{.n_gen = 64, .depth = 7, .batch = 8}.name()), "tg64@d7@b8");
  EXPECT_EQ((SpeedTest{.n_gen = 64, .batch = 8}.tokens()), 512);
  EXPECT_EQ((SpeedTest{.n_prompt = 512}.tokens()), 512);
}

TEST(MeasureTests, RunsEachTestAsOftenAsAsked) {
  NARROW_REQUIRE_SHARED();
  ASSERT_OK_AND_ASSIGN(const auto model, tiny_llama());
  const SpeedTest tests[] = {{.n_gen = 3, .depth = 5},
                             {.n_prompt = 20},
                             {.n_prompt = 4, .depth = 9},
                             {.n_gen = 2},
                             {.n_gen = 4, .depth = 3, .batch = 3}};
  ASSERT_OK_AND_ASSIGN(const auto r, measure_tests(model, {}, tests, 3, null_progress()));
  ASSERT_EQ(r.size(), std::size(tests));
  for (std::size_t i = 0; i < r.size(); ++i) {
    EXPECT_EQ(r[i].test.name(), tests[i].name());
    EXPECT_EQ(r[i].tokens_per_s.size(), 3u);
    EXPECT_GT(r[i].cache_bytes, 0u);
    EXPECT_EQ(r[i].rate.median, rate_of(r[i].tokens_per_s).median);
    for (const double rate : r[i].tokens_per_s) EXPECT_TRUE(std::isfinite(rate) && rate > 0) << rate;
  }
}

TEST(MeasureTests, NamesTheNumberThatIsWrong) {
  NARROW_REQUIRE_SHARED();
  ASSERT_OK_AND_ASSIGN(const auto model, tiny_llama());
  struct Case {
    SpeedTest test;
    int repetitions;
    const char* says;
  };
  for (const Case& c :
       {Case{{}, 1, "0 prefill and 0 decode"}, Case{{.n_prompt = 3, .n_gen = 4}, 1, "3 prefill and 4"},
        Case{{.n_gen = 4, .depth = -2}, 1, "depth of -2"}, Case{{.n_gen = 4, .batch = 0}, 1, "batch of 0"},
        Case{{.n_gen = 4}, 0, "0 repetitions"}}) {
    const auto r = measure_tests(model, {}, {&c.test, 1}, c.repetitions, null_progress());
    ASSERT_FALSE(r.ok()) << c.says;
    EXPECT_EQ(r.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(r.error().message.find(c.says), std::string::npos) << r.error().message;
  }
}

TEST(Limits, ArePositiveForAnyNumberOfThreads) {
  for (const int threads : {1, 2, 3}) {
    set_thread_count(threads);
    for (const std::uint64_t bytes : {std::uint64_t{1}, std::uint64_t{100'000}, std::uint64_t{5} << 20}) {
      const double rate = read_bandwidth(bytes, 0.001);
      EXPECT_TRUE(std::isfinite(rate) && rate > 0) << threads << " " << bytes << " " << rate;
    }
    const double peak = int8_peak(0.001);
    EXPECT_TRUE(std::isfinite(peak) && peak > 0) << threads << " " << peak;
  }
  set_thread_count(0);
  EXPECT_GE(uncached_bytes(), std::uint64_t{256} << 20);
}

TEST(Limits, EveryInstructionSetCountsItsOperations) {
  for (const kernels::KernelTable* t : kernels::available_kernels(cpu_features())) {
    const std::int64_t one = t->int8_peak(1);
    EXPECT_GT(one, 0) << t->name;
    EXPECT_EQ(t->int8_peak(0), 0) << t->name;
    EXPECT_EQ(t->int8_peak(1000), 1000 * one) << t->name;
  }
}

model::ModelConfig two_layers() {
  model::ModelConfig c;
  c.n_vocab = 100;
  c.sliding_window = 4;
  c.layers.resize(2);
  c.layers[1].sliding = true;
  return c;
}

TEST(PassCost, CountsWhatATokenReadsAndMultiplies) {
  std::vector<TensorInfo> tensors = {
      {"token_embd.weight", Format::kF16, {100, 32}},
      {"blk.0.attn_norm.weight", Format::kF32, {32}},
      {"blk.0.ffn_up.weight", Format::kQ8_0, {64, 32}},
  };
  model::ModelConfig c = two_layers();
  c.tied_head = true;
  const double embedding = 100 * 32 * 2, norm = 32 * 4, up = 64 * 34;
  PassCost cost = pass_cost(tensors, c, 1);
  EXPECT_EQ(cost.weight_bytes, embedding + norm + up);
  EXPECT_EQ(cost.layer_products, 64 * 32);
  EXPECT_EQ(cost.head_products, 100 * 32);

  // With an output layer of its own one row of the embedding is read for each token.
  c.tied_head = false;
  tensors.push_back({"output.weight", Format::kF32, {100, 32}});
  cost = pass_cost(tensors, c, 2);
  EXPECT_DOUBLE_EQ(cost.weight_bytes, 100 * 32 * 4 + embedding * 2 / 100 + norm + up);
  EXPECT_EQ(cost.head_products, 100 * 32);
  EXPECT_DOUBLE_EQ(pass_cost(tensors, c, 1000).weight_bytes, 100 * 32 * 4 + embedding + norm + up);
}

TEST(PassCost, ReadsTheChosenExpertsOnly) {
  const std::vector<TensorInfo> tensors = {{"blk.0.ffn_up_exps.weight", Format::kF32, {8, 16, 32}}};
  model::ModelConfig c = two_layers();
  c.n_expert = 8;
  c.n_expert_used = 2;
  const double all = 8 * 16 * 32;
  EXPECT_EQ(pass_cost(tensors, c, 1).weight_bytes, 4 * all / 4);
  EXPECT_EQ(pass_cost(tensors, c, 3).weight_bytes, 4 * all * 3 / 4);
  EXPECT_EQ(pass_cost(tensors, c, 5).weight_bytes, 4 * all);
  EXPECT_EQ(pass_cost(tensors, c, 5).layer_products, all / 4);
}

TEST(AttendedPositions, SlidingLayersSeeTheirWindow) {
  const model::ModelConfig c = two_layers();
  EXPECT_EQ(attended_positions(c, 0), 2);
  EXPECT_EQ(attended_positions(c, 3), 8);
  EXPECT_EQ(attended_positions(c, 9), 10 + 4);
}

}  // namespace
}  // namespace narrow::eval
