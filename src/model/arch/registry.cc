#include "model/arch/registry.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "model/arch/common.h"
#include "model/arch/gguf_keys.h"

namespace narrow::model {

const Arch& llama_arch();
const Arch& qwen2_arch();
const Arch& qwen3_arch();
const Arch& gemma2_arch();
const Arch& gemma3_arch();
const Arch& phi3_arch();
const Arch& olmo2_arch();
const Arch& granite_arch();
const Arch& smollm3_arch();
const Arch& mixtral_arch();
const Arch& qwen3_moe_arch();
const Arch& gpt2_arch();
const Arch& gpt_neox_arch();

std::span<const Arch* const> all_archs() {
  static const std::array archs = {&llama_arch(),   &qwen2_arch(),   &qwen3_arch(),     &gemma2_arch(),
                                   &gemma3_arch(),  &phi3_arch(),    &olmo2_arch(),     &granite_arch(),
                                   &smollm3_arch(), &mixtral_arch(), &qwen3_moe_arch(), &gpt2_arch(),
                                   &gpt_neox_arch()};
  return archs;
}

namespace {

const Arch* find_arch(std::string_view name, bool moe) {
  for (const Arch* a : all_archs()) {
    if (a->name == name && a->moe == moe) return a;
  }
  return nullptr;
}

const Arch* find_model_type(std::string_view type, std::string_view architecture) {
  for (const Arch* a : all_archs()) {
    const auto& list = type.empty() ? a->architectures : a->model_types;
    if (std::find(list.begin(), list.end(), type.empty() ? architecture : type) != list.end()) return a;
  }
  return nullptr;
}

std::string known(bool hf) {
  std::vector<std::string_view> names;
  for (const Arch* a : all_archs()) {
    if (hf) {
      names.insert(names.end(), a->model_types.begin(), a->model_types.end());
    } else if (std::find(names.begin(), names.end(), a->name) == names.end()) {
      names.push_back(a->name);
    }
  }
  return fmt::format("{}", fmt::join(names, ", "));
}

// Relations between fields that hold whatever file they come from.
Status check(const ModelConfig& c, const std::string& file) {
  const auto bad = [&](std::string text) { return make_error(ErrorCode::kCorrupt, "{}: {}", file, text); };
  if (c.n_head % c.n_head_kv != 0) {
    return bad(
        fmt::format("{} attention heads are no multiple of {} key/value heads", c.n_head, c.n_head_kv));
  }
  if (c.n_head * c.head_dim > kMaxWidth) {
    return bad(fmt::format("{} heads of {} are wider than {}", c.n_head, c.head_dim, kMaxWidth));
  }
  if (c.rope.dims > c.head_dim || c.rope.dims % 2 != 0) {
    return bad(fmt::format("{} rotary dimensions do not fit a head of {}", c.rope.dims, c.head_dim));
  }
  if (c.rope.style == RopeStyle::kInterleaved && c.head_dim % 2 != 0) {
    return bad(fmt::format("head_dim {} is odd", c.head_dim));
  }
  if (c.n_expert_used > c.n_expert) {
    return bad(fmt::format("{} experts per token of {} experts", c.n_expert_used, c.n_expert));
  }
  return {};
}

}  // namespace

const Arch& arch_of(const ModelConfig& config) {
  const Arch* a = find_arch(config.arch, config.n_expert > 0);
  return a ? *a : llama_arch();
}

Result<ModelConfig> config_from_hf(const Json& config, const std::string& file) {
  if (!config.is_object()) return make_error(ErrorCode::kCorrupt, "{}: a JSON object is needed", file);
  HfFields top(config, file);
  const std::string type = top.text({"model_type"}, "");
  const std::vector<std::string> classes = top.texts("architectures");
  NARROW_TRY(top.status());
  const Arch* arch = find_model_type(type, classes.empty() ? "" : classes.front());
  if (!arch) {
    return make_error(ErrorCode::kUnsupported, "{}: model_type '{}' is not supported; known are {}", file,
                      type.empty() && !classes.empty() ? classes.front() : type, known(true));
  }
  if (const Json* q = top.find("quantization_config")) {
    HfFields quantization(top, *q, "quantization_config");
    return make_error(
        ErrorCode::kUnsupported,
        "{}: the weights are already quantized (quant_method '{}'); narrow needs the float checkpoint", file,
        quantization.text({"quant_method"}, "unknown"));
  }
  // Multimodal classes keep the language model's fields in an object of their own.
  const Json* text = top.find("text_config");
  HfFields f(text && text->is_object() ? *text : config, file);
  ModelConfig c;
  c.arch = arch->name;
  arch->traits(c);
  arch->read_hf(f, *arch, c);
  NARROW_TRY(f.status());
  NARROW_TRY(check(c, file));
  // Where llama.cpp insists on an output matrix, the tied one is presented as a tensor of its own.
  if (arch->needs_output) c.tied_head = false;
  return c;
}

Result<ModelConfig> config_from_gguf(const io::gguf::Metadata& metadata, const std::string& file) {
  const auto name = metadata.get_string("general.architecture");
  if (!name)
    return make_error(ErrorCode::kCorrupt, "{}: metadata key 'general.architecture' is missing", file);
  GgufFields f(metadata, *name, file);
  const std::int64_t experts = f.integer("expert_count", 0, kMaxExperts, 0);
  NARROW_TRY(f.status());
  const Arch* arch = find_arch(*name, experts > 0);
  if (!arch) {
    const bool other = find_arch(*name, experts == 0) != nullptr;
    return make_error(ErrorCode::kUnsupported, "{}: architecture '{}'{} is not supported; known are {}", file,
                      *name, other ? (experts > 0 ? " with experts" : " without expert_count") : "",
                      known(false));
  }
  ModelConfig c;
  c.arch = arch->name;
  c.name = metadata.get_string("general.name").value_or("");
  arch->traits(c);
  read_gguf_keys(f, *arch, c);
  if (f.ok() && arch->read_gguf) arch->read_gguf(f, c);
  NARROW_TRY(f.status());
  NARROW_TRY(check(c, file));
  return c;
}

void refine_from_tensors(ModelConfig& c, const TensorFacts& facts) {
  if (facts.embedding_rows > 0) c.n_vocab = facts.embedding_rows;
  c.tied_head = !facts.has("output.weight");
  c.qkv_bias = facts.has("blk.0.attn_q.bias") || facts.has("blk.0.attn_qkv.bias");
  c.out_bias = facts.has("blk.0.attn_output.bias");
  c.ffn_bias = facts.has("blk.0.ffn_down.bias");
  for (std::size_t i = 0; i < c.layers.size(); ++i) {
    c.layers[i].moe = facts.has(fmt::format("blk.{}.ffn_gate_inp.weight", i));
  }
  RopeConfig& r = c.rope;
  if (facts.has("rope_freqs.weight")) {
    r.factors = facts.values("rope_freqs.weight");
    if (r.scaling != RopeScaling::kLlama3 && !recover_llama3_rope(r)) r.scaling = RopeScaling::kLlama3;
  }
  if (facts.has("rope_factors_long.weight") && facts.has("rope_factors_short.weight")) {
    r.factors_long = facts.values("rope_factors_long.weight");
    r.factors_short = facts.values("rope_factors_short.weight");
    r.scaling = RopeScaling::kLongRope;
    if (r.original_context > 0 && c.n_ctx_train > r.original_context) {
      r.factor = static_cast<float>(static_cast<double>(c.n_ctx_train) / r.original_context);
    }
  }
}

void config_to_gguf(const ModelConfig& c, io::gguf::Metadata& m) {
  const Arch& arch = arch_of(c);
  m.set_string("general.architecture", c.arch);
  write_gguf_keys(c, arch, m);
  if (arch.write_gguf) arch.write_gguf(c, m);
}

Result<Json> config_to_hf(const ModelConfig& c) {
  const Arch& arch = arch_of(c);
  if (c.rope.scaling == RopeScaling::kLlama3 && c.rope.original_context == 0) {
    return make_error(
        ErrorCode::kUnsupported,
        "{}: rope_freqs.weight follows no published Llama 3 setting, which config.json would have to name",
        c.name.empty() ? c.arch : c.name);
  }
  Json j = Json::object();
  j["architectures"] = {arch.architectures.front()};
  j["model_type"] = arch.model_types.front();
  arch.write_hf(c, j);
  // The classes do not cover every combination that GGUF can hold; what would be lost must not pass silently.
  NARROW_ASSIGN(ModelConfig again, config_from_hf(j, "config.json"));
  again.name = c.name;
  again.rope.factors = c.rope.factors;  // computed anew: equal up to rounding
  if (std::abs(again.logit_scale - c.logit_scale) <= 1e-6f * c.logit_scale) again.logit_scale = c.logit_scale;
  if (again != c) {
    return make_error(
        ErrorCode::kUnsupported,
        "{}: a config.json of model_type '{}' cannot hold its sliding layers, biases or rope settings",
        c.name.empty() ? c.arch : c.name, j["model_type"].get<std::string>());
  }
  return j;
}

std::vector<TensorRule> tensor_map(const ModelConfig& c) { return arch_of(c).tensor_map(c); }

}  // namespace narrow::model
