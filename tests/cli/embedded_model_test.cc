// The small model in models/ goes through the whole tool without a network.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>

#include "cli/run_narrow.h"

namespace narrow::testing {
namespace {

const std::string kModel = std::string(NARROW_MODELS) + "/tales-4m";

TEST(EmbeddedModel, IsSmallerThanTenMegabytes) {
  EXPECT_LT(std::filesystem::file_size(kModel + "/model.safetensors"), 10'000'000u);
}

TEST(EmbeddedModel, TellsQuantizesAndIsMeasured) {
  const TempDir dir;
  const CommandResult told =
      narrow_cli({"-q", "run", kModel, "Once upon a time", "-n", "12", "--temperature", "0"});
  ASSERT_EQ(told.exit_code, 0) << told.err;
  EXPECT_GT(told.out.size(), 12u);

  const std::string text = (dir / "text.txt").string(), file = (dir / "q4_k_m.gguf").string();
  std::string story;
  for (int i = 0; i < 200; ++i)
    story += "Once upon a time there was a little dog. It liked to play in the park. ";
  write_file(text, story);
  const CommandResult quantized = narrow_cli({"-q", "quantize", kModel, "-o", file, "--type", "q4_k_m"});
  ASSERT_EQ(quantized.exit_code, 0) << quantized.err;
  const CommandResult measured = narrow_cli(
      {"-q", "eval", file, "--ref", kModel, "--text", text, "--ctx", "128", "--windows", "4", "--json", "-"});
  ASSERT_EQ(measured.exit_code, 0) << measured.err;
  const auto report = nlohmann::json::parse(measured.out.substr(measured.out.find('{')));
  // It learned something (a guess among 2,048 tokens has a perplexity of 2,048), and 4 bits keep it.
  EXPECT_LT(report["reference_perplexity"].get<double>(), 400.0);
  EXPECT_LT(report["kl_mean"].get<double>(), 0.1);
  EXPECT_GT(report["kl_mean"].get<double>(), 0.0);
}

// Error feedback serves 4-bit weights under int8 inputs too: on text that it did not see.
TEST(EmbeddedModel, FourBitWeightsOfInt8ProductsAreNearerThanRounded) {
  NARROW_REQUIRE_SHARED();
  const TempDir dir;
  const std::string all = read_file(shared_data() / "text" / "tinystories.txt");
  const std::string calib = dir / "calib.txt", text = dir / "text.txt", out = dir / "out.gguf";
  write_file(calib, all.substr(0, 60'000));
  write_file(text, all.substr(200'000, 8'000));
  for (const std::string type : {"w4a8", "w4a8-static"}) {
    std::map<std::string, double> kl;
    for (const std::string method : {"rtn", "auto"}) {
      const CommandResult made = narrow_cli({"-q", "quantize", kModel, "-o", out, "--type", type, "--method",
                                             method, "--calib", calib, "--calib-tokens", "3072"});
      ASSERT_EQ(made.exit_code, 0) << made.err;
      const CommandResult r = narrow_cli({"-q", "eval", out, "--ref", kModel, "--text", text, "--ctx", "256",
                                          "--windows", "4", "--json", "-"});
      ASSERT_EQ(r.exit_code, 0) << r.err;
      kl[method] = nlohmann::json::parse(r.out)["kl_mean"].get<double>();
    }
    EXPECT_LT(kl["auto"], 0.9 * kl["rtn"]) << type << ": " << kl["auto"] << ", " << kl["rtn"];
  }
}

// With fp32 products a file is what it decodes to.
TEST(EmbeddedModel, ComputedInFloatsAFileEqualsItsDecodedCopy) {
  const TempDir dir;
  const std::string text = dir / "text.txt", file = dir / "q4_0.gguf", decoded = dir / "f32.gguf";
  std::string story;
  for (int i = 0; i < 40; ++i) story += fmt::format("Once upon a time there were {} cats who sang.\n", i);
  write_file(text, story);
  ASSERT_EQ(narrow_cli({"-q", "quantize", kModel, "-o", file, "--type", "q4_0"}).exit_code, 0);
  ASSERT_EQ(narrow_cli({"-q", "quantize", file, "-o", decoded, "--type", "f32"}).exit_code, 0);
  const auto measure = [&](const std::string& model, const std::string& compute) {
    const CommandResult r = narrow_cli({"-q", "eval", model, "--ref", kModel, "--text", text, "--ctx", "64",
                                        "--windows", "2", "--compute", compute, "--json", "-"});
    EXPECT_EQ(r.exit_code, 0) << r.err;
    return nlohmann::json::parse(r.out);
  };
  const auto in_floats = measure(file, "float"), copy = measure(decoded, "stored"),
             in_integers = measure(file, "stored");
  EXPECT_EQ(in_floats["kl_mean"], copy["kl_mean"]);
  EXPECT_NE(in_floats["kl_mean"], in_integers["kl_mean"]);
  EXPECT_NE(in_floats["protocol"].get<std::string>().find("compute float"), std::string::npos);
  EXPECT_EQ(in_integers["protocol"].get<std::string>().find("compute"), std::string::npos);
}

// A plan's measurements serve another size; the plan alone is run as it is.
TEST(EmbeddedModel, APlanServesAnotherSize) {
  const testing::TempDir dir;
  std::string text;
  for (int i = 0; i < 200; ++i)
    text += fmt::format("Once upon a time there were {} cats and a dog who sang.\n", i);
  testing::write_file(dir / "text.txt", text);
  const std::string calib = dir / "text.txt", plan = dir / "plan.json", out = dir / "out.gguf";
  const auto first = testing::narrow_cli({"-q", "quantize", kModel, "-o", out, "--size", "2.6MB", "--calib",
                                          calib, "--calib-tokens", "2048", "--save-plan", plan});
  ASSERT_EQ(first.exit_code, 0) << first.err;
  const auto second = testing::narrow_cli({"-q", "quantize", kModel, "-o", out, "--size", "2.9MB", "--plan",
                                           plan, "--calib", calib, "--calib-tokens", "2048"});
  ASSERT_EQ(second.exit_code, 0) << second.err;
  EXPECT_LE(std::filesystem::file_size(out), 2'900'000u);
  EXPECT_GT(std::filesystem::file_size(out), 2'600'000u);
  const auto alone =
      testing::narrow_cli({"-q", "quantize", kModel, "-o", out, "--plan", plan, "--calib", calib});
  ASSERT_EQ(alone.exit_code, 0) << alone.err;
  EXPECT_LE(std::filesystem::file_size(out), 2'600'000u);
  testing::expect_failure(testing::narrow_cli({"quantize", kModel, "-o", out, "-t", "q4_0", "--plan", plan}),
                          2, {"exactly one of --type", "--plan"});
}

}  // namespace
}  // namespace narrow::testing
