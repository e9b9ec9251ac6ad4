// A Llama that fits into a test, with random weights.
#pragma once

#include "model/config.h"
#include "train/dataset.h"
#include "train/decoder.h"

namespace narrow::testing {

inline model::ModelConfig small_llama() {
  model::ModelConfig c;
  c.arch = "llama";
  c.n_vocab = 50;
  c.n_ctx_train = 64;
  c.n_embd = 32;
  c.n_layer = 2;
  c.n_ff = 48;
  c.n_head = 4;
  c.n_head_kv = 2;
  c.head_dim = 8;
  c.rope.dims = 8;
  c.rope.style = model::RopeStyle::kInterleaved;
  c.tied_head = true;
  c.layers.resize(2);
  return c;
}

// Tokens that repeat in a way that a model can learn.
inline train::Document small_text(std::int64_t tokens) {
  train::Document d;
  std::uint32_t x = 1;
  for (std::int64_t i = 0; i < tokens; ++i) {
    x = x * 1103515245u + 12345u;
    d.ids.push_back(i % 3 == 0 ? static_cast<std::int32_t>(x >> 16) % 50 : (d.ids.back() * 7 + 3) % 50);
  }
  return d;
}

}  // namespace narrow::testing
