// Styles of config.json, what is refused and how it is said, and configurations that no tiny model has.
#include <cmath>
#include <functional>

#include "model/arch/common.h"
#include "model/arch/registry.h"
#include "model/source.h"
#include "testing/testing.h"

namespace narrow::model {
namespace {

Json llama_json() {
  return Json{{"model_type", "llama"},
              {"architectures", {"LlamaForCausalLM"}},
              {"hidden_size", 64},
              {"num_hidden_layers", 4},
              {"num_attention_heads", 8},
              {"num_key_value_heads", 4},
              {"intermediate_size", 128},
              {"vocab_size", 100},
              {"max_position_embeddings", 4096},
              {"rms_norm_eps", 1e-5},
              {"rope_theta", 500000.0}};
}

ModelConfig read(const Json& j) {
  auto r = config_from_hf(j, "config.json");
  EXPECT_TRUE(r.ok()) << r.error().message;
  return r.ok() ? *r : ModelConfig{};
}

std::string error_of(const Json& j) {
  const auto r = config_from_hf(j, "m/config.json");
  EXPECT_FALSE(r.ok()) << j.dump();
  return r.ok() ? "" : r.error().message;
}

TEST(HfConfig, OldAndNewRopeStylesAgree) {
  struct Case {
    const char* name;
    Json scaling;  // without rope_theta
    RopeScaling want;
  };
  const Case cases[] = {
      {"none", nullptr, RopeScaling::kNone},
      {"linear", {{"type", "linear"}, {"factor", 4.0}}, RopeScaling::kLinear},
      {"yarn",
       {{"rope_type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 1024}},
       RopeScaling::kYarn},
      {"llama3",
       {{"rope_type", "llama3"},
        {"factor", 32.0},
        {"low_freq_factor", 1.0},
        {"high_freq_factor", 4.0},
        {"original_max_position_embeddings", 8192}},
       RopeScaling::kLlama3},
  };
  for (const Case& c : cases) {
    Json old_style = llama_json(), new_style = llama_json();
    old_style["rope_scaling"] = c.scaling;
    new_style.erase("rope_theta");
    Json p = c.scaling.is_null() ? Json{{"rope_type", "default"}} : c.scaling;
    p["rope_theta"] = 500000.0;
    new_style["rope_parameters"] = p;
    const ModelConfig a = read(old_style), b = read(new_style);
    EXPECT_EQ(a, b) << c.name;
    EXPECT_EQ(a.rope.scaling, c.want) << c.name;
    EXPECT_EQ(a.rope.theta, 500000.0f) << c.name;
    // And through GGUF metadata, and through an exported config.json.
    io::gguf::Metadata m;
    config_to_gguf(a, m);
    ASSERT_OK_AND_ASSIGN(ModelConfig again, config_from_gguf(m, "x.gguf"));
    EXPECT_EQ(again, a) << c.name;
    ASSERT_OK_AND_ASSIGN(const Json out, config_to_hf(a));
    EXPECT_EQ(read(out), a) << c.name << out.dump();
  }
}

TEST(HfConfig, YarnAttentionFactor) {
  Json j = llama_json();
  j["rope_scaling"] = {{"type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 1024}};
  EXPECT_FLOAT_EQ(read(j).rope.attention_factor, 0.1f * std::log(4.0f) + 1.0f);
  j["rope_scaling"]["attention_factor"] = 1.5;
  const ModelConfig c = read(j);
  EXPECT_EQ(c.rope.attention_factor, 1.5f);
  io::gguf::Metadata m;
  config_to_gguf(c, m);
  ASSERT_OK_AND_ASSIGN(const ModelConfig again, config_from_gguf(m, "x.gguf"));
  EXPECT_FLOAT_EQ(again.rope.attention_factor, 1.5f);
}

TEST(HfConfig, Phi3LongRope) {
  Json j = llama_json();
  j["model_type"] = "phi3";
  j["max_position_embeddings"] = 131072;
  j["original_max_position_embeddings"] = 4096;
  j["rope_scaling"] = {
      {"type", "longrope"}, {"long_factor", {1.0, 2.0, 3.0, 4.0}}, {"short_factor", {1.0, 1.1, 1.2, 1.3}}};
  const ModelConfig c = read(j);
  EXPECT_EQ(c.rope.scaling, RopeScaling::kLongRope);
  EXPECT_EQ(c.rope.original_context, 4096);
  EXPECT_EQ(c.rope.factors_long, (std::vector<float>{1, 2, 3, 4}));
  // sqrt(1 + ln(32) / ln(4096)), as Phi-3.5's model card and llama.cpp have it.
  EXPECT_NEAR(c.rope.attention_factor, 1.19024, 1e-5);
  int long_factors = 0;
  for (const TensorRule& rule : tensor_map(c))
    long_factors += rule.name == "rope_factors_long.weight" ? 1 : 0;
  EXPECT_EQ(long_factors, 1);
  j["rope_scaling"]["long_factor"] = {1.0, 2.0};
  EXPECT_EQ(error_of(j),
            "m/config.json: 'rope_scaling.long_factor' is [1.0,2.0]: it must list 4 numbers, not 2");
}

TEST(HfConfig, Gemma3MultimodalTextConfig) {
  const Json j = {{"model_type", "gemma3"},
                  {"architectures", {"Gemma3ForConditionalGeneration"}},
                  {"eos_token_id", {1, 106}},
                  {"text_config",
                   {{"model_type", "gemma3_text"},
                    {"hidden_size", 2560},
                    {"intermediate_size", 10240},
                    {"num_hidden_layers", 34},
                    {"rope_scaling", {{"factor", 8.0}, {"rope_type", "linear"}}},
                    {"sliding_window", 1024}}},
                  {"vision_config", {{"hidden_size", 1152}}}};
  const ModelConfig c = read(j);
  EXPECT_EQ(c.arch, "gemma3");
  EXPECT_EQ(c.n_head, 8);
  EXPECT_EQ(c.n_head_kv, 4);
  EXPECT_EQ(c.head_dim, 256);
  EXPECT_EQ(c.n_vocab, 262208);
  EXPECT_EQ(c.rope.scaling, RopeScaling::kLinear);
  EXPECT_EQ(c.rope.theta, 1e6f);
  EXPECT_EQ(c.rope.theta_local, 1e4f);
  EXPECT_TRUE(c.layers[4].sliding && !c.layers[5].sliding && !c.layers[11].sliding);
  EXPECT_EQ(c.attn_scale, 0.0f);
}

TEST(HfConfig, QueryScaleOf27b) {
  Json j = llama_json();
  j["model_type"] = "gemma2";
  j["num_hidden_layers"] = 46;
  j["head_dim"] = 16;
  j["query_pre_attn_scalar"] = 144;
  ModelConfig c = read(j);
  EXPECT_FLOAT_EQ(c.attn_scale, 1.0f / 12.0f);
  io::gguf::Metadata m;
  config_to_gguf(c, m);
  ASSERT_OK_AND_ASSIGN(ModelConfig again, config_from_gguf(m, "x.gguf"));
  EXPECT_EQ(again.attn_scale, c.attn_scale);
  // A file of llama.cpp's converter has no key: its rule for 46 layers is n_embd / n_head.
  m.erase("gemma2.attention.scale");
  ASSERT_OK_AND_ASSIGN(again, config_from_gguf(m, "x.gguf"));
  EXPECT_FLOAT_EQ(again.attn_scale, 1.0f / std::sqrt(8.0f));
  // The usual scale in a model of 46 layers has to be said.
  j["query_pre_attn_scalar"] = 16;
  c = read(j);
  EXPECT_EQ(c.attn_scale, 0.0f);
  config_to_gguf(c, m);
  ASSERT_OK_AND_ASSIGN(again, config_from_gguf(m, "x.gguf"));
  EXPECT_FLOAT_EQ(again.attn_scale, 0.25f);
}

TEST(HfConfig, SlidingLayersOfQwenAndSmolLm3) {
  Json j = llama_json();
  j["model_type"] = "qwen2";
  j["sliding_window"] = 32;
  j["max_window_layers"] = 2;
  EXPECT_EQ(read(j).sliding_window, 0);
  j["use_sliding_window"] = true;
  const ModelConfig c = read(j);
  EXPECT_EQ(c.sliding_window, 32);
  EXPECT_TRUE(!c.layers[1].sliding && c.layers[2].sliding);
  io::gguf::Metadata m;
  config_to_gguf(c, m);
  ASSERT_OK_AND_ASSIGN(const ModelConfig again, config_from_gguf(m, "x.gguf"));
  EXPECT_EQ(again.layers, c.layers);
  ASSERT_OK_AND_ASSIGN(const Json out, config_to_hf(c));
  EXPECT_EQ(read(out).layers, c.layers);

  Json s = llama_json();
  s["model_type"] = "smollm3";
  EXPECT_TRUE(read(s).layers[2].rope && !read(s).layers[3].rope);
  s["no_rope_layers"] = {1, 0, 1, 1};
  const ModelConfig odd = read(s);
  EXPECT_FALSE(odd.layers[1].rope);
  io::gguf::Metadata n;
  config_to_gguf(odd, n);
  ASSERT_OK_AND_ASSIGN(const ModelConfig odd_again, config_from_gguf(n, "x.gguf"));
  EXPECT_EQ(odd_again.layers, odd.layers);
}

TEST(HfConfig, DenseLayersAmongExperts) {
  Json j = llama_json();
  j["model_type"] = "qwen3_moe";
  j["num_experts"] = 4;
  j["num_experts_per_tok"] = 2;
  j["moe_intermediate_size"] = 32;
  j["mlp_only_layers"] = {0};
  j["decoder_sparse_step"] = 2;
  const ModelConfig c = read(j);
  EXPECT_TRUE(!c.layers[0].moe && c.layers[1].moe && !c.layers[2].moe && c.layers[3].moe);
  EXPECT_FALSE(c.expert_weights_norm);  // the class's default
}

TEST(HfConfig, OneClearLineForEachDefect) {
  struct Case {
    std::function<void(Json&)> change;
    std::string want;
  };
  const Case cases[] = {
      {[](Json& j) { j["model_type"] = "mamba"; },
       "m/config.json: model_type 'mamba' is not supported; known are llama, mistral, qwen2, qwen3, gemma2, "
       "gemma3_text, gemma3, phi3, olmo2, granite, smollm3, mixtral, qwen3_moe, gpt2, gpt_neox"},
      {[](Json& j) { j.erase("hidden_size"); }, "m/config.json: 'hidden_size' is missing"},
      {[](Json& j) { j["hidden_size"] = nullptr; }, "m/config.json: 'hidden_size' is missing"},
      {[](Json& j) { j["num_attention_heads"] = 0; },
       "m/config.json: 'num_attention_heads' is 0: it must be from 1 to 65536"},
      {[](Json& j) { j["num_attention_heads"] = -8; },
       "m/config.json: 'num_attention_heads' is -8: it must be from 1 to 65536"},
      {[](Json& j) { j["num_attention_heads"] = 7; },
       "m/config.json: 'hidden_size' is 64: it is no multiple of the 7 heads, and there is no head_dim"},
      {[](Json& j) { j["num_key_value_heads"] = 3; },
       "m/config.json: 8 attention heads are no multiple of 3 key/value heads"},
      {[](Json& j) { j["num_hidden_layers"] = 100000; },
       "m/config.json: 'num_hidden_layers' is 100000: it must be from 1 to 1024"},
      {[](Json& j) { j["vocab_size"] = "many"; },
       "m/config.json: 'vocab_size' is \"many\": an integer is needed"},
      {[](Json& j) { j["vocab_size"] = 1e300; },
       "m/config.json: 'vocab_size' is 1e+300: an integer is needed"},
      {[](Json& j) { j["vocab_size"] = 18446744073709551615ull; },
       "m/config.json: 'vocab_size' is 18446744073709551615: it must be from 1 to 16777216"},
      {[](Json& j) { j["rms_norm_eps"] = "small"; },
       "m/config.json: 'rms_norm_eps' is \"small\": a number is needed"},
      {[](Json& j) {
         j["rope_scaling"] = {{"rope_type", "dynamic"}, {"factor", 2.0}};
       },
       "m/config.json: 'rope_scaling.rope_type' is \"dynamic\": known are default, linear, yarn, llama3 and "
       "longrope"},
      {[](Json& j) {
         j["rope_scaling"] = {{"rope_type", "linear"}};
       },
       "m/config.json: rope_scaling.'factor' is missing"},
      {[](Json& j) { j["rope_scaling"] = 3; }, "m/config.json: 'rope_scaling' is 3: an object is needed"},
      {[](Json& j) { j["hidden_act"] = "gelu"; },
       "m/config.json: 'hidden_act' is \"gelu\": architecture llama always has 'silu'"},
      {[](Json& j) {
         j["quantization_config"] = {{"quant_method", "gptq"}};
       },
       "m/config.json: the weights are already quantized (quant_method 'gptq'); narrow needs the float "
       "checkpoint"},
      {[](Json& j) { j = Json::array(); }, "m/config.json: a JSON object is needed"},
      {[](Json& j) { j["model_type"] = 5; }, "m/config.json: 'model_type' is 5: a string is needed"},
      {[](Json& j) {
         j["model_type"] = "gemma2";
         j["layer_types"] = {"full_attention"};
       },
       "m/config.json: 'layer_types' is [\"full_attention\"]: 1 entries for 4 layers"},
  };
  for (const Case& c : cases) {
    Json j = llama_json();
    c.change(j);
    EXPECT_EQ(error_of(j), c.want);
  }
}

TEST(GgufConfig, OneClearLineForEachDefect) {
  io::gguf::Metadata good;
  config_to_gguf(read(llama_json()), good);
  ASSERT_OK(config_from_gguf(good, "m.gguf"));
  struct Case {
    std::function<void(io::gguf::Metadata&)> change;
    std::string want;
  };
  const Case cases[] = {
      {[](auto& m) { m.erase("general.architecture"); },
       "m.gguf: metadata key 'general.architecture' is missing"},
      {[](auto& m) { m.set_string("general.architecture", "rwkv6"); },
       "m.gguf: architecture 'rwkv6' is not supported; known are llama, qwen2, qwen3, gemma2, gemma3, phi3, "
       "olmo2, "
       "granite, smollm3, qwen3moe, gpt2, gptneox"},
      {[](auto& m) { m.erase("llama.block_count"); }, "m.gguf: metadata key 'llama.block_count' is missing"},
      {[](auto& m) { m.set_u32("llama.block_count", 0); },
       "m.gguf: metadata key 'llama.block_count' is 0: it must be from 1 to 1024"},
      {[](auto& m) { m.set_u32("llama.attention.head_count_kv", 3); },
       "m.gguf: 8 attention heads are no multiple of 3 key/value heads"},
      {[](auto& m) { m.set_u32("llama.attention.value_length", 16); },
       "m.gguf: metadata key 'llama.attention.value_length' is 16: keys have 8: different lengths are not "
       "supported"},
      {[](auto& m) { m.set_u32("llama.rope.dimension_count", 64); },
       "m.gguf: 64 rotary dimensions do not fit a head of 8"},
      {[](auto& m) { m.set_string("llama.rope.scaling.type", "spiral"); },
       "m.gguf: metadata key 'llama.rope.scaling.type' is 'spiral': known are none, linear, yarn and "
       "longrope"},
      {[](auto& m) { m.set_string("llama.embedding_length", "wide"); },
       "m.gguf: metadata key 'llama.embedding_length' is no integer: an integer is needed"},
      {[](auto& m) {
         m.set_i32s("llama.attention.head_count_kv", {1, 2, 2, 2});
       },
       "m.gguf: metadata key 'llama.attention.head_count_kv' is a list of different numbers: layers of "
       "different sizes "
       "are not supported"},
      {[](auto& m) {
         m.set_u32("llama.expert_count", 2);
         m.set_u32("llama.expert_used_count", 3);
       },
       "m.gguf: metadata key 'llama.expert_used_count' is 3: it must be from 1 to 2"},
  };
  for (const Case& c : cases) {
    io::gguf::Metadata m = good;
    c.change(m);
    const auto r = config_from_gguf(m, "m.gguf");
    ASSERT_FALSE(r.ok()) << c.want;
    EXPECT_EQ(r.error().message, c.want);
  }
}

TEST(HfConfig, WhatAClassCannotSayIsRefused) {
  ModelConfig c = read(llama_json());
  ASSERT_OK_AND_ASSIGN(const Json plain, config_to_hf(c));
  EXPECT_EQ(plain["rms_norm_eps"].dump(), "1e-05");  // as people write it
  c.name = "Tiny";
  c.sliding_window = 16;
  c.layers[1].sliding = true;  // Mistral has all layers or none
  const auto r = config_to_hf(c);
  ASSERT_FALSE(r.ok());
  EXPECT_EQ(
      r.error().message,
      "Tiny: a config.json of model_type 'mistral' cannot hold its sliding layers, biases or rope settings");
  for (LayerConfig& layer : c.layers) layer.sliding = true;
  EXPECT_OK(config_to_hf(c));
  c.qkv_bias = true;
  EXPECT_FALSE(config_to_hf(c).ok());
}

TEST(Llama3Rope, IsRecoveredFromItsFactors) {
  RopeConfig r;
  r.theta = 500000.0f;
  r.dims = 128;
  r.factor = 8.0f;
  r.original_context = 8192;
  r.scaling = RopeScaling::kLlama3;
  RopeConfig found;
  found.theta = r.theta;
  found.dims = r.dims;
  found.factors = llama3_rope_factors(r);
  // The published file's values (Llama-3.1-8B's rope_freqs.weight): ones, a few between, then 8.
  EXPECT_EQ(found.factors[0], 1.0f);
  EXPECT_EQ(found.factors[28], 1.0f);
  EXPECT_GT(found.factors[30], 1.0f);
  EXPECT_EQ(found.factors[63], 8.0f);
  ASSERT_TRUE(recover_llama3_rope(found));
  EXPECT_EQ(found.factor, 8.0f);
  EXPECT_EQ(found.original_context, 8192);
  found.factors[40] = 3.0f;
  EXPECT_FALSE(recover_llama3_rope(found));
}

TEST(Registry, NamesAreUniqueAndFound) {
  std::map<std::string, int> types, rows;
  for (const Arch* a : all_archs()) {
    for (std::string_view t : a->model_types) ++types[std::string(t)];
    ++rows[std::string(a->name) + (a->moe ? "+experts" : "")];
    EXPECT_FALSE(a->architectures.empty());
  }
  EXPECT_EQ(types.size(), 15u);
  EXPECT_EQ(rows.size(), 13u);
  for (const auto& [name, n] : types) EXPECT_EQ(n, 1) << name;
  for (const auto& [name, n] : rows) EXPECT_EQ(n, 1) << name;
}

}  // namespace
}  // namespace narrow::model
