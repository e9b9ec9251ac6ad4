// Gemma 3 (text): five sliding layers with a rope base of their own, then a full one; norms on q and k. Of
// the multimodal checkpoints the language model is read, the vision tower left out.
#include "model/arch/gemma.h"

namespace narrow::model {
namespace {

constexpr std::int64_t kGemma3LayersOf27b = 62;

void gemma3_traits(ModelConfig& c) {
  gemma_traits(c);
  c.qk_norm = QkNorm::kPerHead;
  c.rope.theta_local = 10000.0f;
}

void gemma3_read_hf(HfFields& f, const Arch& arch, ModelConfig& c) {
  read_hf_decoder(
      f, arch,
      {.n_head = 8, .n_head_kv = 4, .head_dim = 256, .n_vocab = 262208, .n_ctx = 131072, .tied = true}, c);
  read_hf_sliding(f, arch, c, 4096);
  read_hf_activation(f, {"hidden_activation"}, c);
  gemma_read_scales(f, c);
  c.final_softcap = static_cast<float>(f.number({"final_logit_softcapping"}, 0.0, 1e6, 0.0));
  if (f.has("attn_logit_softcapping"))
    f.reject("attn_logit_softcapping", "Gemma 3 has none", ErrorCode::kUnsupported);
  if (f.boolean("use_bidirectional_attention", false)) {
    f.reject("use_bidirectional_attention", "only causal models are supported", ErrorCode::kUnsupported);
  }
}

void gemma3_read_gguf(GgufFields& f, ModelConfig& c) { gemma_read_gguf_scales(f, kGemma3LayersOf27b, c); }

void gemma3_write_gguf(const ModelConfig& c, io::gguf::Metadata& m) {
  gemma_write_gguf_scales(c, kGemma3LayersOf27b, m);
}

void gemma3_write_hf(const ModelConfig& c, Json& j) {
  gemma_write_hf(c, j);
  j["rope_local_base_freq"] = shortest(c.rope.theta_local);
  Json both = Json::object();
  both["full_attention"] = j["rope_parameters"];
  both["sliding_attention"] = {{"rope_type", "default"}, {"rope_theta", shortest(c.rope.theta_local)}};
  j["rope_parameters"] = std::move(both);
}

}  // namespace

const Arch& gemma3_arch() {
  static const Arch arch = {.name = "gemma3",
                            .model_types = {"gemma3_text", "gemma3"},
                            .architectures = {"Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"},
                            .prefixes = {"model.", "language_model.model.", "model.language_model.", ""},
                            .ignored_prefixes = {"vision_tower.", "multi_modal_projector.",
                                                 "model.vision_tower.", "model.multi_modal_projector."},
                            .sliding_period = 6,
                            .default_theta = 1e6,
                            .traits = gemma3_traits,
                            .read_hf = gemma3_read_hf,
                            .read_gguf = gemma3_read_gguf,
                            .write_gguf = gemma3_write_gguf,
                            .write_hf = gemma3_write_hf,
                            .tensor_map = gemma_tensors};
  return arch;
}

}  // namespace narrow::model
