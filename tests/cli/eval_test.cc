#include <cstdlib>
#include <nlohmann/json.hpp>

#include "cli/run_narrow.h"

namespace narrow {
namespace {

namespace fs = std::filesystem;

std::string model(const char* name) { return testing::downloaded_model(name); }
std::string wiki() { return (testing::shared_data() / "text" / "wikitext2-test.txt").string(); }
// Builds with sanitizers measure fewer windows: they check memory, the numbers are checked by the Release
// build.
bool sanitized() { return std::getenv("NARROW_SANITIZED") != nullptr; }

nlohmann::json eval_json(std::vector<std::string> args) {
  args.insert(args.begin(), "eval");
  args.insert(args.end(), {"--json", "-", "--quiet"});
  const auto r = testing::narrow_cli(args);
  EXPECT_EQ(r.exit_code, 0) << r.err;
  auto j = nlohmann::json::parse(r.out, nullptr, false);
  EXPECT_FALSE(j.is_discarded()) << r.out;
  return j;
}

struct Golden {
  const char* file;
  double perplexity;  // llama-perplexity, first 8 windows of 512 tokens of wikitext-2's test set
};

TEST(CliEval, PerplexityIsThatOfLlamaPerplexity) {
  NARROW_REQUIRE_SHARED();
  if (sanitized()) GTEST_SKIP() << "the Release build checks this number";
  for (const Golden& g : {Golden{"smollm2-q4_1.gguf", 24.4985}, Golden{"gemma3-270m-q4_k_m.gguf", 18.1556}}) {
    NARROW_REQUIRE_MODEL(model(g.file));
    const auto j = eval_json({model(g.file), "--text", wiki(), "--windows", "8"});
    EXPECT_NEAR(j["perplexity"].get<double>(), g.perplexity, 0.005 * g.perplexity) << g.file;
    EXPECT_EQ(j["windows"], 8);
    EXPECT_EQ(j["scored_tokens"], 8 * 255);
  }
}

TEST(CliEval, JsonHasEveryPromisedFieldAndSelfDivergenceIsZero) {
  NARROW_REQUIRE_SHARED();
  NARROW_REQUIRE_MODEL(model("smollm2-q4_1.gguf"));
  const std::string m = model("smollm2-q4_1.gguf");
  const auto j = eval_json({m, "--ref", m, "--text", wiki(), "--windows", "1", "--ctx", "128"});
  for (const char* key : {"perplexity", "perplexity_se", "kl_mean", "kl_se", "kl_p99", "top1_agreement",
                          "windows", "protocol"}) {
    EXPECT_TRUE(j.contains(key)) << key;
  }
  EXPECT_EQ(j["kl_mean"].get<double>(), 0.0);
  EXPECT_EQ(j["top1_agreement"].get<double>(), 1.0);
  EXPECT_EQ(j["perplexity"], j["reference_perplexity"]);
}

TEST(CliEval, SlidingWindowReadsMoreContextAndSoIsLower) {
  NARROW_REQUIRE_SHARED();
  NARROW_REQUIRE_MODEL(model("smollm2-q4_1.gguf"));
  const std::string m = model("smollm2-q4_1.gguf");
  testing::TempDir dir;
  testing::write_file(dir / "text", testing::read_file(wiki()).substr(0, 2500));
  const std::string text = (dir / "text").string();
  const auto narrow_context = eval_json({m, "--text", text, "--ctx", "64", "--stride", "63"});
  const auto wide_context = eval_json({m, "--text", text, "--ctx", "64", "--stride", "16"});
  EXPECT_EQ(narrow_context["scored_tokens"], wide_context["scored_tokens"]);
  EXPECT_LT(wide_context["perplexity"].get<double>(), narrow_context["perplexity"].get<double>());
}

TEST(CliEval, BadInputIsOneLineAndItsExitCode) {
  testing::TempDir dir;
  testing::write_file(dir / "short.txt", "Hello.");
  struct Case {
    std::vector<std::string> args;
    int exit_code;
    const char* says;
  };
  std::vector<Case> cases = {
      {{(dir / "missing.gguf").string(), "--text", (dir / "short.txt").string()}, 3, "missing.gguf"},
      {{(dir / "missing.gguf").string()}, 2, "--text"},
      {{(dir / "missing.gguf").string(), "--text", (dir / "none.txt").string()}, 3, "none.txt"},
      {{(dir / "missing.gguf").string(), "--bogus"}, 2, "--bogus"},
      {{(dir / "missing.gguf").string(), "--ctx", "many"}, 2, "ctx"},
      {{}, 2, "model"},
  };
  if (fs::exists(model("smollm2-q4_1.gguf"))) {
    const std::string m = model("smollm2-q4_1.gguf");
    cases.push_back({{m, "--text", (dir / "short.txt").string()}, 2, "fewer than one window"});
    cases.push_back({{m, "--text", (dir / "short.txt").string(), "--ctx", "2"}, 2, "too short"});
    if (fs::exists(model("gemma3-270m-q4_k_m.gguf"))) {
      cases.push_back({{m, "--ref", model("gemma3-270m-q4_k_m.gguf"), "--text", (dir / "short.txt").string()},
                       2,
                       "vocabulary"});
    }
  }
  for (const Case& c : cases) {
    std::vector<std::string> args = {"eval"};
    args.insert(args.end(), c.args.begin(), c.args.end());
    const auto r = testing::narrow_cli(args);
    EXPECT_EQ(r.exit_code, c.exit_code) << r.err;
    EXPECT_NE(r.err.find(c.says), std::string::npos) << c.says << " in: " << r.err;
    EXPECT_EQ(std::count(r.err.begin(), r.err.end(), '\n'), 1) << r.err;
    EXPECT_TRUE(r.out.empty()) << r.out;
  }
}

TEST(CliEval, SpeedReportsBothPhases) {
  NARROW_REQUIRE_SHARED();
  const auto j = eval_json({(testing::shared_data() / "tiny-models" / "llama").string(), "--speed",
                            "--prefill", "16", "--decode", "4", "--repetitions", "1"});
  EXPECT_GT(j["prefill_tokens_per_s"].get<double>(), 0);
  EXPECT_GT(j["decode_tokens_per_s"].get<double>(), 0);
  EXPECT_GT(j["peak_memory_bytes"].get<double>(), 1e6);
}

}  // namespace
}  // namespace narrow
