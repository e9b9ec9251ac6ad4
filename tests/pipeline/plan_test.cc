#include "pipeline/plan.h"

#include "io/gguf/split_name.h"
#include "pipeline/tiny_gguf.h"
#include "testing/testing.h"

namespace narrow::pipeline {
namespace {

namespace fs = std::filesystem;
using testing::TinyGguf;

Result<Plan> decide(const QuantizeOptions& o, const TinyGguf& model = {}) {
  const ModelTraits traits{"llama", model.n_layer, model.n_head, model.n_head_kv, 0};
  return decide_types("tiny.gguf", traits, testing::tiny_tensors(model), o);
}

QuantizeOptions options(std::string type) {
  QuantizeOptions o;
  o.type = std::move(type);
  return o;
}

const PlannedTensor& tensor(const Plan& p, const std::string& name) {
  for (const PlannedTensor& t : p.report.tensors) {
    if (t.name == name) return t;
  }
  ADD_FAILURE() << "no tensor " << name;
  return p.report.tensors.front();
}

TEST(Plan, MixWithReasons) {
  ASSERT_OK_AND_ASSIGN(const Plan p, decide(options("Q4_K_M")));
  EXPECT_EQ(tensor(p, "output.weight").to_type, "q6_k");
  EXPECT_EQ(tensor(p, "token_embd.weight").to_type, "q4_k");
  EXPECT_EQ(tensor(p, "blk.0.attn_q.weight").to_type, "q4_k");
  EXPECT_EQ(tensor(p, "blk.0.attn_q.weight").reason, "mix q4_k_m");
  EXPECT_EQ(tensor(p, "blk.0.attn_norm.weight").to_type, "f32");
  EXPECT_EQ(tensor(p, "blk.0.attn_norm.weight").reason, "kept: norm");
  EXPECT_EQ(p.report.fallbacks, 0);
  EXPECT_EQ(p.report.file_type_name, "q4_k_m");
}

TEST(Plan, PureUsesOneTypeForEveryMatrix) {
  QuantizeOptions o = options("q4_k");
  o.pure = true;
  ASSERT_OK_AND_ASSIGN(const Plan p, decide(o));
  for (const PlannedTensor& t : p.report.tensors) {
    EXPECT_EQ(t.to_type, t.shape.size() == 1 ? "f32" : "q4_k") << t.name;
  }
}

TEST(Plan, BpwCountsStoredBytesOfEveryTensor) {
  QuantizeOptions o = options("q8_0");
  ASSERT_OK_AND_ASSIGN(const Plan p, decide(o));
  double bits = 0, weights = 0;
  for (const PlannedTensor& t : p.report.tensors) {
    double n = 1;
    for (const auto d : t.shape) n *= static_cast<double>(d);
    bits += n * (t.shape.size() == 1 ? 32.0 : 8.5);
    weights += n;
  }
  EXPECT_NEAR(p.report.bpw, bits / weights, 1e-9);
  EXPECT_EQ(p.report.parameters, static_cast<std::uint64_t>(weights));
}

TEST(Plan, FirstMatchingRuleWinsAndCounts) {
  QuantizeOptions o = options("q4_0");
  o.rules = {{R"(blk\.0\.ffn_down)", "Q8_0"}, {"ffn_down", "q6_k"}, {"^output", "f16"}};
  o.output_type = "q5_0";
  ASSERT_OK_AND_ASSIGN(const Plan p, decide(o));
  EXPECT_EQ(tensor(p, "blk.0.ffn_down.weight").to_type, "q8_0");
  EXPECT_EQ(tensor(p, "blk.0.ffn_down.weight").reason, R"(rule 'blk\.0\.ffn_down')");
  EXPECT_EQ(tensor(p, "blk.1.ffn_down.weight").to_type, "q6_k");
  EXPECT_EQ(tensor(p, "output.weight").to_type, "f16") << "a rule goes over --output-type";
  EXPECT_EQ(tensor(p, "output_norm.weight").to_type, "f32");
  ASSERT_EQ(p.report.rules.size(), 3u);
  EXPECT_EQ(p.report.rules[0].matched, 1);
  EXPECT_EQ(p.report.rules[0].applied, 1);
  EXPECT_EQ(p.report.rules[1].matched, 2);
  EXPECT_EQ(p.report.rules[1].applied, 1);
  EXPECT_EQ(p.report.rules[2].matched, 2) << "output_norm.weight too";
  EXPECT_EQ(p.report.rules[2].applied, 1);
}

TEST(Plan, EmbeddingAndOutputTypes) {
  QuantizeOptions o = options("q4_0");
  o.embedding_type = "Q8_0";
  o.output_type = "f16";
  ASSERT_OK_AND_ASSIGN(const Plan p, decide(o));
  EXPECT_EQ(tensor(p, "token_embd.weight").to_type, "q8_0");
  EXPECT_EQ(tensor(p, "token_embd.weight").reason, "--embedding-type");
  EXPECT_EQ(tensor(p, "output.weight").to_type, "f16");

  TinyGguf tied;
  tied.tied = true;
  o.embedding_type.clear();
  ASSERT_OK_AND_ASSIGN(const Plan q, decide(o, tied));
  EXPECT_EQ(tensor(q, "token_embd.weight").to_type, "f16") << "the embedding is the head here";
}

TEST(Plan, FallbacksAreListedAndStrictRefusesThem) {
  TinyGguf odd;
  odd.n_embd = 96;
  odd.n_ff = 172;
  QuantizeOptions o = options("q4_k_s");
  ASSERT_OK_AND_ASSIGN(const Plan p, decide(o, odd));
  const PlannedTensor& q = tensor(p, "blk.1.attn_q.weight");
  EXPECT_TRUE(q.fallback);
  EXPECT_EQ(q.to_type, "q5_0");
  EXPECT_EQ(q.reason, "fallback: rows of 96 are no multiple of q4_k's 256");
  EXPECT_EQ(tensor(p, "blk.1.ffn_down.weight").to_type, "f16");
  int listed = 0;
  for (const PlannedTensor& t : p.report.tensors) listed += t.fallback ? 1 : 0;
  EXPECT_EQ(p.report.fallbacks, listed);
  o.strict = true;
  const auto refused = decide(o, odd);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kRefused);
  EXPECT_NE(refused.error().message.find("--strict"), std::string::npos) << refused.error().message;
}

TEST(Plan, RefusesToQuantizeAgain) {
  TinyGguf quantized;
  quantized.format = Format::kQ4_1;
  QuantizeOptions o = options("q4_k_m");
  const auto refused = decide(o, quantized);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kRefused);
  EXPECT_EQ(refused.error().message,
            "tiny.gguf: is already quantized (q4_1): quantizing it again adds its loss to the new one; start "
            "from the "
            "f32/f16/bf16 model, or say --allow-requantize");
  o.allow_requantize = true;
  EXPECT_OK(decide(o, quantized));
  QuantizeOptions same = options("q4_1");
  same.pure = true;
  EXPECT_OK(decide(same, quantized));  // the type stays: nothing is quantized twice
}

