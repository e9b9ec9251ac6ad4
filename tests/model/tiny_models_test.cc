// Every architecture on a real checkpoint of it: nothing left over, canonical layout as llama.cpp has it, and
// the way back without a changed bit.
#include "tiny_models.h"

#include <cmath>
#include <cstring>
#include <sstream>

namespace narrow::model {
namespace {

class TinyModel : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override { NARROW_REQUIRE_SHARED(); }
  std::shared_ptr<const ModelSource> open() const {
    auto r = ModelSource::open(tiny(GetParam()));
    EXPECT_TRUE(r.ok()) << r.error().message;
    return r.ok() ? *r : nullptr;
  }
};

// The exported tensors against the folder's own: equal but for the rounding of (g + 1) - 1 in Gemma's norms.
void expect_same_tensors(const HfExport& out, const std::filesystem::path& folder) {
  ASSERT_OK_AND_ASSIGN(io::safetensors::Reader reader, io::safetensors::Reader::open_folder(folder));
  EXPECT_EQ(out.tensors().size(), reader.tensors().size());
  for (std::size_t i = 0; i < out.tensors().size(); ++i) {
    const TensorInfo& t = out.tensors()[i];
    const auto* original = reader.find(t.name);
    ASSERT_NE(original, nullptr) << t.name;
    EXPECT_EQ(t.shape, original->info.shape) << t.name;
    std::vector<float> got;
    ASSERT_OK(out.read_f32(i, got));
    std::vector<float> want(got.size());
    ASSERT_OK(decode_row(original->info.format, reader.view(*original).data, want.data(),
                         static_cast<std::int64_t>(want.size())));
    const bool offset = t.name.ends_with("norm.weight") && folder.filename().string().starts_with("gemma");
    for (std::size_t j = 0; j < got.size(); ++j) {
      if (offset) {
        ASSERT_NEAR(got[j], want[j], 1.2e-7) << t.name << " " << j;
      } else {
        ASSERT_EQ(got[j], want[j]) << t.name << " " << j;
      }
    }
  }
}

TEST_P(TinyModel, EveryTensorHasItsPlace) {
  const auto source = open();
  ASSERT_TRUE(source);
  EXPECT_FALSE(source->is_gguf());
  EXPECT_GT(source->file_bytes(), 0u);
  for (std::size_t i = 0; i < source->tensors().size(); ++i) {
    const TensorInfo& t = source->tensors()[i];
    EXPECT_EQ(source->find(t.name), i);
    const std::vector<float> whole = read_all(*source, i);
    EXPECT_EQ(find_non_finite(whole.data(), static_cast<std::int64_t>(whole.size())), -1) << t.name;
    // Row ranges are pieces of the whole, and a view has the same bytes.
    const std::int64_t rows = t.shape.rows(), k = t.shape.row_length(), mid = rows / 3;
    std::vector<float> part(static_cast<std::size_t>((rows - mid) * k));
    ASSERT_OK(source->read_f32(i, mid, rows, part.data()));
    EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + mid * k)) << t.name;
    if (const TensorView v = source->view(i); !v.empty()) {
      EXPECT_EQ(v.shape, t.shape);
      EXPECT_EQ(std::memcmp(v.data, whole.data(), whole.size() * sizeof(float)), 0) << t.name;
    }
    source->drop(i);
    EXPECT_EQ(read_all(*source, i), whole) << t.name << " after drop";
  }
  EXPECT_FALSE(source->read_f32(0, 0, source->tensors()[0].shape.rows() + 1, nullptr).ok());
}

