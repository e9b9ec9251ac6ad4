#include "cli/run_narrow.h"

namespace narrow {
namespace {

namespace fs = std::filesystem;

std::string smollm2() { return testing::downloaded_model("smollm2-q4_1.gguf"); }

testing::CommandResult run(std::vector<std::string> args) {
  args.insert(args.begin(), "run");
  return testing::narrow_cli(args);
}

TEST(CliRun, GreedyAnswersAreTheSameEveryTimeAndForAnyThreadCount) {
  NARROW_REQUIRE_MODEL(smollm2());
  const std::vector<std::string> args = {smollm2(), "Once upon a time", "-n", "12", "--temperature", "0"};
  auto one = args, two = args;
  one.insert(one.end(), {"--threads", "1"});
  two.insert(two.end(), {"--threads", "2"});
  const auto a = run(one), b = run(two);
  ASSERT_EQ(a.exit_code, 0) << a.err;
  EXPECT_EQ(a.out, b.out);
  EXPECT_GT(a.out.size(), 20u);
}

TEST(CliRun, SeedsDecideTheSampledText) {
  NARROW_REQUIRE_MODEL(smollm2());
  const auto sampled = [&](const char* seed) {
    const auto r = run({smollm2(), "The best thing about", "-n", "12", "--temperature", "1.2", "--top-k", "0",
                        "--seed", seed});
    EXPECT_EQ(r.exit_code, 0) << r.err;
    return r.out;
  };
  EXPECT_EQ(sampled("1"), sampled("1"));
  EXPECT_NE(sampled("1"), sampled("2"));
}

TEST(CliRun, ChatGoesThroughTheModelsTemplate) {
  NARROW_REQUIRE_MODEL(smollm2());
  const auto r =
      run({smollm2(), "--chat", "--system", "Be brief.", "--prompt", "What is the capital of France?", "-n",
           "16", "--temperature", "0", "--show-prompt", "--stats"});
  ASSERT_EQ(r.exit_code, 0) << r.err;
  EXPECT_NE(r.out.find("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n"), std::string::npos)
      << r.out;
  EXPECT_NE(r.out.find("Paris"), std::string::npos) << r.out;
  EXPECT_NE(r.err.find("tokens/s"), std::string::npos) << r.err;
}

TEST(CliRun, StopTextEndsTheAnswerAndIsNotPartOfIt) {
  NARROW_REQUIRE_MODEL(smollm2());
  const auto whole = run({smollm2(), "Once upon a time", "-n", "12", "--temperature", "0"});
  ASSERT_EQ(whole.exit_code, 0) << whole.err;
  const std::string stop = whole.out.substr(10, 3);
  const auto cut = run({smollm2(), "Once upon a time", "-n", "12", "--temperature", "0", "--stop", stop});
  ASSERT_EQ(cut.exit_code, 0) << cut.err;
  EXPECT_EQ(cut.out, whole.out.substr(0, whole.out.find(stop)) + "\n");
}

TEST(CliRun, BadInputIsOneLineAndItsExitCode) {
  testing::TempDir dir;
  struct Case {
    std::vector<std::string> args;
    int exit_code;
    const char* says;
  };
  std::vector<Case> cases = {
      {{(dir / "m.gguf").string()}, 2, "prompt"},
      {{(dir / "m.gguf").string(), "hi"}, 3, "m.gguf"},
      {{(dir / "m.gguf").string(), "--prompt-file", (dir / "p.txt").string()}, 3, "p.txt"},
      {{(dir / "m.gguf").string(), "hi", "there"}, 2, "there"},
      {{(dir / "m.gguf").string(), "hi", "--temperature", "hot"}, 2, "temperature"},
  };
  if (fs::exists(smollm2())) {
    cases.push_back({{smollm2(), "hi", "--temperature", "-1"}, 2, "temperature"});
    cases.push_back({{smollm2(), "hi", "--top-p", "1.5"}, 2, "top"});
    cases.push_back({{smollm2(), "hi", "-n", "-4"}, 2, "-4"});
    cases.push_back({{smollm2(), "one two three four five six", "--ctx", "4"}, 2, "context"});
    testing::write_file(dir / "bad.jinja", "{% if %}");
    cases.push_back({{smollm2(), "hi", "--chat-template", (dir / "bad.jinja").string()}, 3, "1:"});
    if (testing::has_shared_data()) {
      // A tokenizer with more tokens than the model has rows.
      cases.push_back(
          {{smollm2(), "hi", "--tokenizer", (testing::shared_data() / "tokenizers" / "qwen3").string()},
           3,
           "another model"});
      cases.push_back({{(testing::shared_data() / "tiny-models" / "llama").string(), "hi"}, 3, "tokenizer"});
    }
  }
  for (const Case& c : cases) {
    const auto r = run(c.args);
    EXPECT_EQ(r.exit_code, c.exit_code) << r.err;
    EXPECT_NE(r.err.find(c.says), std::string::npos) << c.says << " in: " << r.err;
    EXPECT_EQ(std::count(r.err.begin(), r.err.end(), '\n'), 1) << r.err;
  }
}

}  // namespace
}  // namespace narrow
