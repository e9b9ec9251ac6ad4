// `narrow qat` and its like become narrow-train; without it, one line says how to get it.
#include <filesystem>

#include "cli/run_narrow.h"

namespace narrow {
namespace {

namespace fs = std::filesystem;
using testing::expect_failure;
using testing::narrow_cli;
using testing::TempDir;

// A narrow in a folder of its own, away from the narrow-train that was built with it.
struct Installed {
  TempDir dir;
  fs::path narrow = dir / "bin" / "narrow";
  Installed() {
    fs::create_directories(narrow.parent_path());
    fs::copy_file(NARROW_BINARY, narrow);
  }
  // A narrow-train that says how it was called, and ends with 17.
  void add_program(const fs::path& folder) const {
    fs::create_directories(folder);
    testing::write_file(folder / "narrow-train",
                        "#!/bin/sh\necho \"$0\"\nfor a in \"$@\"; do echo \"[$a]\"; done\nexit 17\n");
    fs::permissions(folder / "narrow-train", fs::perms::owner_all);
  }
  testing::CommandResult run(const std::vector<std::string>& args,
                             const std::string& path = "/nowhere") const {
    std::vector<std::string> command = {"/usr/bin/env", "PATH=" + path, narrow.string()};
    command.insert(command.end(), args.begin(), args.end());
    return testing::run_command(command);
  }
};

TEST(CliTrain, SaysHowToGetIt) {
  const Installed here;
  for (const std::string command : {"qat", "finetune", "pretrain", "gradients"}) {
    const auto r = here.run({"--threads", "2", command, "x.gguf", "--help"});
    expect_failure(r, 3, {command, "narrow-train", "libtorch-dev", "libopenblas0-openmp", "build again"});
    EXPECT_EQ(testing::lines_of(r.err).size(), 1u) << r.err;
  }
}

TEST(CliTrain, BecomesTheOtherProgramWithTheSameArguments) {
  const Installed here;
  const auto expect_from = [&](const fs::path& folder, const std::string& path) {
    const auto r = here.run({"-q", "--threads", "2", "qat", "a b.gguf", "--lr=1", "--help"}, path);
    EXPECT_EQ(r.exit_code, 17) << r.err;
    EXPECT_EQ(r.out, (folder / "narrow-train").string() +
                         "\n[-q]\n[--threads]\n[2]\n[qat]\n[a b.gguf]\n[--lr=1]\n[--help]\n");
  };
  here.add_program(here.dir / "elsewhere");
  expect_from(here.dir / "elsewhere", "/bin:" + (here.dir / "elsewhere").string());
  here.add_program(here.dir / "libexec");
  expect_from(here.dir / "libexec", "/bin:" + (here.dir / "elsewhere").string());
  here.add_program(here.dir / "bin");
  expect_from(here.dir / "bin", "/bin");
  // Others are not touched.
  EXPECT_EQ(here.run({"list", "qat"}).exit_code, 2);
  EXPECT_EQ(here.run({"--threads", "2", "list"}).exit_code, 0);
}

TEST(CliTrain, HelpListsTheCommands) {
  const auto r = narrow_cli({"--help"});
  EXPECT_EQ(r.exit_code, 0);
  for (const std::string command : {"qat", "finetune", "pretrain", "gradients"}) {
    EXPECT_NE(r.out.find("\n  " + command + " "), std::string::npos) << r.out;
  }
}

// narrow starts without libtorch.
TEST(CliTrain, NarrowDoesNotLoadTorch) {
  const auto r = testing::run_command({"/usr/bin/env", "LD_TRACE_LOADED_OBJECTS=1", NARROW_BINARY});
  EXPECT_NE(r.out.find("libc.so"), std::string::npos) << r.out;
  EXPECT_EQ(r.out.find("torch"), std::string::npos) << r.out;
}

class CliTrainBuilt : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!fs::exists(fs::path(NARROW_BINARY).parent_path() / "narrow-train"))
      GTEST_SKIP() << "built without libtorch";
  }
};

TEST_F(CliTrainBuilt, HelpShowsEveryOption) {
  for (const std::string command : {"qat", "finetune", "pretrain"}) {
    const auto r = narrow_cli({command, "--help"});
    EXPECT_EQ(r.exit_code, 0) << r.err;
    EXPECT_NE(r.out.find("narrow " + command), std::string::npos) << r.out;
    for (const std::string option : {"--recipe", "--text", "--minutes", "--resume", "--json", "--output"}) {
      EXPECT_NE(r.out.find(option), std::string::npos) << command << " lacks " << option;
    }
  }
}

