// Sources of real and of broken models.
#include "model/source.h"

#include <cmath>
#include <cstring>
#include <span>

#include "base/digest.h"
#include "base/scalar.h"
#include "io/gguf/reader.h"
#include "io/safetensors/writer.h"
#include "tiny_models.h"

namespace narrow::model {
namespace {

using narrow::testing::TempDir;

std::string open_error(const std::filesystem::path& p) {
  const auto r = ModelSource::open(p);
  EXPECT_FALSE(r.ok());
  return r.ok() ? "" : r.error().message;
}

struct MemoryTensor {
  TensorInfo info;
  std::vector<std::byte> bytes;
};

std::vector<MemoryTensor> load(const std::filesystem::path& folder) {
  auto reader = io::safetensors::Reader::open_folder(folder);
  EXPECT_TRUE(reader.ok());
  std::vector<MemoryTensor> out;
  for (const auto& t : reader->tensors()) {
    const TensorView v = reader->view(t);
    out.push_back({t.info, {v.data, v.data + t.info.bytes()}});
  }
  return out;
}

void save(const std::filesystem::path& folder, const std::vector<MemoryTensor>& tensors,
          const std::string& config) {
  std::vector<TensorInfo> infos;
  for (const auto& t : tensors) infos.push_back(t.info);
  ASSERT_OK_AND_ASSIGN(auto writer, io::safetensors::Writer::create(folder, infos));
  for (std::size_t i = 0; i < tensors.size(); ++i) ASSERT_OK(writer->write(i, 0, tensors[i].bytes));
  ASSERT_OK(writer->finish());
  narrow::testing::write_file(folder / "config.json", config);
}

TEST(Source, RealGgufsAreRead) {
  const auto models = narrow::testing::cache_dir() / "models";
  if (!std::filesystem::exists(models / "smollm2-q4_1.gguf") ||
      !std::filesystem::exists(models / "gemma3-270m-q4_k_m.gguf")) {
    GTEST_SKIP() << "no downloaded models in " << models;
  }
  ASSERT_OK_AND_ASSIGN(const auto smol, ModelSource::open(models / "smollm2-q4_1.gguf"));
  const ModelConfig& s = smol->config();
  EXPECT_EQ(s.arch, "llama");
  EXPECT_EQ(s.n_layer, 30);
  EXPECT_EQ(s.n_vocab, 49152);
  EXPECT_EQ(s.head_dim, 64);
  EXPECT_EQ(s.n_head_kv, 3);
  EXPECT_EQ(s.rope.theta, 100000.0f);
  EXPECT_TRUE(s.tied_head);
  EXPECT_EQ(smol->tensors().size(), 272u);
  ASSERT_OK_AND_ASSIGN(const auto meta, smol->gguf_metadata());
  EXPECT_TRUE(meta.has("tokenizer.ggml.tokens"));
  EXPECT_FALSE(meta.has("general.file_type"));
  EXPECT_EQ(smol->token_ids().bos, 1);
  ASSERT_OK_AND_ASSIGN(const auto gemma, ModelSource::open(models / "gemma3-270m-q4_k_m.gguf"));
  const ModelConfig& g = gemma->config();
  EXPECT_EQ(g.arch, "gemma3");
  EXPECT_EQ(g.sliding_window, 512);
  EXPECT_TRUE(g.layers[4].sliding && !g.layers[5].sliding && !g.layers[17].sliding);
  EXPECT_EQ(g.rope.theta_local, 10000.0f);
  EXPECT_EQ(g.embedding_scale, std::sqrt(640.0f));
  EXPECT_EQ(g.attn_scale, 0.0f);
  EXPECT_EQ(g.final_softcap, 0.0f);
  const auto down = gemma->find("blk.0.ffn_down.weight");
  ASSERT_TRUE(down);
  std::vector<float> row(2048);
  ASSERT_OK(gemma->read_f32(*down, 639, 640, row.data()));
  EXPECT_EQ(find_non_finite(row.data(), 2048), -1);
  ASSERT_OK_AND_ASSIGN(const auto out, HfExport::create(gemma));
  EXPECT_EQ(out->tensors().size(), 236u);
}

TEST(Source, DigestIsOfTheFilesBytes) {
  NARROW_REQUIRE_SHARED();
  ASSERT_OK_AND_ASSIGN(const auto source, ModelSource::open(tiny("qwen3")));
  Sha256 want;
  for (int i = 1; i <= 4; ++i) {
    const std::string bytes =
        narrow::testing::read_file(tiny("qwen3") / fmt::format("model-0000{}-of-00004.safetensors", i));
    want.update(std::as_bytes(std::span(bytes)));
  }
  ASSERT_OK_AND_ASSIGN(const std::string got, source->digest());
  EXPECT_EQ(got, "sha256:" + want.hex());
}

TEST(Source, Bf16StaysBf16ThroughEveryLayout) {
  NARROW_REQUIRE_SHARED();
  for (const char* name : kTinyModels) {
    ASSERT_OK_AND_ASSIGN(const auto f32, ModelSource::open(tiny(name)));
    auto tensors = load(tiny(name));
    for (auto& t : tensors) {
      std::vector<std::byte> half(t.bytes.size() / 2);
      for (std::size_t i = 0; i < half.size() / 2; ++i) {
        float x;
        std::memcpy(&x, t.bytes.data() + 4 * i, 4);
        const bf16 b = to_bf16(x);
        std::memcpy(half.data() + 2 * i, &b, 2);
      }
      t.bytes = std::move(half);
      t.info.format = Format::kBF16;
    }
    const TempDir dir;
    save(dir.path(), tensors, narrow::testing::read_file(tiny(name) / "config.json"));
    ASSERT_OK_AND_ASSIGN(const auto source, ModelSource::open(dir.path()));
    for (std::size_t i = 0; i < source->tensors().size(); ++i) {
      const TensorInfo& t = source->tensors()[i];
      const bool offset = std::string_view(name).starts_with("gemma") && t.name.ends_with("norm.weight");
      const bool f32_info = offset || t.name == "rope_freqs.weight";
      EXPECT_EQ(t.format, f32_info ? Format::kF32 : Format::kBF16) << name << " " << t.name;
      const std::vector<float> want = read_all(*f32, i), got = read_all(*source, i);
      for (std::size_t j = 0; j < got.size(); ++j) {
        const float expected = t.name == "rope_freqs.weight" ? want[j]
                               : offset                      ? got[j]
                                                             : to_f32(to_bf16(want[j]));
        ASSERT_EQ(got[j], expected) << name << " " << t.name << " " << j;
        if (offset) {
          ASSERT_NEAR(got[j], want[j], 0.004 * std::abs(want[j] - 1.0f) + 1e-7);
        }
      }
    }
  }
}

TEST(Source, OtherPrefixesAndKnownExtrasAreRead) {
  NARROW_REQUIRE_SHARED();
  // GPT-2 as OpenAI's checkpoint on the hub: no prefix, causal masks stored.
  auto tensors = load(tiny("gpt2"));
  for (auto& t : tensors) t.info.name = t.info.name.substr(std::string("transformer.").size());
  tensors.push_back({{"h.0.attn.bias", Format::kF32, Shape({1, 1, 2, 2})}, std::vector<std::byte>(16)});
  const TempDir dir;
  save(dir.path(), tensors, narrow::testing::read_file(tiny("gpt2") / "config.json"));
  ASSERT_OK_AND_ASSIGN(const auto source, ModelSource::open(dir.path()));
  ASSERT_OK_AND_ASSIGN(const auto plain, ModelSource::open(tiny("gpt2")));
  ASSERT_EQ(source->tensors().size(), plain->tensors().size());
  for (std::size_t i = 0; i < plain->tensors().size(); ++i)
    EXPECT_EQ(read_all(*source, i), read_all(*plain, i));
  // Gemma 3 with a vision tower beside it.
  auto gemma = load(tiny("gemma3"));
  for (auto& t : gemma) t.info.name = "language_model." + t.info.name;
  gemma.push_back({{"vision_tower.x.weight", Format::kF32, Shape({2})}, std::vector<std::byte>(8)});
  const TempDir dir2;
  save(dir2.path(), gemma, narrow::testing::read_file(tiny("gemma3") / "config.json"));
  ASSERT_OK(ModelSource::open(dir2.path()));
}

TEST(Source, TiedOlmoGetsAnOutput) {
  NARROW_REQUIRE_SHARED();
  auto tensors = load(tiny("olmo2"));
  std::erase_if(tensors, [](const MemoryTensor& t) { return t.info.name == "lm_head.weight"; });
  std::string config = narrow::testing::read_file(tiny("olmo2") / "config.json");
  const std::string key = "\"tie_word_embeddings\": false";
  ASSERT_NE(config.find(key), std::string::npos);
  const TempDir dir;
  save(dir.path(), tensors, config);
  EXPECT_EQ(open_error(dir.path()),
            dir.path().string() + ": tensor 'lm_head.weight' (for 'output.weight') is missing");
  config.replace(config.find(key), key.size(), "\"tie_word_embeddings\": true");
  narrow::testing::write_file(dir / "config.json", config);
  ASSERT_OK_AND_ASSIGN(const auto source, ModelSource::open(dir.path()));
  const auto out = source->find("output.weight"), embedding = source->find("token_embd.weight");
  ASSERT_TRUE(out && embedding);
  EXPECT_EQ(read_all(*source, *out), read_all(*source, *embedding));
}

TEST(Source, BrokenFoldersAreNamed) {
  NARROW_REQUIRE_SHARED();
  const std::string config = narrow::testing::read_file(tiny("llama") / "config.json");
  const auto good = load(tiny("llama"));
  EXPECT_EQ(open_error("/nowhere/model"), "/nowhere/model: no such file or folder");
  {
    const TempDir dir;
    EXPECT_NE(open_error(dir.path()).find("config.json"), std::string::npos);
    narrow::testing::write_file(dir / "config.json", config);
    EXPECT_NE(open_error(dir.path()).find("model.safetensors"), std::string::npos);
    narrow::testing::write_file(dir / "notes.txt", "hello");
    EXPECT_EQ(open_error(dir / "notes.txt"),
              (dir / "notes.txt").string() +
                  ": a model is a GGUF file, or a folder with config.json and safetensors");
  }
  {
    const TempDir dir;
    auto t = good;
    std::erase_if(t, [](const auto& x) { return x.info.name == "model.layers.1.mlp.up_proj.weight"; });
    save(dir.path(), t, config);
    EXPECT_EQ(open_error(dir.path()),
              dir.path().string() +
                  ": tensor 'model.layers.1.mlp.up_proj.weight' (for 'blk.1.ffn_up.weight') is "
                  "missing");
  }
  {
    const TempDir dir;
    auto t = good;
    for (auto& x : t) {
      if (x.info.name == "model.layers.0.self_attn.k_proj.weight") x.info.shape = Shape({16, 192});
    }
    save(dir.path(), t, config);
    EXPECT_EQ(open_error(dir.path()),
              dir.path().string() +
                  ": tensor 'model.layers.0.self_attn.k_proj.weight' is [16, 192], but "
                  "config.json asks for [32, 96]");
  }
  {
    const TempDir dir;
    auto t = good;
    t.push_back(
        {{"model.layers.0.self_attn.q_proj.bias", Format::kF32, Shape({96})}, std::vector<std::byte>(384)});
    save(dir.path(), t, config);
    EXPECT_EQ(open_error(dir.path()),
              dir.path().string() +
                  ": tensor 'model.layers.0.self_attn.q_proj.bias' [96] has no place in "
                  "model_type 'llama'");
  }
  {
    const TempDir dir;
    auto t = good;
    for (auto& x : t) {
      if (x.info.name == "model.norm.weight") x.info = {x.info.name, Format::kI32, x.info.shape};
    }
    save(dir.path(), t, config);
    EXPECT_EQ(
        open_error(dir.path()),
        dir.path().string() + ": tensor 'model.norm.weight' is stored as i32; f32, f16 or bf16 is needed");
  }
}

TEST(Source, BrokenGgufsAreNamed) {
  NARROW_REQUIRE_SHARED();
  ASSERT_OK_AND_ASSIGN(const auto source, ModelSource::open(tiny("llama")));
  const auto write = [&](const std::filesystem::path& p, std::vector<TensorInfo> infos,
                         io::gguf::Metadata m) {
    ASSERT_OK_AND_ASSIGN(auto writer, io::gguf::Writer::create(p, m, infos));
    for (std::size_t i = 0; i < infos.size(); ++i) {
      ASSERT_OK(writer->write(i, 0, std::vector<std::byte>(infos[i].bytes())));
    }
    ASSERT_OK(writer->finish());
  };
  ASSERT_OK_AND_ASSIGN(const io::gguf::Metadata meta, source->gguf_metadata());
  const TempDir dir;
  const std::string file = (dir / "m.gguf").string();
  std::vector<TensorInfo> infos = source->tensors();
  std::erase_if(infos, [](const TensorInfo& t) { return t.name == "blk.2.attn_v.weight"; });
  write(file, infos, meta);
  EXPECT_EQ(open_error(file), file + ": tensor 'blk.2.attn_v.weight' [32, 96] is missing");
  infos = source->tensors();
  for (auto& t : infos) {
    if (t.name == "blk.0.ffn_down.weight") t.shape = Shape({160, 96});
  }
  write(file, infos, meta);
  EXPECT_EQ(open_error(file),
            file + ": tensor 'blk.0.ffn_down.weight' is [160, 96], but its metadata asks for [96, 160]");
  infos = source->tensors();
  infos.push_back({"rope_freqs.weight", Format::kF32, Shape({7})});
  write(file, infos, meta);
  EXPECT_EQ(open_error(file),
            file + ": tensor 'rope_freqs.weight' has 7 factors; 16 rotary dimensions need 8");
  infos.back().shape = Shape({8});
  write(file, infos, meta);
  EXPECT_EQ(open_error(file), file + ": tensor 'rope_freqs.weight' holds 0; factors are above 0");
  infos = source->tensors();
  infos.push_back({"blk.0.attn_sinks.weight", Format::kF32, Shape({6})});
  write(file, infos, meta);
  EXPECT_EQ(open_error(file),
            file + ": tensor 'blk.0.attn_sinks.weight' [6] has no place in architecture 'llama'");
}

TEST(Source, WhatIsQuantizable) {
  const auto q = [](const char* name, Shape shape) {
    return is_quantizable({name, Format::kF32, std::move(shape)});
  };
  EXPECT_TRUE(q("token_embd.weight", {320, 96}));
  EXPECT_TRUE(q("output.weight", {320, 96}));
  EXPECT_TRUE(q("blk.0.attn_qkv.weight", {288, 96}));
  EXPECT_TRUE(q("blk.0.ffn_down_exps.weight", {4, 96, 160}));
  EXPECT_FALSE(q("blk.0.ffn_gate_inp.weight", {4, 96}));
  EXPECT_FALSE(q("position_embd.weight", {512, 96}));
  EXPECT_FALSE(q("blk.0.attn_norm.weight", {96}));
  EXPECT_FALSE(q("blk.0.attn_q.bias", {96}));
  EXPECT_FALSE(q("rope_freqs.weight", {8}));
}

}  // namespace
}  // namespace narrow::model
