#include <nlohmann/json.hpp>

#include "cli/run_narrow.h"

namespace narrow {
namespace {

namespace fs = std::filesystem;

// A tiny model of random weights with a tokenizer, and files made from it.
class CliReport : public ::testing::Test {
 protected:
  void SetUp() override {
    NARROW_REQUIRE_SHARED();
    reference_ = make_model("llama", "reference");
    testing::write_file(dir_ / "text.txt", text());
    for (const char* type : {"q4_0", "q8_0"}) {
      const auto r =
          testing::narrow_cli({"quantize", reference_, "-o", file(type), "--type", type, "--quiet"});
      ASSERT_EQ(r.exit_code, 0) << r.err;
    }
  }
  static std::string text() {
    std::string out;
    for (int i = 0; i < 200; ++i) out += "the </script> end of " + std::to_string(i * i) + " and \xff\n";
    return out;
  }
  std::string make_model(const std::string& tiny, const std::string& name) const {
    const fs::path folder = dir_ / name;
    fs::create_directory(folder);
    const fs::path model = testing::shared_data() / "tiny-models" / tiny;
    for (const char* f : {"config.json", "model.safetensors"}) fs::copy_file(model / f, folder / f);
    const fs::path tokenizer = testing::shared_data() / "tokenizers" / "tiny-test";
    for (const char* f : {"tokenizer.json", "tokenizer_config.json"})
      fs::copy_file(tokenizer / f, folder / f);
    return folder.string();
  }
  std::string file(const std::string& type) const { return (dir_ / ("tiny-" + type + ".gguf")).string(); }
  testing::CommandResult report(std::vector<std::string> args) const {
    args.insert(args.begin(), {"report", "--ctx", "64", "--windows", "2", "--quiet"});
    return testing::narrow_cli(args);
  }
  std::string text_file() const { return (dir_ / "text.txt").string(); }
  std::string out(const char* name) const { return (dir_ / name).string(); }