TEST(Plan, WrongOptionsAreErrorsThatNameThem) {
  struct Case {
    const char* what;
    void (*change)(QuantizeOptions&);
    ErrorCode code;
    std::vector<std::string> words;
  };
  const std::vector<Case> cases = {
      {"type",
       [](QuantizeOptions& o) { o.type = "q4_z"; },
       ErrorCode::kInvalidArgument,
       {"'q4_z'", "q4_k_m"}},
      {"method",
       [](QuantizeOptions& o) { o.method = "magic"; },
       ErrorCode::kInvalidArgument,
       {"'magic'", "rtn"}},
      {"expression",
       [](QuantizeOptions& o) {
         o.rules = {{"a[", "q8_0"}};
       },
       ErrorCode::kInvalidArgument,
       {"rule 'a[=q8_0'", "at offset"}},
      {"rule's type",
       [](QuantizeOptions& o) {
         o.rules = {{"ffn", "q8_9"}};
       },
       ErrorCode::kInvalidArgument,
       {"rule 'ffn=q8_9'", "q8_0"}},
      {"rule's read-only type",
       [](QuantizeOptions& o) {
         o.rules = {{"ffn", "f64"}};
       },
       ErrorCode::kUnsupported,
       {"rule 'ffn=f64'"}},
      {"rule without match",
       [](QuantizeOptions& o) {
         o.rules = {{"ffn_dwon", "q8_0"}};
       },
       ErrorCode::kInvalidArgument,
       {"rule 'ffn_dwon=q8_0'", "matches no tensor"}},
      {"rule on norms",
       [](QuantizeOptions& o) {
         o.rules = {{"attn_norm", "q8_0"}};
       },
       ErrorCode::kInvalidArgument,
       {"rule 'attn_norm=q8_0'", "2 tensors"}},
      {"rule behind another",
       [](QuantizeOptions& o) {
         o.rules = {{"ffn", "q8_0"}, {"ffn_up", "q6_k"}};
       },
       ErrorCode::kInvalidArgument,
       {"rule 'ffn_up=q6_k'", "rule 'ffn=q8_0'"}},
      {"embedding type",
       [](QuantizeOptions& o) { o.embedding_type = "i32"; },
       ErrorCode::kUnsupported,
       {"--embedding-type", "i32"}},
      {"output type",
       [](QuantizeOptions& o) { o.output_type = "?"; },
       ErrorCode::kInvalidArgument,
       {"--output-type"}},
  };
  for (const Case& c : cases) {
    QuantizeOptions o = options("q4_0");
    c.change(o);
    const auto r = decide(o);
    ASSERT_FALSE(r.ok()) << c.what;
    EXPECT_EQ(r.error().code, c.code) << c.what << ": " << r.error().message;
    for (const std::string& w : c.words) {
      EXPECT_NE(r.error().message.find(w), std::string::npos) << c.what << ": " << r.error().message;
    }
  }
}

