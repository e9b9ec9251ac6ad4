#include "pipeline/plan_file.h"

#include <functional>

#include "testing/testing.h"

namespace narrow::pipeline {
namespace {

using testing::TempDir;

const std::vector<TensorInfo> kPlanned = {{"token_embd.weight", Format::kF32, {8, 256}},
                                          {"output_norm.weight", Format::kF32, {256}},
                                          {"blk.0.attn_q.weight", Format::kF32, {4, 256}},
                                          {"blk.0.ffn_down.weight", Format::kF32, {4, 96}}};
constexpr const char* kDigest = "sha256:aa";

PlanFile example() {
  PlanFile p;
  p.model = "tiny";
  p.architecture = "llama";
  p.digest = kDigest;
  p.target = "90000000 bytes";
  p.predicted_kl = 0.0625;
  p.measured_kl = 0.0626;
  p.file_bytes = 89999968;
  p.types = {{"token_embd.weight", Format::kQ6_K},
             {"blk.0.attn_q.weight", Format::kQ4_K},
             {"blk.0.ffn_down.weight", Format::kQ5_0}};
  p.damage.floor = 0.005;
  p.damage.scale = 1.25;
  p.damage.tensors = {
      {"token_embd.weight", 0.5, true, {{Format::kQ6_K, 0.001, 0}, {Format::kQ8_0, 0.0001, 0}}},
      {"blk.0.attn_q.weight", 0.25, false, {{Format::kQ4_K, 0.01, 0}}}};
  return p;
}

TEST(PlanFile, ComesBackAsItWasWritten) {
  const TempDir dir;
  const PlanFile p = example();
  ASSERT_OK(write_plan(dir / "plan.json", p));
  ASSERT_OK_AND_ASSIGN(const PlanFile q, read_plan(dir / "plan.json"));
  EXPECT_EQ(q.model, p.model);
  EXPECT_EQ(q.architecture, p.architecture);
  EXPECT_EQ(q.digest, p.digest);
  EXPECT_EQ(q.target, p.target);
  EXPECT_EQ(q.predicted_kl, p.predicted_kl);
  EXPECT_EQ(q.measured_kl, p.measured_kl);
  EXPECT_EQ(q.file_bytes, p.file_bytes);
  EXPECT_EQ(q.types, p.types);
  EXPECT_EQ(q.damage.floor, p.damage.floor);
  EXPECT_EQ(q.damage.scale, p.damage.scale);
  ASSERT_EQ(q.damage.tensors.size(), 2u);
  EXPECT_EQ(q.damage.tensors[0].types[1].kl, 0.0001);
  EXPECT_TRUE(q.damage.tensors[0].measured);
  EXPECT_FALSE(q.damage.tensors[1].measured);
  ASSERT_OK_AND_ASSIGN(const auto types, types_of_plan(dir / "plan.json", q, kPlanned, kDigest));
  EXPECT_EQ(types[0], Format::kQ6_K);
  EXPECT_EQ(types[1], std::nullopt);
  EXPECT_EQ(types[3], Format::kQ5_0);
  ASSERT_OK_AND_ASSIGN(const double kl,
                       q.damage.predict(std::vector<std::pair<std::string, Format>>{
                           {"token_embd.weight", Format::kQ8_0}, {"blk.0.attn_q.weight", Format::kQ4_K}}));
  EXPECT_NEAR(kl, 0.005 + 1.25 * 0.0101, 1e-12);
}

TEST(PlanFile, DamagedFilesAreRefused) {
  const TempDir dir;
  const std::pair<const char*, const char*> cases[] = {
      {"types: yes", "parse error"},
      {"[1]", "it lacks 'narrow_plan'"},
      {R"({"types": {}})", "it lacks 'narrow_plan'"},
      {R"({"narrow_plan": 2, "types": {}})", "a plan of version 2"},
      {R"({"narrow_plan": 1})", "'types' must be an object"},
      {R"({"narrow_plan": 1, "types": [1]})", "'types' must be an object"},
      {R"({"narrow_plan": 1, "types": {"a": "q9_k"}})", "tensor 'a': unknown type 'q9_k'"},
      {R"({"narrow_plan": 1, "types": {"a": 4}})", "tensor 'a': its type is 4"},
      {R"({"narrow_plan": 1, "types": {"a": "i32"}})", "tensor 'a'"},
      {R"({"narrow_plan": 1, "types": {"a": "q4_k", "a": "q4_k"}})", "a"},
      {R"({"narrow_plan": 1, "types": {}, "model": {"sha256": 4}})", "'sha256' must be a text"},
      {R"({"narrow_plan": 1, "types": {}, "predicted_kl": -1})", "'predicted_kl' must be a number"},
      {R"({"narrow_plan": 1, "types": {}, "damage": {"tensors": {"a": {}}}})", "an object with 'kl'"},
      {R"({"narrow_plan": 1, "types": {}, "damage": {"tensors": {"a": {"kl": {"q4_k": "x"}}}}})", "numbers"},
  };
  for (const auto& [text, message] : cases) {
    testing::write_file(dir / "bad.json", text);
    const auto plan = read_plan(dir / "bad.json");
    ASSERT_FALSE(plan.ok()) << text;
    EXPECT_NE(plan.error().message.find(message), std::string::npos) << plan.error().message;
    EXPECT_NE(plan.error().message.find("bad.json"), std::string::npos) << plan.error().message;
    EXPECT_EQ(plan.error().message.find('\n'), std::string::npos) << plan.error().message;
  }
  EXPECT_FALSE(read_plan(dir / "none.json").ok());
}

TEST(PlanFile, PlansThatDoNotFitTheModelAreRefused) {
  struct Case {
    std::function<void(PlanFile&)> change;
    const char* message;
  };
  const Case cases[] = {
      {[](PlanFile& p) { p.digest = "sha256:bb"; }, "a plan for another model (tiny, sha256:bb)"},
      {[](PlanFile& p) { p.types.emplace_back("blk.7.attn_q.weight", Format::kQ4_K); },
       "no tensor 'blk.7.attn_q.weight'"},
      {[](PlanFile& p) { p.types.emplace_back("output_norm.weight", Format::kQ8_0); },
       "tensor 'output_norm.weight' is no weight matrix"},
      {[](PlanFile& p) { p.types.pop_back(); }, "no type for tensor 'blk.0.ffn_down.weight'"},
      {[](PlanFile& p) { p.types[2].second = Format::kQ4_K; },
       "tensor 'blk.0.ffn_down.weight' cannot be q4_k: its rows of 96"},
  };
  for (const Case& c : cases) {
    PlanFile p = example();
    c.change(p);
    const auto types = types_of_plan("plan.json", p, kPlanned, kDigest);
    ASSERT_FALSE(types.ok()) << c.message;
    EXPECT_EQ(types.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(types.error().message.find(c.message), std::string::npos) << types.error().message;
  }
}

}  // namespace
}  // namespace narrow::pipeline
