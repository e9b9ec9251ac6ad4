// Bad input of each kind: one clear line, a non-zero exit, no partial file.
#include <limits>
#include <nlohmann/json.hpp>

#include "cli/run_narrow.h"
#include "io/safetensors/writer.h"
#include "pipeline/tiny_gguf.h"

namespace narrow {
namespace {

namespace fs = std::filesystem;
using testing::expect_failure;
using testing::names_in;
using testing::narrow_cli;
using testing::TempDir;

const char* const kConfig =
    R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64,
  "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2,
  "vocab_size": 32, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "tie_word_embeddings": true})";

// A one-layer Llama as a Hugging Face folder; small shards when asked.
Status write_folder(const fs::path& folder, std::uint64_t shard_bytes = 0) {
  fs::create_directory(folder);
  testing::write_file(folder / "config.json", kConfig);
  std::vector<TensorInfo> tensors = {{"model.embed_tokens.weight", Format::kF32, {32, 64}},
                                     {"model.norm.weight", Format::kF32, {64}}};
  const auto add = [&](const std::string& part, Shape shape) {
    tensors.push_back({"model.layers.0." + part + ".weight", Format::kF32, std::move(shape)});
  };
  add("input_layernorm", {64});
  add("post_attention_layernorm", {64});
  add("self_attn.q_proj", {64, 64});
  add("self_attn.k_proj", {32, 64});
  add("self_attn.v_proj", {32, 64});
  add("self_attn.o_proj", {64, 64});
  add("mlp.gate_proj", {96, 64});
  add("mlp.up_proj", {96, 64});
  add("mlp.down_proj", {64, 96});
  io::safetensors::WriterOptions options;
  if (shard_bytes > 0) options.shard_max_bytes = shard_bytes;
  auto writer = io::safetensors::Writer::create(folder, tensors, options);
  if (!writer.ok()) return writer.error();
  Rng rng(3);
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    std::vector<float> v(static_cast<std::size_t>(tensors[i].shape.elements()));
    for (float& x : v) x = 0.1f * rng.normal();
    if (Status s = (*writer)->write(i, 0, std::as_bytes(std::span<const float>(v))); !s.ok()) return s;
  }
  return (*writer)->finish();
}

