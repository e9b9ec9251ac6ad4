// Gemma 2: alternating sliding and full layers, softcaps on attention scores and logits.
#include "model/arch/gemma.h"

namespace narrow::model {
namespace {

constexpr std::int64_t kGemma2LayersOf27b = 46;

void gemma2_read_hf(HfFields& f, const Arch& arch, ModelConfig& c) {
  read_hf_decoder(f, arch, {.n_head_kv = 4, .head_dim = 256, .n_ctx = 8192, .tied = true}, c);
  read_hf_sliding(f, arch, c, 4096);
  read_hf_activation(f, {"hidden_activation"}, c);
  gemma_read_scales(f, c);
  c.attn_softcap = static_cast<float>(f.number({"attn_logit_softcapping"}, 0.0, 1e6, 0.0));
  c.final_softcap = static_cast<float>(f.number({"final_logit_softcapping"}, 0.0, 1e6, 0.0));
}

void gemma2_read_gguf(GgufFields& f, ModelConfig& c) {
  gemma_read_gguf_scales(f, kGemma2LayersOf27b, c);
  // Files of the first converter lack these keys.
  if (!f.has("attn_logit_softcapping")) c.attn_softcap = 50.0f;
  if (!f.has("final_logit_softcapping")) c.final_softcap = 30.0f;
}

void gemma2_write_gguf(const ModelConfig& c, io::gguf::Metadata& m) {
  gemma_write_gguf_scales(c, kGemma2LayersOf27b, m);
  m.set_f32("gemma2.attn_logit_softcapping", c.attn_softcap);
  m.set_f32("gemma2.final_logit_softcapping", c.final_softcap);
}

}  // namespace

const Arch& gemma2_arch() {
  static const Arch arch = {.name = "gemma2",
                            .model_types = {"gemma2"},
                            .architectures = {"Gemma2ForCausalLM"},
                            .sliding_period = 2,
                            .default_window = 4096,
                            .traits = gemma_traits,
                            .read_hf = gemma2_read_hf,
                            .read_gguf = gemma2_read_gguf,
                            .write_gguf = gemma2_write_gguf,
                            .write_hf = gemma_write_hf,
                            .tensor_map = gemma_tensors};
  return arch;
}

}  // namespace narrow::model
