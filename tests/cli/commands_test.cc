#include <nlohmann/json.hpp>

#include "cli/run_narrow.h"
#include "pipeline/tiny_gguf.h"

namespace narrow {
namespace {

namespace fs = std::filesystem;
using testing::narrow_cli;
using testing::TempDir;

nlohmann::json parse(const std::string& text) {
  nlohmann::json j = nlohmann::json::parse(text, nullptr, false);
  EXPECT_FALSE(j.is_discarded()) << text;
  return j;
}

TEST(Commands, DryRunShowsThePlanAndWritesNothing) {
  const TempDir dir;
  testing::TinyGguf odd;
  odd.n_embd = 96;
  ASSERT_OK(testing::write_tiny_gguf(dir / "m.gguf", odd));
  const auto r = narrow_cli({"quantize", dir / "m.gguf", "-o", dir / "o.gguf", "-t", "q4_k_m", "--dry-run"});
  EXPECT_EQ(r.exit_code, 0) << r.err;
  EXPECT_NE(r.out.find("blk.1.ffn_up.weight"), std::string::npos) << r.out;
  EXPECT_NE(r.out.find("kept: norm"), std::string::npos) << r.out;
  for (const char* words :
       {"rows of 96 are no multiple of q4_k's 256 -> q5_0", "bpw", "peak memory", "free disk"}) {
    EXPECT_NE(r.err.find(words), std::string::npos) << words << ": " << r.err;
  }
  EXPECT_EQ(testing::names_in(dir.path()), std::vector<std::string>{"m.gguf"});
  const nlohmann::json plan =
      parse(narrow_cli({"quantize", dir / "m.gguf", "-t", "q4_k_m", "--dry-run", "--json", "-"}).out);
  EXPECT_EQ(plan["tensors"].size(), testing::tiny_tensors(odd).size());
  EXPECT_GT(plan["fallbacks"].get<int>(), 0);
}

// What streaming takes is known beforehand; what running the model on texts takes is not, and no bound is
// named.
TEST(Commands, NoBoundOfMemoryWhereTheModelIsRun) {
  const TempDir dir;
  testing::write_file(dir / "t.txt", "Once upon a time there was a king who had three sons.");
  const std::string model = std::string(NARROW_MODELS) + "/tales-4m";
  for (const bool calibrated : {false, true}) {
    std::vector<std::string> args = {"quantize", model, "-t", "q4_0", "--dry-run", "--json", "-"};
    if (calibrated) args.insert(args.end(), {"--method", "gptq", "--calib", (dir / "t.txt").string()});
    const auto r = narrow_cli(args);
    ASSERT_EQ(r.exit_code, 0) << r.err;
    EXPECT_EQ(parse(r.out)["peak_memory_bytes_estimate"].is_null(), calibrated);
    EXPECT_EQ(r.err.find("peak memory at most") == std::string::npos, calibrated) << r.err;
  }
}

TEST(Commands, QuantizeReportsAsJson) {
  const TempDir dir;
  ASSERT_OK(testing::write_tiny_gguf(dir / "m.gguf"));
  const auto r = narrow_cli({"quantize", dir / "m.gguf", "-o", dir / "o.gguf", "-t", "q4_0", "--json", "-"});
  ASSERT_EQ(r.exit_code, 0) << r.err;
  const nlohmann::json j = parse(r.out);
  EXPECT_EQ(j["files"][0], (dir / "o.gguf").string());
  EXPECT_EQ(j["output_bytes"], fs::file_size(dir / "o.gguf"));
  EXPECT_GT(j["losses"].size(), 10u);
  EXPECT_GT(j["peak_memory_bytes"].get<double>(), 1e6);
  // The job's bound: largest tensor in fp32 three times, and 200 MB.
  EXPECT_LT(j["peak_memory_bytes"].get<double>(), 512 * 256 * 4 * 3 + 200e6);
  const auto to_file = narrow_cli(
      {"quantize", dir / "m.gguf", "-o", dir / "o.gguf", "-t", "q4_0", "--json", dir / "report.json"});
  ASSERT_EQ(to_file.exit_code, 0);
  EXPECT_EQ(parse(testing::read_file(dir / "report.json"))["bpw"], j["bpw"]);
}

TEST(Commands, InspectShowsModelAndTensor) {
  const TempDir dir;
  ASSERT_OK(testing::write_tiny_gguf(dir / "m.gguf"));
  const auto text = narrow_cli({"inspect", dir / "m.gguf"});
  EXPECT_EQ(text.exit_code, 0);
  for (const char* words : {"GGUF v3", "architecture llama", "llama.block_count", "blk.1.ffn_down.weight",
                            "256 x 512", "32.000 bpw"}) {
    EXPECT_NE(text.out.find(words), std::string::npos) << words << ": " << text.out;
  }
  const nlohmann::json model = parse(narrow_cli({"inspect", dir / "m.gguf", "--json", "-"}).out);
  EXPECT_EQ(model["tensors"].size(), testing::tiny_tensors({}).size());

  const auto tensor =
      narrow_cli({"inspect", dir / "m.gguf", "--tensor", "blk.0.ffn_up.weight", "--types", "q4_0,Q8_0"});
  EXPECT_EQ(tensor.exit_code, 0) << tensor.err;
  EXPECT_NE(tensor.out.find("####"), std::string::npos);
  EXPECT_NE(tensor.out.find("q8_0"), std::string::npos);
  ASSERT_EQ(narrow_cli({"quantize", dir / "m.gguf", "-o", dir / "q.gguf", "-t", "q4_0"}).exit_code, 0);
  const nlohmann::json compared =
      parse(narrow_cli({"inspect", dir / "q.gguf", "--tensor", "blk.0.ffn_up.weight", "--reference",
                        dir / "m.gguf", "--json", "-"})
                .out);
  ASSERT_EQ(compared["errors"].size(), 1u);
  EXPECT_EQ(compared["errors"][0]["type"], "q4_0");
  EXPECT_NEAR(compared["errors"][0]["relative_rms"].get<double>(), 0.08, 0.04);
}

TEST(Commands, ConvertThereAndBack) {
  const TempDir dir;
  ASSERT_OK(testing::write_tiny_gguf(dir / "m.gguf"));
  ASSERT_EQ(narrow_cli({"convert", dir / "m.gguf", "-o", dir / "hf"}).exit_code, 0);
  EXPECT_EQ(testing::names_in(dir / "hf"), (std::vector<std::string>{"config.json", "model.safetensors"}));
  ASSERT_EQ(narrow_cli({"convert", dir / "hf", "-o", dir / "back.gguf"}).exit_code, 0);
  for (const auto& t : testing::tiny_tensors({})) {
    const auto r = narrow_cli(
        {"inspect", dir / "back.gguf", "--tensor", t.name, "--reference", dir / "m.gguf", "--json", "-"});
    ASSERT_EQ(r.exit_code, 0) << t.name << r.err;
    EXPECT_EQ(parse(r.out)["errors"][0]["max_abs"].get<double>(), 0.0) << t.name;
  }
}

TEST(Commands, ConvertCountsWhatTheTypeCannotHold) {
  const TempDir dir;
  testing::TinyGguf wide;
  wide.edit = [](const std::string& name, std::vector<float>& v) {
    for (float& x : v) x = std::max(x, 1e-3f);
    if (name != "blk.0.attn_q.weight") return;
    v[5] = 70000.0f;
    v[6] = -1e6f;
    v[7] = 1e-9f;
  };
  ASSERT_OK(testing::write_tiny_gguf(dir / "m.gguf", wide));
  const auto r = narrow_cli({"convert", dir / "m.gguf", "-o", dir / "h.gguf", "-t", "F16"});
  EXPECT_EQ(r.exit_code, 0) << r.err;
  EXPECT_NE(r.err.find("2 values are too large for f16"), std::string::npos) << r.err;
  EXPECT_NE(r.err.find("1 values are too small for f16"), std::string::npos) << r.err;
}

TEST(Commands, ConvertSaysWhatLlamaCppWillNotKnow) {
  NARROW_REQUIRE_SHARED();
  const TempDir dir;
  for (const auto& [name, told] :
       {std::pair("mistral", true), std::pair("gemma3", false), std::pair("llama", false)}) {
    const auto r =
        narrow_cli({"convert", testing::shared_data() / "tiny-models" / name, "-o", dir / "o.gguf"});
    ASSERT_EQ(r.exit_code, 0) << r.err;
    EXPECT_EQ(r.err.find("no sliding window for llama: past 16 tokens") != std::string::npos, told) << r.err;
  }
}

TEST(Commands, ListAsTextMarkdownAndJson) {
  const auto mixes = narrow_cli({"list", "mixes"});
  EXPECT_EQ(mixes.exit_code, 0);
  EXPECT_NE(mixes.out.find("q4_k_m"), std::string::npos);
  EXPECT_EQ(mixes.out.find("gptneox"), std::string::npos) << "only what was asked for";
  const auto markdown = narrow_cli({"list", "types", "--markdown"});
  EXPECT_TRUE(markdown.out.starts_with("| type |")) << markdown.out;
  const nlohmann::json all = parse(narrow_cli({"list", "--json"}).out);
  for (const char* key : {"mixes", "types", "methods", "architectures"})
    EXPECT_GT(all[key].size(), 0u) << key;
  bool llama = false;
  for (const nlohmann::json& a : all["architectures"]) llama = llama || a["name"] == "llama";
  EXPECT_TRUE(llama);
}

}  // namespace
}  // namespace narrow