TEST_P(TinyModel, ExportGivesTheFolderBack) {
  const auto source = open();
  ASSERT_TRUE(source);
  ASSERT_OK_AND_ASSIGN(const auto out, HfExport::create(source));
  expect_same_tensors(*out, tiny(GetParam()));
  const Json config = Json::parse(out->config_json("float32"), nullptr, false);
  ASSERT_TRUE(config.is_object());
  ASSERT_OK_AND_ASSIGN(const Json original, io::read_json(tiny(GetParam()) / "config.json"));
  for (const char* key : {"model_type", "architectures", "bos_token_id", "eos_token_id", "pad_token_id"}) {
    EXPECT_EQ(config[key], original[key]) << key;
  }
  // The same model by the flat keys of transformers 4 alone and by those of transformers 5 alone.
  for (const char* dropped : {"", "rope_parameters", "rope_scaling"}) {
    Json one = config;
    one.erase(dropped);
    if (std::string_view(dropped) == "rope_scaling") {
      for (const char* key : {"rope_theta", "rotary_emb_base", "rope_local_base_freq", "rotary_pct"})
        one.erase(key);
    }
    if (std::string_view(GetParam()) == "gpt2" && *dropped) continue;
    ASSERT_OK_AND_ASSIGN(ModelConfig again, config_from_hf(one, "config.json"));
    again.name = source->config().name;
    EXPECT_EQ(again, source->config()) << "without " << dropped << "\n" << one.dump(1);
  }
}

TEST_P(TinyModel, GgufGivesTheFolderBack) {
  const auto source = open();
  ASSERT_TRUE(source);
  const narrow::testing::TempDir dir;
  ASSERT_OK(write_gguf(*source, dir / "m.gguf"));
  ASSERT_OK_AND_ASSIGN(const auto gguf, ModelSource::open(dir / "m.gguf"));
  EXPECT_TRUE(gguf->is_gguf());
  EXPECT_EQ(gguf->config(), source->config());
  ASSERT_EQ(gguf->tensors().size(), source->tensors().size());
  for (std::size_t i = 0; i < gguf->tensors().size(); ++i) {
    EXPECT_EQ(gguf->tensors()[i].name, source->tensors()[i].name);
    EXPECT_EQ(read_all(*gguf, i), read_all(*source, i)) << gguf->tensors()[i].name;
  }
  ASSERT_OK_AND_ASSIGN(const auto out, HfExport::create(gguf));
  expect_same_tensors(*out, tiny(GetParam()));
  ASSERT_OK_AND_ASSIGN(ModelConfig again,
                       config_from_hf(Json::parse(out->config_json("float32")), "config.json"));
  again.name = source->config().name;
  EXPECT_EQ(again, source->config());
}

