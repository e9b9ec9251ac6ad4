#include "model/arch/gguf_keys.h"

#include <cmath>

#include "model/arch/common.h"

namespace narrow::model {
namespace {

void read_rope(GgufFields& f, ModelConfig& c) {
  RopeConfig& r = c.rope;
  if (c.position != Position::kRope) return;
  r.dims = static_cast<int>(f.integer("rope.dimension_count", 2, kMaxHeadDim, c.head_dim));
  // llama.cpp's default when the key is absent, whatever the architecture.
  r.theta = static_cast<float>(f.number("rope.freq_base", 1e-3, 1e12, 10000.0));
  if (r.theta_local > 0.0f) {
    r.theta_local =
        static_cast<float>(f.number("rope.freq_base_swa", 1e-3, 1e12, static_cast<double>(r.theta_local)));
  }
  const double factor =
      f.number("rope.scaling.factor", 0.0, 1e6, f.number("rope.scale_linear", 0.0, 1e6, 0.0));
  const std::string type = f.text("rope.scaling.type", factor > 0.0 && factor != 1.0 ? "linear" : "none");
  const double attention = f.number("rope.scaling.attn_factor", 0.0, 1e3, 1.0);
  const auto original = static_cast<int>(f.integer("rope.scaling.original_context_length", 1, INT32_MAX,
                                                   std::min<std::int64_t>(c.n_ctx_train, INT32_MAX)));
  if (f.has("rope.scaling.llama3.factor")) {
    r.scaling = RopeScaling::kLlama3;
    r.factor = static_cast<float>(f.number("rope.scaling.llama3.factor", 1.0, 1e6));
    r.low_freq_factor = static_cast<float>(f.number("rope.scaling.llama3.low_freq_factor", 1e-6, 1e6));
    r.high_freq_factor = static_cast<float>(f.number("rope.scaling.llama3.high_freq_factor", 1e-6, 1e6));
    r.original_context = original;
    r.factors = llama3_rope_factors(r);
  } else if (type == "linear" && factor > 0.0 && factor != 1.0) {
    r.scaling = RopeScaling::kLinear;
    r.factor = static_cast<float>(factor);
  } else if (type == "yarn") {
    r.scaling = RopeScaling::kYarn;
    r.factor = static_cast<float>(factor > 0.0 ? factor : 1.0);
    r.original_context = original;
    // llama.cpp multiplies YaRN's own attention factor with the key's.
    r.attention_factor =
        static_cast<float>(yarn_default_attention(static_cast<double>(r.factor)) * attention);
    r.beta_fast = static_cast<float>(f.number("rope.scaling.yarn_beta_fast", 1e-3, 1e6, 32.0));
    r.beta_slow = static_cast<float>(f.number("rope.scaling.yarn_beta_slow", 1e-3, 1e6, 1.0));
  } else if (type == "longrope" || (c.arch == "phi3" && f.has("rope.scaling.attn_factor"))) {
    // Phi-3's converter writes the attention factor and the factors' tensors, but no type.
    r.scaling = RopeScaling::kLongRope;
    r.original_context = original;
    r.attention_factor = static_cast<float>(attention);
    const double scale = static_cast<double>(c.n_ctx_train) / original;
    r.factor = static_cast<float>(scale > 1.0 ? scale : 1.0);
  } else if (type != "none" && type != "linear") {
    f.reject("rope.scaling.type", "'" + type + "'", "known are none, linear, yarn and longrope",
             ErrorCode::kUnsupported);
  }
}

void write_rope(const ModelConfig& c, io::gguf::Metadata& m) {
  if (c.position != Position::kRope) return;
  const RopeConfig& r = c.rope;
  const std::string a = c.arch + ".rope.";
  m.set_u32(a + "dimension_count", static_cast<std::uint32_t>(r.dims));
  m.set_f32(a + "freq_base", r.theta);
  if (r.theta_local > 0.0f) m.set_f32(a + "freq_base_swa", r.theta_local);
  const auto original = static_cast<std::uint32_t>(r.original_context);
  switch (r.scaling) {
    case RopeScaling::kNone:
      break;
    case RopeScaling::kLinear:
      m.set_string(a + "scaling.type", "linear");
      m.set_f32(a + "scaling.factor", r.factor);
      break;
    case RopeScaling::kYarn: {
      m.set_string(a + "scaling.type", "yarn");
      m.set_f32(a + "scaling.factor", r.factor);
      m.set_u32(a + "scaling.original_context_length", original);
      m.set_f32(a + "scaling.yarn_beta_fast", r.beta_fast);
      m.set_f32(a + "scaling.yarn_beta_slow", r.beta_slow);
      const double own = yarn_default_attention(static_cast<double>(r.factor));
      if (r.attention_factor != static_cast<float>(own)) {
        m.set_f32(a + "scaling.attn_factor",
                  static_cast<float>(static_cast<double>(r.attention_factor) / own));
      }
      break;
    }
    case RopeScaling::kLlama3:
      // llama.cpp needs only the tensor rope_freqs.weight; the rule's numbers are for a way back to
      // config.json.
      if (r.original_context > 0) {
        m.set_f32(a + "scaling.llama3.factor", r.factor);
        m.set_f32(a + "scaling.llama3.low_freq_factor", r.low_freq_factor);
        m.set_f32(a + "scaling.llama3.high_freq_factor", r.high_freq_factor);
        m.set_u32(a + "scaling.original_context_length", original);
      }
      break;
    case RopeScaling::kLongRope:
      m.set_string(a + "scaling.type", "longrope");
      m.set_u32(a + "scaling.original_context_length", original);
      m.set_f32(a + "scaling.attn_factor", r.attention_factor);
      break;
  }
}

bool pattern_slides(std::int64_t period, std::size_t layer) {
  return period == 0 || static_cast<std::int64_t>(layer) % period < period - 1;
}

void read_sliding(GgufFields& f, const Arch& arch, ModelConfig& c) {
  const std::int64_t window = f.integer("attention.sliding_window", 0, kMaxContext, arch.default_window);
  if (window == 0) return;
  const std::vector<bool> listed = f.booleans("attention.sliding_window_pattern");
  std::int64_t period = arch.sliding_period;
  if (listed.empty()) period = f.integer("attention.sliding_window_pattern", 0, kMaxLayers, period);
  bool any = false;
  for (std::size_t i = 0; i < c.layers.size(); ++i) {
    c.layers[i].sliding = i < listed.size() ? listed[i] : pattern_slides(period, i);
    any = any || c.layers[i].sliding;
  }
  if (any) c.sliding_window = window;
}

void write_sliding(const ModelConfig& c, const Arch& arch, io::gguf::Metadata& m) {
  if (c.sliding_window == 0) return;
  m.set_u32(c.arch + ".attention.sliding_window", static_cast<std::uint32_t>(c.sliding_window));
  std::vector<bool> listed;
  bool usual = true;
  for (std::size_t i = 0; i < c.layers.size(); ++i) {
    listed.push_back(c.layers[i].sliding);
    usual = usual && c.layers[i].sliding == pattern_slides(arch.sliding_period, i);
  }
  if (!usual) m.set_bools(c.arch + ".attention.sliding_window_pattern", std::move(listed));
}

}  // namespace

void read_gguf_keys(GgufFields& f, const Arch& arch, ModelConfig& c) {
  c.n_ctx_train = f.integer("context_length", 1, kMaxContext);
  c.n_embd = f.integer("embedding_length", 1, kMaxWidth);
  c.n_layer = f.integer("block_count", 1, kMaxLayers);
  c.n_head = f.integer("attention.head_count", 1, kMaxHeads);
  c.n_head_kv = f.integer("attention.head_count_kv", 1, kMaxHeads, c.n_head);
  c.n_expert = f.integer("expert_count", 0, kMaxExperts, 0);
  if (!f.ok()) return;
  if (!f.has("attention.key_length") && c.n_embd % c.n_head != 0) {
    f.reject(
        "embedding_length", fmt::format("{}", c.n_embd),
        fmt::format("it is no multiple of the {} heads, and there is no attention.key_length", c.n_head));
    return;
  }
  c.head_dim = f.integer("attention.key_length", 1, kMaxHeadDim, c.n_embd / c.n_head);
  if (const std::int64_t v = f.integer("attention.value_length", 1, kMaxHeadDim, c.head_dim);
      v != c.head_dim) {
    f.reject("attention.value_length", fmt::format("{}", v),
             fmt::format("keys have {}: different lengths are not supported", c.head_dim),
             ErrorCode::kUnsupported);
  }
  c.n_ff = f.integer("feed_forward_length", 1, kMaxFfn);
  c.n_vocab = f.integer("vocab_size", 1, kMaxVocab, 1);  // the embedding's rows replace it
  c.norm_eps = static_cast<float>(
      f.number(c.norm == NormKind::kRms ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon",
               0.0, 1.0));
  c.layers.assign(static_cast<std::size_t>(c.n_layer), LayerConfig{});
  read_rope(f, c);
  read_sliding(f, arch, c);
  c.parallel_residual = f.boolean("use_parallel_residual", c.parallel_residual);
  c.attn_softcap = static_cast<float>(f.number("attn_logit_softcapping", 0.0, 1e6, 0.0));
  c.final_softcap = static_cast<float>(f.number("final_logit_softcapping", 0.0, 1e6, 0.0));
  c.embedding_scale = static_cast<float>(f.number("embedding_scale", 0.0, 1e6, 1.0));
  c.residual_scale = static_cast<float>(f.number("residual_scale", 0.0, 1e6, 1.0));
  c.attn_scale = static_cast<float>(f.number("attention.scale", 0.0, 1e6, 0.0));
  if (c.n_expert > 0) {
    c.n_expert_used = f.integer("expert_used_count", 1, c.n_expert);
    c.n_ff_expert = f.integer("expert_feed_forward_length", 1, kMaxFfn, c.n_ff);
    c.expert_weights_norm = f.boolean("expert_weights_norm", c.expert_weights_norm);
    for (LayerConfig& layer : c.layers) layer.moe = true;
  }
}

void write_gguf_keys(const ModelConfig& c, const Arch& arch, io::gguf::Metadata& m) {
  const std::string a = c.arch + ".";
  const auto u32 = [&](const char* key, std::int64_t x) {
    m.set_u32(a + key, static_cast<std::uint32_t>(x));
  };
  u32("block_count", c.n_layer);
  u32("context_length", c.n_ctx_train);
  u32("embedding_length", c.n_embd);
  u32("feed_forward_length", c.n_ff);
  u32("attention.head_count", c.n_head);
  u32("attention.head_count_kv", c.n_head_kv);
  u32("attention.key_length", c.head_dim);
  u32("attention.value_length", c.head_dim);
  u32("vocab_size", c.n_vocab);
  m.set_f32(
      a + (c.norm == NormKind::kRms ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon"),
      c.norm_eps);
  write_rope(c, m);
  write_sliding(c, arch, m);
  if (c.norm == NormKind::kLayer && c.position == Position::kRope) {
    m.set_bool(a + "use_parallel_residual", c.parallel_residual);
  }
  if (c.attn_softcap > 0.0f) m.set_f32(a + "attn_logit_softcapping", c.attn_softcap);
  if (c.final_softcap > 0.0f) m.set_f32(a + "final_logit_softcapping", c.final_softcap);
  if (c.embedding_scale != 1.0f) m.set_f32(a + "embedding_scale", c.embedding_scale);
  if (c.residual_scale != 1.0f) m.set_f32(a + "residual_scale", c.residual_scale);
  if (c.attn_scale != 0.0f) m.set_f32(a + "attention.scale", c.attn_scale);
  if (c.n_expert > 0) {
    u32("expert_count", c.n_expert);
    u32("expert_used_count", c.n_expert_used);
    u32("expert_feed_forward_length", c.n_ff_expert);
    if (!c.expert_weights_norm) m.set_bool(a + "expert_weights_norm", false);
  }
}

}  // namespace narrow::model
