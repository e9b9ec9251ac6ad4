#include <nlohmann/json.hpp>

#include "cli/run_narrow.h"

namespace narrow {
namespace {

std::string tiny() { return (testing::shared_data() / "tiny-models" / "llama").string(); }

std::vector<std::string> with(std::vector<std::string> args) {
  args.insert(args.begin(), {"--quiet", "bench", tiny()});
  return args;
}

TEST(CliBench, JsonHasEveryPromisedField) {
  NARROW_REQUIRE_SHARED();
  const auto r = testing::narrow_cli(
      with({"--prefill", "8,16", "--decode", "4", "--repetitions", "2", "--threads", "1", "--json", "-"}));
  ASSERT_EQ(r.exit_code, 0) << r.err;
  EXPECT_TRUE(r.err.empty()) << r.err;
  const auto j = nlohmann::json::parse(r.out, nullptr, false);
  ASSERT_FALSE(j.is_discarded()) << r.out;
  EXPECT_EQ(j["model"], "llama");
  EXPECT_EQ(j["threads"], 1);
  EXPECT_FALSE(j["isa"].get<std::string>().empty());
  for (const char* key : {"size_bytes", "peak_rss_bytes", "cache_bytes", "bpw"})
    EXPECT_GT(j[key].get<double>(), 0) << key;
  for (const char* key : {"int8_operations_per_s", "memory_bytes_per_s", "model_bytes_per_s"})
    EXPECT_GT(j["limits"][key].get<double>(), 0) << key;
  // The limits' buffers are larger than this model, its cache and the program together.
  EXPECT_LT(j["peak_rss_bytes"].get<double>(), j["limits"]["memory_buffer_bytes"].get<double>());

  ASSERT_EQ(j["results"].size(), 3u);
  const std::vector<std::string> names = {"pp8", "pp16", "tg4"};
  const std::vector<int> prompts = {8, 16, 0}, generated = {0, 0, 4};
  for (std::size_t i = 0; i < names.size(); ++i) {
    const auto& t = j["results"][i];
    EXPECT_EQ(t["test"], names[i]);
    EXPECT_EQ(t["n_prompt"], prompts[i]);
    EXPECT_EQ(t["n_gen"], generated[i]);
    EXPECT_EQ(t["depth"], 0);
    EXPECT_EQ(t["batch"], 1);
    EXPECT_EQ(t["repetitions"], 2);
    EXPECT_EQ(t["samples"].size(), 2u);
    EXPECT_GT(t["tokens_per_s"].get<double>(), 0);
    EXPECT_GE(t["spread"].get<double>(), 0);
    EXPECT_NEAR(t["ms_per_token"].get<double>() * t["tokens_per_s"].get<double>(), 1000, 1e-6);
    EXPECT_NEAR(t["of_limit"].get<double>() * t["limit_tokens_per_s"].get<double>(),
                t["tokens_per_s"].get<double>(), 1e-6 * t["tokens_per_s"].get<double>());
    EXPECT_TRUE(t["limit"] == "memory" || t["limit"] == "arithmetic") << t["limit"];
  }
}

TEST(CliBench, DepthNamesTheTestAndReadsMore) {
  NARROW_REQUIRE_SHARED();
  const auto run = [](const char* depth) {
    const auto r = testing::narrow_cli(
        with({"--prefill", "0", "--decode", "2", "--depth", depth, "--repetitions", "1", "--json", "-"}));
    EXPECT_EQ(r.exit_code, 0) << r.err;
    return nlohmann::json::parse(r.out, nullptr, false);
  };
  const auto shallow = run("0"), deep = run("40");
  ASSERT_EQ(shallow["results"].size(), 1u);
  ASSERT_EQ(deep["results"].size(), 1u);
  EXPECT_EQ(shallow["results"][0]["test"], "tg2");
  EXPECT_EQ(deep["results"][0]["test"], "tg2@d40");
  EXPECT_GT(deep["results"][0]["bytes_per_token"].get<double>(),
            shallow["results"][0]["bytes_per_token"].get<double>());
}

TEST(CliBench, BatchCountsTheTokensOfAllSequences) {
  NARROW_REQUIRE_SHARED();
  const auto r = testing::narrow_cli(
      with({"--prefill", "4", "--decode", "2", "--batch", "3", "--repetitions", "1", "--json", "-"}));
  ASSERT_EQ(r.exit_code, 0) << r.err;
  const auto j = nlohmann::json::parse(r.out, nullptr, false);
  ASSERT_EQ(j["results"].size(), 2u);
  EXPECT_EQ(j["results"][0]["test"], "pp4");
  EXPECT_EQ(j["results"][1]["test"], "tg2@b3");
  EXPECT_EQ(j["results"][1]["batch"], 3);
}

TEST(CliBench, TableCsvAndJsonTogether) {
  NARROW_REQUIRE_SHARED();
  testing::TempDir dir;
  const std::string json = (dir / "out.json").string(), csv = (dir / "out.csv").string();
  testing::write_file(json, "old");
  const auto r = testing::narrow_cli(
      with({"--prefill", "8", "--decode", "2", "--repetitions", "1", "--json", json, "--csv", csv}));
  ASSERT_EQ(r.exit_code, 0) << r.err;
  for (const char* word : {"pp8", "tg2", "tokens/s", "GB/s", "KV cache"})
    EXPECT_NE(r.out.find(word), std::string::npos) << word << " in: " << r.out;
  // Whole files, and nothing left over from writing them.
  EXPECT_EQ(testing::names_in(dir.path()), (std::vector<std::string>{"out.csv", "out.json"}));
  const auto j = nlohmann::json::parse(testing::read_file(json), nullptr, false);
  ASSERT_EQ(j["results"].size(), 2u);

  const auto lines = testing::lines_of(testing::read_file(csv));
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_TRUE(lines[0].starts_with("model,type,size_bytes,threads,isa,test,")) << lines[0];
  EXPECT_NE(lines[1].find(",pp8,8,0,0,1,1,"), std::string::npos) << lines[1];
  EXPECT_NE(lines[2].find(",tg2,0,2,0,1,1,"), std::string::npos) << lines[2];
  for (const std::string& line : lines) {
    EXPECT_EQ(std::count(line.begin(), line.end(), ','), std::count(lines[0].begin(), lines[0].end(), ','))
        << line;
  }
}

TEST(CliBench, BadOptionsSayWhatIsWrong) {
  NARROW_REQUIRE_SHARED();
  struct Case {
    std::vector<std::string> args;
    std::vector<std::string> says;
  };
  const std::vector<Case> cases = {
      {{"--prefill", "many"}, {"--prefill", "many"}},
      {{"--decode", "4,,5"}, {"--decode", "4,,5"}},
      {{"--decode", "-4"}, {"--decode", "-4"}},
      {{"--prefill", "0", "--decode", "0"}, {"nothing to measure"}},
      {{"--depth", "-1"}, {"--depth -1"}},
      {{"--batch", "0"}, {"--batch 0"}},
      {{"--repetitions", "0"}, {"--repetitions 0"}},
      {{"--json", "-", "--csv", "-"}, {"--json", "--csv"}},
      {{"--cache-type-k", "q9"}, {"--cache-type-k", "q9"}},
      {{"--bogus"}, {"--bogus"}},
  };
  for (const Case& c : cases) {
    const auto r = testing::narrow_cli(with(c.args));
    testing::expect_failure(r, 2, c.says);
    EXPECT_TRUE(r.out.empty()) << r.out;
  }
  testing::expect_failure(testing::narrow_cli({"bench", "/no/such.gguf"}), 3, {"/no/such.gguf"});
  testing::expect_failure(testing::narrow_cli({"bench"}), 2, {"model"});
}

TEST(CliBench, AnOutputThatCannotBeWrittenIsAnError) {
  NARROW_REQUIRE_SHARED();
  testing::TempDir dir;
  const auto r = testing::narrow_cli(with({"--prefill", "2", "--decode", "0", "--repetitions", "1", "--json",
                                           (dir / "no" / "out.json").string()}));
  EXPECT_EQ(r.exit_code, 5) << r.err;
  EXPECT_TRUE(testing::names_in(dir.path()).empty());
}

}  // namespace
}  // namespace narrow
