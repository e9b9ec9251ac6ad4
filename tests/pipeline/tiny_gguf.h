// A small random Llama as a GGUF file, for tests that need a model and no other file.
#pragma once

#include <fmt/format.h>

#include <cstring>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "base/rng.h"
#include "formats/format.h"
#include "io/gguf/writer.h"

namespace narrow::testing {

struct TinyGguf {
  std::int64_t n_embd = 256, n_ff = 512, n_head = 4, n_head_kv = 2, n_layer = 2, n_vocab = 64;
  Format format = Format::kF32;  // of the matrices
  bool tied = false;
  // Changes a tensor's values before they are stored.
  std::function<void(const std::string& name, std::vector<float>& values)> edit = {};
};

inline std::vector<TensorInfo> tiny_tensors(const TinyGguf& o) {
  const std::int64_t head = o.n_embd / o.n_head, kv = head * o.n_head_kv;
  std::vector<TensorInfo> t = {{"token_embd.weight", o.format, {o.n_vocab, o.n_embd}},
                               {"output_norm.weight", Format::kF32, {o.n_embd}}};
  if (!o.tied) t.push_back({"output.weight", o.format, {o.n_vocab, o.n_embd}});
  for (std::int64_t i = 0; i < o.n_layer; ++i) {
    const auto add = [&](std::string_view part, Format f, Shape shape) {
      t.push_back({fmt::format("blk.{}.{}.weight", i, part), f, std::move(shape)});
    };
    add("attn_norm", Format::kF32, {o.n_embd});
    add("attn_q", o.format, {o.n_embd, o.n_embd});
    add("attn_k", o.format, {kv, o.n_embd});
    add("attn_v", o.format, {kv, o.n_embd});
    add("attn_output", o.format, {o.n_embd, o.n_embd});
    add("ffn_norm", Format::kF32, {o.n_embd});
    add("ffn_gate", o.format, {o.n_ff, o.n_embd});
    add("ffn_up", o.format, {o.n_ff, o.n_embd});
    add("ffn_down", o.format, {o.n_embd, o.n_ff});
  }
  return t;
}

inline io::gguf::Metadata tiny_metadata(const TinyGguf& o) {
  io::gguf::Metadata m;
  const auto u32 = [&](const std::string& key, std::int64_t x) {
    m.set_u32(key, static_cast<std::uint32_t>(x));
  };
  m.set_string("general.architecture", "llama");
  m.set_string("general.name", "tiny");
  u32("llama.context_length", 128);
  u32("llama.embedding_length", o.n_embd);
  u32("llama.block_count", o.n_layer);
  u32("llama.feed_forward_length", o.n_ff);
  u32("llama.attention.head_count", o.n_head);
  u32("llama.attention.head_count_kv", o.n_head_kv);
  u32("llama.rope.dimension_count", o.n_embd / o.n_head);
  u32("llama.vocab_size", o.n_vocab);
  m.set_f32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  m.set_string("tokenizer.ggml.model", "none");
  return m;
}

inline Status write_tiny_gguf(const std::filesystem::path& path, const TinyGguf& o = {},
                              const io::gguf::WriterOptions& options = {}) {
  const std::vector<TensorInfo> tensors = tiny_tensors(o);
  auto writer = io::gguf::Writer::create(path, tiny_metadata(o), tensors, options);
  if (!writer.ok()) return writer.error();
  Rng rng(7);
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const TensorInfo& t = tensors[i];
    std::vector<float> values(static_cast<std::size_t>(t.shape.elements()));
    for (float& v : values) v = t.shape.rank() == 1 ? 1.0f : 0.05f * rng.normal();
    if (o.edit) o.edit(t.name, values);
    std::vector<std::byte> stored(t.bytes());
    if (Status s = encode_row(t.format, values.data(), stored.data(), t.shape.elements()); !s.ok()) return s;
    if (Status s = (*writer)->write(i, 0, stored); !s.ok()) return s;
  }
  return (*writer)->finish();
}

}  // namespace narrow::testing