TEST(Plan, RuleThatRowsCannotHoldNamesRuleAndTensor) {
  TinyGguf odd;
  odd.n_embd = 96;
  QuantizeOptions o = options("q8_0");
  o.rules = {{"attn_q", "q4_k"}};
  const auto r = decide(o, odd);
  ASSERT_FALSE(r.ok());
  EXPECT_NE(r.error().message.find("rule 'attn_q=q4_k'"), std::string::npos) << r.error().message;
  EXPECT_NE(r.error().message.find("blk.0.attn_q.weight"), std::string::npos) << r.error().message;
}

TEST(Plan, SameFileIsRefusedAlsoByLink) {
  const testing::TempDir dir;
  const fs::path folder = dir / "model";
  fs::create_directory(folder);
  testing::write_file(dir / "m.gguf", "x");
  testing::write_file(folder / "model.safetensors", "x");
  fs::create_symlink(dir / "m.gguf", dir / "soft.gguf");
  fs::create_hard_link(dir / "m.gguf", dir / "hard.gguf");
  fs::create_symlink(folder / "model.safetensors", dir / "shard.gguf");
  fs::create_directory_symlink(folder, dir / "folder_link");
  for (int no = 0; no < 2; ++no)
    testing::write_file(io::gguf::split_part_path(dir / "s", no, 2), std::to_string(no));
  struct Case {
    fs::path source, output;
    bool ok;
  };
  const std::vector<Case> cases = {
      {dir / "m.gguf", dir / "m.gguf", false},
      {dir / "m.gguf", dir.path() / "model" / ".." / "m.gguf", false},
      {dir / "m.gguf", dir / "soft.gguf", false},
      {dir / "soft.gguf", dir / "m.gguf", false},
      {dir / "m.gguf", dir / "hard.gguf", false},
      {folder, folder / "model.safetensors", false},
      {folder, dir / "shard.gguf", false},
      {dir / "folder_link", folder / "model.safetensors", false},
      {dir / "s-00001-of-00002.gguf", dir / "s-00002-of-00002.gguf", false},
      {dir / "m.gguf", dir / "new.gguf", true},
      {folder, folder / "new.gguf", true},
      {dir / "s-00001-of-00002.gguf", dir / "m.gguf", true},
  };
  for (const Case& c : cases) {
    const Status s = refuse_same_file(c.source, c.output);
    EXPECT_EQ(s.ok(), c.ok) << c.source << " -> " << c.output;
    if (!s.ok()) {
      EXPECT_EQ(s.error().code, ErrorCode::kInvalidArgument);
    }
  }
}

TEST(Plan, OutputPathIsCheckedFirst) {
  const testing::TempDir dir;
  testing::write_file(dir / "there.gguf", "x");
  EXPECT_EQ(check_output_path("", true).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(check_output_path(dir.path(), true).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(check_output_path(dir / "no/such.gguf", true).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(check_output_path(dir / "there.gguf", false).error().code, ErrorCode::kRefused);
  EXPECT_OK(check_output_path(dir / "there.gguf", true));
  EXPECT_EQ(check_free_disk(dir / "x", std::uint64_t{1} << 60).error().code, ErrorCode::kNoSpace);
}

}  // namespace
}  // namespace narrow::pipeline