// Names by the gguf package's own table, values by the reshapes that llama.cpp's converter documents.
TEST_P(TinyModel, CanonicalLayoutIsLlamaCpps) {
  NARROW_REQUIRE_PYTHON();
  const auto source = open();
  ASSERT_TRUE(source);
  const narrow::testing::TempDir dir;
  ASSERT_OK(write_gguf(*source, dir / "m.gguf"));
  const std::string code = R"py(
import glob, json, re, sys
import numpy as np, gguf
from gguf import GGUFReader
from safetensors.numpy import load_file
folder, path = sys.argv[1:]
r = GGUFReader(path)
arch = r.fields['general.architecture'].contents()
cfg = json.load(open(folder + '/config.json'))
key = [k for k, v in gguf.MODEL_ARCH_NAMES.items() if v == arch][0]
names = gguf.get_tensor_name_map(key, cfg.get('num_hidden_layers', cfg.get('n_layer')))
have = {t.name: t for t in r.tensors}
def values(t): return np.array(t.data).reshape([int(x) for x in reversed(t.shape)])
seen = set()
stacks = {}
H = cfg.get('num_attention_heads', cfg.get('n_head'))
KV = cfg.get('num_key_value_heads', H)
def permute(w, n): return w.reshape(n, 2, w.shape[0] // n // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)
for f in sorted(glob.glob(folder + '/model*.safetensors')):
    for name, w in load_file(f).items():
        m = re.match(r'(.*)\.experts\.(\d+)\.(.*)', name)
        if m:
            mod, part = m[1], m[3]
            merged = f'{mod}.experts.{part}'
            if 'block_sparse_moe' in mod: merged = merged.replace('model.', '').replace('block_sparse_moe', 'feed_forward')
            g = names.get_name(merged, try_suffixes=('.weight', '.bias'))
            stacks.setdefault(g, {})[int(m[2])] = w
            continue
        g = names.get_name(name, try_suffixes=('.weight', '.bias'))
        assert g in have, (name, g)
        if arch in ('llama', 'granite', 'smollm3') and '.q_proj.' in name: w = permute(w, H)
        if arch in ('llama', 'granite', 'smollm3') and '.k_proj.' in name: w = permute(w, KV)
        if arch.startswith('gemma') and name.endswith('norm.weight'): w = w + np.float32(1)
        if arch == 'gpt2' and re.search(r'\.(c_attn|c_proj|c_fc)\.weight', name): w = w.T
        if 'query_key_value' in name:
            q = w.reshape(H, 3, w.shape[0] // (3 * H), *w.shape[1:])
            w = np.concatenate([q[:, i].reshape(-1, *w.shape[1:]) for i in range(3)])
        assert np.array_equal(values(have[g]), w), (name, g)
        seen.add(g)
for g, parts in stacks.items():
    w = np.stack([parts[i] for i in range(len(parts))])
    assert g in have and np.array_equal(values(have[g]), w), g
    seen.add(g)
print(sorted(set(have) - seen))
)py";
  const std::string left =
      narrow::testing::run_python(code, {tiny(GetParam()).string(), (dir / "m.gguf").string()});
  EXPECT_EQ(left, std::string_view(GetParam()) == "llama3-rope" ? "['rope_freqs.weight']\n" : "[]\n");
}

INSTANTIATE_TEST_SUITE_P(All, TinyModel, ::testing::ValuesIn(kTinyModels), [](const auto& model) {
  std::string s = model.param;
  std::replace(s.begin(), s.end(), '-', '_');
  return s;
});

// What the configurations say, against the folders' config.json read by eye.
TEST(TinyConfigs, AreReadRight) {
  NARROW_REQUIRE_SHARED();
  const auto config = [](const char* name) {
    auto r = ModelSource::open(tiny(name));
    EXPECT_TRUE(r.ok()) << r.error().message;
    return r.ok() ? (*r)->config() : ModelConfig{};
  };
  for (const char* name : kTinyModels) {
    const ModelConfig c = config(name);
    EXPECT_EQ(c.name, name);
    EXPECT_EQ(c.n_vocab, 320) << name;
    EXPECT_EQ(c.n_ctx_train, 512) << name;
    EXPECT_EQ(c.n_embd, 96) << name;
    EXPECT_EQ(c.n_head, 6) << name;
    EXPECT_EQ(c.layers.size(), static_cast<std::size_t>(c.n_layer)) << name;
    EXPECT_EQ(c.n_layer, std::string_view(name) == "gemma3" ? 7 : 3) << name;
  }
  const ModelConfig llama = config("llama");
  EXPECT_EQ(llama.arch, "llama");
  EXPECT_EQ(llama.rope.style, RopeStyle::kInterleaved);
  EXPECT_EQ(llama.n_head_kv, 2);
  EXPECT_EQ(llama.n_ff, 160);
  EXPECT_TRUE(llama.tied_head);
  EXPECT_EQ(llama.norm_eps, 1e-6f);
  const ModelConfig llama3 = config("llama3-rope");
  EXPECT_EQ(llama3.rope.scaling, RopeScaling::kLlama3);
  EXPECT_EQ(llama3.rope.original_context, 64);
  ASSERT_EQ(llama3.rope.factors.size(), 8u);
  EXPECT_EQ(llama3.rope.factors.front(), 1.0f);
  EXPECT_EQ(llama3.rope.factors.back(), 8.0f);
  EXPECT_FALSE(llama3.tied_head);
  const ModelConfig mistral = config("mistral");
  EXPECT_EQ(mistral.arch, "llama");
  EXPECT_EQ(mistral.sliding_window, 16);
  EXPECT_EQ(mistral.head_dim, 24);
  EXPECT_TRUE(mistral.layers[0].sliding && mistral.layers[2].sliding);
  const ModelConfig gemma2 = config("gemma2");
  EXPECT_EQ(gemma2.sliding_window, 16);
  EXPECT_TRUE(gemma2.layers[0].sliding && !gemma2.layers[1].sliding && gemma2.layers[2].sliding);
  EXPECT_EQ(gemma2.attn_softcap, 50.0f);
  EXPECT_EQ(gemma2.final_softcap, 30.0f);
  EXPECT_EQ(gemma2.embedding_scale, std::sqrt(96.0f));
  EXPECT_EQ(gemma2.activation, Activation::kGeluTanh);
  EXPECT_EQ(gemma2.attn_scale, 0.0f);  // query_pre_attn_scalar is head_dim
  EXPECT_EQ(gemma2.rope.style, RopeStyle::kHalf);
  const ModelConfig gemma3 = config("gemma3");
  EXPECT_EQ(gemma3.rope.theta, 1e6f);
  EXPECT_EQ(gemma3.rope.theta_local, 1e4f);
  EXPECT_EQ(gemma3.qk_norm, QkNorm::kPerHead);
  for (int i = 0; i < 7; ++i) EXPECT_EQ(gemma3.layers[static_cast<std::size_t>(i)].sliding, i != 5);
  const ModelConfig granite = config("granite");
  EXPECT_EQ(granite.embedding_scale, 12.0f);
  EXPECT_EQ(granite.residual_scale, 0.22f);
  EXPECT_EQ(granite.attn_scale, 0.0625f);
  EXPECT_EQ(granite.logit_scale, 0.125f);
  const ModelConfig mixtral = config("mixtral");
  EXPECT_EQ(mixtral.arch, "llama");
  EXPECT_EQ(mixtral.n_expert, 4);
  EXPECT_EQ(mixtral.n_expert_used, 2);
  EXPECT_EQ(mixtral.n_ff_expert, 160);
  EXPECT_TRUE(mixtral.expert_weights_norm);
  EXPECT_EQ(mixtral.head_dim, 16);
  EXPECT_EQ(mixtral.sliding_window, 0);
  const ModelConfig moe = config("qwen3_moe");
  EXPECT_EQ(moe.arch, "qwen3moe");
  EXPECT_EQ(moe.n_expert, 8);
  EXPECT_EQ(moe.n_ff_expert, 64);
  EXPECT_TRUE(moe.expert_weights_norm && moe.layers[2].moe);
  EXPECT_TRUE(config("qwen2").qkv_bias);
  EXPECT_FALSE(config("qwen2").out_bias);
  EXPECT_EQ(config("qwen3").head_dim, 32);
  EXPECT_EQ(config("olmo2").qk_norm, QkNorm::kFull);
  EXPECT_EQ(config("smollm3").rope.theta, 2e6f);
  EXPECT_TRUE(config("smollm3").layers[2].rope);
  const ModelConfig gpt2 = config("gpt2");
  EXPECT_EQ(gpt2.position, Position::kLearned);
  EXPECT_EQ(gpt2.norm, NormKind::kLayer);
  EXPECT_EQ(gpt2.n_ff, 384);
  EXPECT_FALSE(gpt2.gated_ffn);
  const ModelConfig neox = config("gpt_neox");
  EXPECT_EQ(neox.rope.dims, 4);
  EXPECT_EQ(neox.n_head_kv, 6);  // the file's num_key_value_heads means nothing to this class
  EXPECT_TRUE(neox.parallel_residual);
  EXPECT_EQ(neox.activation, Activation::kGeluErf);
}

}  // namespace
}  // namespace narrow::model