// A byte-level tokenizer with `n` tokens.
void write_tokenizer(const fs::path& folder, int n) {
  nlohmann::ordered_json vocab = nlohmann::ordered_json::object();
  for (int i = 0; i < n; ++i)
    vocab[i < 26 ? std::string(1, static_cast<char>('a' + i)) : fmt::format("t{}", i)] = i;
  const nlohmann::ordered_json j = {
      {"version", "1.0"},
      {"added_tokens", nlohmann::ordered_json::array()},
      {"normalizer", nullptr},
      {"pre_tokenizer",
       {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}}},
      {"post_processor", nullptr},
      {"decoder", {{"type", "ByteLevel"}}},
      {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", nlohmann::ordered_json::array()}}}};
  testing::write_file(folder / "tokenizer.json", j.dump());
}

TEST(Errors, SameOutputAsInput) {
  const TempDir dir;
  ASSERT_OK(testing::write_tiny_gguf(dir / "m.gguf"));
  const std::string before = testing::read_file(dir / "m.gguf");
  fs::create_symlink(dir / "m.gguf", dir / "soft.gguf");
  fs::create_hard_link(dir / "m.gguf", dir / "hard.gguf");
  for (const char* output : {"m.gguf", "soft.gguf", "hard.gguf"}) {
    expect_failure(narrow_cli({"quantize", dir / "m.gguf", "-o", dir / output, "-t", "q8_0"}), 2,
                   {"same file", output});
    expect_failure(narrow_cli({"convert", dir / "m.gguf", "-o", dir / output, "-t", "f16"}), 2,
                   {"same file", output});
  }
  EXPECT_EQ(testing::read_file(dir / "m.gguf"), before);
  EXPECT_EQ(names_in(dir.path()), (std::vector<std::string>{"hard.gguf", "m.gguf", "soft.gguf"}));
}

TEST(Errors, NotThere) {
  const TempDir dir;
  expect_failure(narrow_cli({"quantize", dir / "no.gguf", "-o", dir / "o.gguf", "-t", "q8_0"}), 3,
                 {"no.gguf"});
  expect_failure(narrow_cli({"convert", dir / "no", "-o", dir / "o.gguf"}), 3, {"no"});
  expect_failure(narrow_cli({"inspect", dir / "no.gguf"}), 3, {"no.gguf"});
  EXPECT_TRUE(names_in(dir.path()).empty());
  ASSERT_OK(testing::write_tiny_gguf(dir / "m.gguf"));
  expect_failure(narrow_cli({"quantize", dir / "m.gguf", "-o", dir / "no/o.gguf", "-t", "q8_0"}), 3,
                 {"does not exist"});
  expect_failure(narrow_cli({"inspect", dir / "m.gguf", "--tensor", "blk.9"}), 3, {"no tensor 'blk.9'"});
}

TEST(Errors, NanWeights) {
  const TempDir dir;
  testing::TinyGguf bad;
  bad.edit = [](const std::string& name, std::vector<float>& v) {
    if (name == "blk.1.attn_k.weight") v[300] = std::numeric_limits<float>::quiet_NaN();
  };
  ASSERT_OK(testing::write_tiny_gguf(dir / "m.gguf", bad));
  const std::vector<std::string> words = {"m.gguf", "blk.1.attn_k.weight", "NaN", "[1, 44]"};
  expect_failure(narrow_cli({"quantize", dir / "m.gguf", "-o", dir / "o.gguf", "-t", "q4_k_m"}), 3, words);
  expect_failure(narrow_cli({"convert", dir / "m.gguf", "-o", dir / "o.gguf", "-t", "f16"}), 3, words);
  EXPECT_EQ(narrow_cli({"convert", dir / "m.gguf", "-o", dir / "folder", "-t", "f16"}).exit_code, 3);
  EXPECT_EQ(names_in(dir.path()), std::vector<std::string>{"m.gguf"});
}

TEST(Errors, TruncatedFiles) {
  const TempDir dir;
  ASSERT_OK(testing::write_tiny_gguf(dir / "whole.gguf"));
  const std::string bytes = testing::read_file(dir / "whole.gguf");
  for (const std::size_t size :
       {std::size_t{2}, std::size_t{20}, std::size_t{900}, bytes.size() / 2, bytes.size() - 1}) {
    testing::write_file(dir / "cut.gguf", bytes.substr(0, size));
    expect_failure(narrow_cli({"quantize", dir / "cut.gguf", "-o", dir / "o.gguf", "-t", "q8_0"}), 3,
                   {"cut.gguf"});
  }
  ASSERT_OK(write_folder(dir / "hf"));
  const std::string weights = testing::read_file(dir / "hf/model.safetensors");
  testing::write_file(dir / "hf/model.safetensors", weights.substr(0, weights.size() - 100));
  expect_failure(narrow_cli({"quantize", dir / "hf", "-o", dir / "o.gguf", "-t", "q8_0"}), 3,
                 {"model.safetensors"});
  EXPECT_EQ(names_in(dir.path()), (std::vector<std::string>{"cut.gguf", "hf", "whole.gguf"}));
}

TEST(Errors, FoldersWithPartsMissing) {
  const TempDir dir;
  ASSERT_OK(write_folder(dir / "hf", 20'000));
  ASSERT_EQ(narrow_cli({"convert", dir / "hf", "-o", dir / "good.gguf"}).exit_code, 0);
  std::vector<std::string> shards;
  for (const std::string& n : names_in(dir / "hf")) {
    if (n.ends_with(".safetensors")) shards.push_back(n);
  }
  ASSERT_GT(shards.size(), 2u);
  fs::rename(dir / "hf" / shards[1], dir / "aside");
  expect_failure(narrow_cli({"convert", dir / "hf", "-o", dir / "o.gguf"}), 3, {shards[1]});
  fs::rename(dir / "aside", dir / "hf" / shards[1]);

  fs::rename(dir / "hf/config.json", dir / "aside");
  expect_failure(narrow_cli({"quantize", dir / "hf", "-o", dir / "o.gguf", "-t", "q8_0"}), 3,
                 {"config.json"});
  testing::write_file(dir / "hf/config.json", "{\"model_type\": \"llama\", ");
  expect_failure(narrow_cli({"quantize", dir / "hf", "-o", dir / "o.gguf", "-t", "q8_0"}), 3,
                 {"config.json"});
  testing::write_file(dir / "hf/config.json", R"({"model_type": "mystery"})");
  expect_failure(narrow_cli({"quantize", dir / "hf", "-o", dir / "o.gguf", "-t", "q8_0"}), 3, {"mystery"});
  EXPECT_EQ(names_in(dir.path()), (std::vector<std::string>{"aside", "good.gguf", "hf"}));
}

TEST(Errors, WrongTokenizer) {
  const TempDir dir;
  ASSERT_OK(write_folder(dir / "hf"));
  write_tokenizer(dir / "hf", 32);
  EXPECT_EQ(narrow_cli({"quantize", dir / "hf", "-o", dir / "good.gguf", "-t", "q8_0"}).exit_code, 0);
  write_tokenizer(dir / "hf", 33);
  for (const std::vector<std::string>& command :
       std::vector<std::vector<std::string>>{{"quantize", dir / "hf", "-o", dir / "o.gguf", "-t", "q8_0"},
                                             {"convert", dir / "hf", "-o", dir / "o.gguf"}}) {
    expect_failure(narrow_cli(command), 3, {"33 tokens", "32 rows", "another model"});
  }
  testing::write_file(dir / "hf/tokenizer.json", "{ no json");
  expect_failure(narrow_cli({"quantize", dir / "hf", "-o", dir / "o.gguf", "-t", "q8_0"}), 3,
                 {"tokenizer.json"});
  EXPECT_EQ(names_in(dir.path()), (std::vector<std::string>{"good.gguf", "hf"}));
}

TEST(Errors, RequantizingIsRefusedUnlessAllowed) {
  const TempDir dir;
  testing::TinyGguf quantized;
  quantized.format = Format::kQ8_0;
  ASSERT_OK(testing::write_tiny_gguf(dir / "q.gguf", quantized));
  std::vector<std::string> command = {"quantize", dir / "q.gguf", "-o", dir / "o.gguf", "-t", "q4_0"};
  expect_failure(narrow_cli(command), 4, {"already quantized (q8_0)", "--allow-requantize"});
  EXPECT_EQ(names_in(dir.path()), std::vector<std::string>{"q.gguf"});
  command.push_back("--allow-requantize");
  EXPECT_EQ(narrow_cli(command).exit_code, 0);
  EXPECT_EQ(narrow_cli({"convert", dir / "q.gguf", "-o", dir / "f.gguf", "-t", "f32"}).exit_code, 0)
      << "decoding loses nothing and is convert's work";
}

TEST(Errors, StrictAndNoOverwriteAndFullFoldersAreRefused) {
  const TempDir dir;
  testing::TinyGguf odd;
  odd.n_embd = 96;
  ASSERT_OK(testing::write_tiny_gguf(dir / "m.gguf", odd));
  expect_failure(narrow_cli({"quantize", dir / "m.gguf", "-o", dir / "o.gguf", "-t", "q4_k_m", "--strict"}),
                 4, {"--strict"});
  testing::write_file(dir / "old.gguf", "old");
  expect_failure(
      narrow_cli({"quantize", dir / "m.gguf", "-o", dir / "old.gguf", "-t", "q8_0", "--no-overwrite"}), 4,
      {"old.gguf"});
  fs::create_directory(dir / "full");
  testing::write_file(dir / "full/x", "x");
  expect_failure(narrow_cli({"convert", dir / "m.gguf", "-o", dir / "full"}), 4, {"not empty"});
  EXPECT_EQ(names_in(dir.path()), (std::vector<std::string>{"full", "m.gguf", "old.gguf"}));
  EXPECT_EQ(names_in(dir / "full"), std::vector<std::string>{"x"});
}

// A file size limit stands in for a full disk: both make write() fail in the middle.
TEST(Errors, FullDiskLeavesNoPartialFile) {
  const TempDir dir;
  ASSERT_OK(testing::write_tiny_gguf(dir / "m.gguf"));
  const auto limited = [&](const std::string& command) {
    return testing::run_command({"/bin/bash", "-c", "ulimit -f 200; exec \"$0\" " + command, NARROW_BINARY,
                                 dir / "m.gguf", dir / "o.gguf", dir / "folder"});
  };
  expect_failure(limited("quantize \"$1\" -o \"$2\" -t q8_0"), 5, {"o.gguf"});
  expect_failure(limited("quantize \"$1\" -o \"$2\" -t q8_0 --split-max-size 500k"), 5, {"o-0000"});
  expect_failure(limited("convert \"$1\" -o \"$2\" -t f16"), 5, {"o.gguf"});
  EXPECT_EQ(limited("convert \"$1\" -o \"$3\" -t f16").exit_code, 5);
  EXPECT_EQ(names_in(dir.path()), std::vector<std::string>{"m.gguf"});
}

TEST(Errors, StandardOutputThatTakesNothing) {
  const auto r =
      testing::run_command({"/bin/bash", "-c", "exec \"$0\" list types > /dev/full", NARROW_BINARY});
  expect_failure(r, 5, {"standard output"});
}

TEST(Errors, InterruptsLeaveNoPartialFile) {
  const TempDir dir;
  testing::TinyGguf large;
  large.n_embd = 1024;
  large.n_ff = 2048;
  large.n_layer = 12;
  ASSERT_OK(testing::write_tiny_gguf(dir / "m.gguf", large));
  for (const std::string signal : {"INT", "TERM"}) {
    // Waits for the temporary file, so that the signal comes in the middle of the work.
    const auto r = testing::run_command(
        {"/bin/bash", "-c",
         "\"$0\" convert \"$1/m.gguf\" -o \"$1/o.gguf\" --type f16 --threads 1 & pid=$!; "
         "while kill -0 $pid 2>/dev/null && ! compgen -G \"$1/o.gguf.tmp-*\" >/dev/null; do sleep 0.01; "
         "done; "
         "kill -" +
             signal + " $pid; wait $pid",
         NARROW_BINARY, dir.path()});
    expect_failure(r, 130, {"cancelled"});
    EXPECT_EQ(names_in(dir.path()), std::vector<std::string>{"m.gguf"}) << signal;
  }
}

}  // namespace
}  // namespace narrow