  testing::TempDir dir_;
  std::string reference_;
};

TEST_F(CliReport, PageAndJsonHoldTheSameAndEvalsNumbers) {
  const auto r = report({"--ref", reference_, "--text", text_file(), file("q4_0"), file("q8_0"), "-o",
                         out("r.html"), "--json", out("r.json")});
  ASSERT_EQ(r.exit_code, 0) << r.err;
  EXPECT_NE(r.out.find("q4_0"), std::string::npos) << r.out;
  const std::string html = testing::read_file(out("r.html")), text = testing::read_file(out("r.json"));
  const auto j = nlohmann::json::parse(text);
  EXPECT_EQ(j["schema"], "narrow-report-1");
  const std::string begin = "id=\"report-data\">";
  const std::size_t at = html.find(begin) + begin.size();
  EXPECT_EQ(nlohmann::json::parse(html.substr(at, html.find("</script", at) - at)), j);

  const auto& models = j["measurements"]["models"];
  ASSERT_EQ(models.size(), 2u);
  EXPECT_EQ(models[0]["name"], "q4_0");  // what the names share is left out
  EXPECT_GT(models[0]["scores"]["kl_mean"], models[1]["scores"]["kl_mean"]);
  for (const char* type : {"q4_0", "q8_0"}) {
    const auto e = testing::narrow_cli({"eval", file(type), "--ref", reference_, "--text", text_file(),
                                        "--ctx", "64", "--windows", "2", "--quiet", "--json", "-"});
    ASSERT_EQ(e.exit_code, 0) << e.err;
    const auto expected = nlohmann::json::parse(e.out);
    const auto& mine = models[type == std::string("q4_0") ? 0 : 1];
    for (const auto& [key, value] : mine["scores"].items()) EXPECT_EQ(value, expected[key]) << key;
    EXPECT_EQ(mine["bpw"], expected["bpw"]);
  }
  for (const auto& m : models) {
    EXPECT_EQ(m["stream_error"].size(), 3u);  // layers
    EXPECT_GT(m["stream_error"][0], 0);
    EXPECT_EQ(m["worst_tokens"].size(), 20u);
    EXPECT_EQ(m["close_ups"].size(), 3u);
    double shares = 0;
    for (const auto& t : m["tensors"]) {
      shares += t["kl_share"].get<double>();
      EXPECT_TRUE(t["output_error"].is_null());
    }
    EXPECT_NEAR(shares, 1, 1e-9);
  }
  for (const auto& a : models[0]["advice"]) EXPECT_LT(a["kl_change"], 0);
  EXPECT_FALSE(models[0]["advice"].empty());
}

TEST_F(CliReport, TheSameBytesForAnyThreadCount) {
  std::string first;
  for (const char* threads : {"1", "2"}) {
    const auto r = report({"--ref", reference_, "--text", text_file(), file("q4_0"), "-o", out("r.html"),
                           "--threads", threads});
    ASSERT_EQ(r.exit_code, 0) << r.err;
    const std::string html = testing::read_file(out("r.html"));
    if (first.empty()) first = html;
    EXPECT_EQ(html, first);
  }
}

TEST_F(CliReport, StatisticsGiveOutputErrors) {
  const auto c = testing::narrow_cli({"calibrate", reference_, "--text", text_file(), "-o", out("stats.gguf"),
                                      "--ctx", "64", "--tokens", "256", "--quiet"});
  ASSERT_EQ(c.exit_code, 0) << c.err;
  const auto r = report({"--ref", reference_, "--text", text_file(), "--stats", out("stats.gguf"),
                         file("q4_0"), "--json", "-"});
  ASSERT_EQ(r.exit_code, 0) << r.err;
  const auto j = nlohmann::json::parse(r.out);
  const auto& m = j["measurements"]["models"][0];
  std::size_t known = 0;
  for (const auto& t : m["tensors"]) known += t["output_error"].is_number() ? 1 : 0;
  EXPECT_GE(known, 14u);
  for (const auto& close_up : m["close_ups"]) EXPECT_EQ(close_up["input_rms_quantiles"].size(), 201u);
}

TEST_F(CliReport, BadInputIsOneLineAndLeavesNoPage) {
  const std::string other = make_model("qwen2", "other");
  testing::write_file(dir_ / "short.txt", "the end");
  struct Case {
    std::vector<std::string> args;
    int exit_code;
    const char* says;
  };
  const std::string page = out("r.html");
  for (const Case& c : {
           Case{{"--ref", reference_, "--text", text_file(), "-o", page}, 2, "models"},
           Case{{file("q4_0"), "--text", text_file(), "-o", page}, 2, "--ref"},
           Case{{file("q4_0"), "--ref", reference_, "-o", page}, 2, "--text"},
           Case{{file("q4_0"), "--ref", reference_, "--text", text_file()}, 2, "no output"},
           Case{{out("none.gguf"), "--ref", reference_, "--text", text_file(), "-o", page}, 3, "none.gguf"},
           Case{{file("q4_0"), "--ref", out("none.gguf"), "--text", text_file(), "-o", page}, 3, "none.gguf"},
           Case{{file("q4_0"), "--ref", reference_, "--text", out("none.txt"), "-o", page}, 3, "none.txt"},
           Case{{file("q4_0"), "--ref", reference_, "--text", out("short.txt"), "-o", page},
                2,
                "fewer than one window"},
           Case{{file("q4_0"), other, "--ref", reference_, "--text", text_file(), "-o", page},
                2,
                "architecture is qwen2"},
           Case{{file("q4_0"), "--ref", reference_, "--text", text_file(), "--tensor", "no.such", "-o", page},
                3,
                "no.such"},
           Case{{file("q4_0"), "--ref", reference_, "--text", text_file(), "--worst", "-1", "-o", page},
                2,
                "-1 worst"},
           Case{
               {file("q4_0"), "--ref", reference_, "--text", text_file(), "--stats", text_file(), "-o", page},
               2,
               "text.txt"},
           Case{{file("q4_0"), "--ref", reference_, "--text", text_file(), "-o", out("no/r.html")},
                5,
                "no/r.html"},
       }) {
    const auto r = report(c.args);
    testing::expect_failure(r, c.exit_code, {c.says});
    EXPECT_FALSE(fs::exists(page)) << c.says;
  }
}

}  // namespace
}  // namespace narrow