TEST_F(CliTrainBuilt, WrongUse) {
  expect_failure(narrow_cli({"qat", "--learning-rate", "1"}), 2, {"--learning-rate", "`narrow qat --help`"});
  expect_failure(narrow_cli({"qat", "--train", "everything"}), 2, {"--train", "everything", "scales"});
  expect_failure(narrow_cli({"qat", "--lr", "fast"}), 2, {"--lr", "fast"});
  expect_failure(narrow_cli({"qat"}), 2, {});
  expect_failure(narrow_cli({"pretrain"}), 2, {});
}

TEST_F(CliTrainBuilt, RecipeErrors) {
  const TempDir dir;
  const std::string file = (dir / "r.json").string();
  expect_failure(narrow_cli({"qat", "--recipe", file}), 3, {"r.json"});
  testing::write_file(file, R"({"learning_rate": 1})");
  expect_failure(narrow_cli({"qat", "--recipe", file}), 2, {"r.json", "'learning_rate'", "nearest"});
  testing::write_file(file, R"({"steps": "many"})");
  expect_failure(narrow_cli({"qat", "x.gguf", "--recipe", file}), 2,
                 {"r.json", "'steps'", "\"many\"", "whole number"});
  testing::write_file(file, R"({"steps": )");
  expect_failure(narrow_cli({"pretrain", "--recipe", file}), 3, {"r.json"});
}

// What the command line says is used instead of what the recipe says, wherever it stands.
TEST_F(CliTrainBuilt, CommandLineWins) {
  const TempDir dir;
  const std::string file = (dir / "r.json").string(), text = (dir / "t.txt").string();
  testing::write_file(text, "some text");
  testing::write_file(file, R"({"source": "recipe.gguf", "output": "o.gguf", "text": ")" + text +
                                R"(", "steps": 1, "type": "q4_0"})");
  expect_failure(narrow_cli({"qat", "--recipe", file}), 3, {"recipe.gguf"});
  expect_failure(narrow_cli({"qat", "line.gguf", "--recipe", file}), 3, {"line.gguf"});
  expect_failure(narrow_cli({"qat", "--recipe", file, "line.gguf"}), 3, {"line.gguf"});
}

// Gradients of a model, and a file quantized by them.
TEST_F(CliTrainBuilt, GradientsAreQuantizedBy) {
  const TempDir dir;
  const std::string model = std::string(NARROW_MODELS) + "/tales-4m", text = (dir / "t.txt").string(),
                    file = (dir / "g.gguf").string(), with = (dir / "with.gguf").string(),
                    without = (dir / "without.gguf").string();
  std::string story;
  for (int i = 0; i < 60; ++i)
    story += "Once upon a time there was a fox who lived in house " + std::to_string(i) + ". ";
  testing::write_file(text, story);
  const auto r =
      narrow_cli({"gradients", model, "--text", text, "--tokens", "256", "--ctx", "64", "-o", file});
  ASSERT_EQ(r.exit_code, 0) << r.err;
  EXPECT_NE(r.out.find("g.gguf"), std::string::npos) << r.out;
  const std::vector<std::string> quantize = {"quantize",    model,     "--type", "q4_0",           "--method",
                                             "gptq",        "--calib", text,     "--calib-tokens", "256",
                                             "--calib-ctx", "64",      "-o"};
  const auto run = [&](const std::string& out, std::vector<std::string> more) {
    std::vector<std::string> all = quantize;
    all.push_back(out);
    all.insert(all.end(), more.begin(), more.end());
    return narrow_cli(all);
  };
  ASSERT_EQ(run(without, {}).exit_code, 0);
  const auto q = run(with, {"--gradients", file});
  ASSERT_EQ(q.exit_code, 0) << q.err;
  EXPECT_LE(fs::file_size(with), fs::file_size(without) + 256);  // the recipe names the gradients
  EXPECT_NE(testing::read_file(with), testing::read_file(without));

  expect_failure(narrow_cli({"gradients", model, "--text", (dir / "none.txt").string(), "-o", file}), 3,
                 {"none.txt"});
  expect_failure(narrow_cli({"gradients", model, "-o", file}), 2, {"--text"});
  expect_failure(run(with, {"--gradients", text}), 2, {"t.txt", "narrow gradients"});
  expect_failure(narrow_cli({"quantize", model, "--type", "q4_0", "--gradients", file, "-o", with}), 2,
                 {"--gradients", "rtn", "gptq"});
  expect_failure(narrow_cli({"quantize", model, "--type", "w8a8", "--gradients", file, "-o", with}), 3,
                 {"--gradients", "w8a8"});
}

}  // namespace
}  // namespace narrow
