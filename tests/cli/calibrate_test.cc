#include <nlohmann/json.hpp>

#include "cli/run_narrow.h"
#include "io/gguf/reader.h"

namespace narrow::testing {
namespace {

namespace fs = std::filesystem;

// A random mixture of experts with a small tokenizer, and a chat template that knows no system message.
std::string tiny_model(const fs::path& folder, bool with_template = true) {
  fs::create_directories(folder);
  for (const char* name : {"config.json", "model.safetensors"}) {
    fs::copy_file(shared_data() / "tiny-models" / "mixtral" / name, folder / name);
  }
  for (const char* name : {"tokenizer.json", "tokenizer_config.json"}) {
    fs::copy_file(shared_data() / "tokenizers" / "tiny-test" / name, folder / name);
  }
  if (with_template) {
    write_file(folder / "chat_template.jinja",
               "{% for m in messages %}{% if m['role'] == 'system' %}"
               "{{ raise_exception('no system message, please') }}{% endif %}"
               "[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}");
  }
  return folder.string();
}

CommandResult calibrate(std::vector<std::string> args) {
  args.insert(args.begin(), {"calibrate"});
  return narrow_cli(std::move(args));
}

TEST(CalibrateCommand, SaysWhatItUsedAndWritesStatisticsThatMerge) {
  NARROW_REQUIRE_SHARED();
  const TempDir dir;
  const std::string a = (dir / "a.gguf").string(), b = (dir / "b.gguf").string(),
                    dat = (dir / "both.dat").string(), model = tiny_model(dir / "model");
  write_file(dir / "short.txt", "Once upon a time there was a cat.");
  const auto r =
      calibrate({model, "--text", (shared_data() / "text/tinystories.txt").string(),
                 (dir / "short.txt").string(), "--tokens", "1000", "--ctx", "100", "-o", a, "--json", "-"});
  ASSERT_EQ(r.exit_code, 0) << r.err;
  const auto j = nlohmann::json::parse(r.out);
  EXPECT_EQ(j["asked_tokens"], 1000);
  ASSERT_EQ(j["texts"].size(), 2u);
  EXPECT_EQ(j["texts"][1]["windows"], 1);
  EXPECT_EQ(j["texts"][1]["dropped_tokens"], 0);
  const std::int64_t used =
      j["texts"][0]["used_tokens"].get<std::int64_t>() + j["texts"][1]["used_tokens"].get<std::int64_t>();
  EXPECT_NEAR(static_cast<double>(used), 1000, 50);
  for (const auto& t : j["texts"]) {
    EXPECT_EQ(t["available_tokens"].get<int>(), t["used_tokens"].get<int>() + t["dropped_tokens"].get<int>());
  }
  ASSERT_EQ(calibrate({model, "--text", (dir / "short.txt").string(), "-o", b}).exit_code, 0);
  const auto merged = calibrate({"--merge", a, b, "-o", dat, "--format", "dat", "--json", "-"});
  ASSERT_EQ(merged.exit_code, 0) << merged.err;
  EXPECT_EQ(nlohmann::json::parse(merged.out)["matrices"], j["matrices"]);
  // Added to a run, of either kind.
  EXPECT_EQ(calibrate({model, "--text", (dir / "short.txt").string(), "--merge", dat, a, "-o", b}).exit_code,
            0);
  // The same bytes for any number of threads.
  for (const char* threads : {"1", "2"}) {
    const std::string out = (dir / (std::string("t") + threads)).string();
    ASSERT_EQ(calibrate({model, "--threads", threads, "--text",
                         (shared_data() / "text/tinystories.txt").string(), "--tokens", "500", "-o", out})
                  .exit_code,
              0);
  }
  EXPECT_EQ(read_file(dir / "t1"), read_file(dir / "t2"));
}

TEST(CalibrateCommand, EveryMistakeIsOneLineAndLeavesNoFile) {
  NARROW_REQUIRE_SHARED();
  const TempDir dir;
  const std::string out = (dir / "out.gguf").string(), text = (dir / "text.txt").string(),
                    empty = (dir / "empty.txt").string(), chats = (dir / "chats.jsonl").string(),
                    bad = (dir / "bad.jsonl").string(), model = tiny_model(dir / "model", false);
  write_file(text, "Once upon a time there was a cat.");
  write_file(empty, "");
  write_file(chats, "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]}\n");
  write_file(bad, "{\"text\": \"fine\"}\n{\"massages\": []}\n");
  const std::vector<std::string> before = names_in(dir.path());
  const struct {
    std::vector<std::string> args;
    int code;
    std::vector<std::string> words;
  } cases[] = {
      {{model, "-o", out}, 2, {"--text"}},
      {{"-o", out, "--text", text}, 2, {"the model", "text.txt"}},
      {{model, "--text", text}, 2, {"--output"}},
      {{model, "--text", empty, "-o", out}, 2, {"empty.txt", "no token"}},
      {{model, "--text", (dir / "none.txt").string(), "-o", out}, 3, {"none.txt"}},
      {{(dir / "none").string(), "--text", text, "-o", out}, 3, {"none"}},
      {{model, "--text", text, "-o", out, "--ctx", "513"}, 2, {"513"}},
      {{model, "--text", text, "-o", out, "--ctx", "1"}, 2, {"1"}},
      {{model, "--text", text, "-o", out, "--tokens", "-3"}, 2, {"-3"}},
      {{model, "--text", text, "-o", out, "--format", "csv"}, 2, {"csv"}},
      {{model, "--text", text, "-o", text}, 2, {"text.txt"}},
      {{model, "--text", chats, "-o", out}, 3, {"chat template"}},
      {{model, "--text", bad, "-o", out}, 3, {"bad.jsonl", "line 2"}},
      {{"--merge", text, text, "-o", out}, 2, {"text.txt", "neither a GGUF"}},
      {{model, "--text", text, "--merge", text, "-o", out}, 2, {"text.txt", "neither a GGUF"}},
      {{model, "--text", text, "-o", (dir / "no/out.gguf").string()}, 3, {"no"}},
  };
  for (const auto& c : cases) {
    expect_failure(calibrate(c.args), c.code, c.words);
    EXPECT_EQ(names_in(dir.path()), before) << c.words[0];
  }
}

TEST(CalibrateCommand, ConversationsGoThroughTheModelsTemplate) {
  NARROW_REQUIRE_SHARED();
  const TempDir dir;
  const std::string model = tiny_model(dir / "model"), out = (dir / "s.gguf").string();
  write_file(dir / "chats.jsonl",
             "{\"messages\": [{\"role\": \"user\", \"content\": \"Name it.\"}, "
             "{\"role\": \"assistant\", \"content\": \"Blue.\"}]}\n\n"
             "{\"messages\": [{\"role\": \"system\", \"content\": \"Be nice.\"}]}\n"
             "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": "
             "\"Name it.\"}]}]}\n");
  const auto r = calibrate({model, "--text", (dir / "chats.jsonl").string(), "-o", out, "--json", "-"});
  ASSERT_EQ(r.exit_code, 0) << r.err;
  EXPECT_NE(r.err.find("1 of 3 conversations left out"), std::string::npos) << r.err;
  EXPECT_NE(r.err.find("no system message, please"), std::string::npos) << r.err;
  const auto j = nlohmann::json::parse(r.out);
  EXPECT_EQ(j["windows"], 2);
  // The tokens of "[user] Name it.\n" and the like, as they would be as text, and not those of the messages.
  write_file(dir / "same.txt", "[user] Name it.\n[assistant] Blue.\n");
  const auto plain = calibrate({model, "--text", (dir / "same.txt").string(), "-o", out, "--json", "-"});
  ASSERT_EQ(plain.exit_code, 0) << plain.err;
  EXPECT_EQ(nlohmann::json::parse(plain.out)["window_tokens"], j["window_tokens"]);
  // The starved experts of so short a text are named.
  EXPECT_NE(r.err.find("borrow from the others"), std::string::npos) << r.err;
  ASSERT_OK_AND_ASSIGN(const auto reader, io::gguf::Reader::open(out));
  EXPECT_EQ(reader.find("blk.2.ffn_down_exps.weight.in_sum2")->info.shape, (Shape{4, 160}));
  EXPECT_EQ(reader.find("blk.2.ffn_down_exps.weight.counts")->info.shape, (Shape{4, 1}));
}

}  // namespace
}  // namespace narrow::testing
