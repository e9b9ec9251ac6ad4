// Whether a model whose weights were changed still computes the same: fp32 logits before and after.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "base/rng.h"
#include "model/source.h"
#include "runtime/session.h"
#include "testing/testing.h"

namespace narrow::testing {

inline constexpr std::array kTinyModels = {"gemma2", "gemma3",      "gpt2",    "gpt_neox",  "granite",
                                           "llama",  "llama3-rope", "mistral", "mixtral",   "olmo2",
                                           "phi3",   "qwen2",       "qwen3",   "qwen3_moe", "smollm3"};

inline Result<std::shared_ptr<const model::ModelSource>> open_tiny(const std::string& name) {
  return model::ModelSource::open(shared_data() / "tiny-models" / name);
}

// Logits of all of `count` random tokens, with fp32 products.
inline Result<std::vector<float>> logits_of(std::shared_ptr<const model::ModelSource> source,
                                            std::size_t count = 40) {
  Rng rng(7);
  std::vector<std::int32_t> ids;
  const auto vocabulary = static_cast<std::uint64_t>(source->config().n_vocab);
  for (std::size_t i = 0; i < count; ++i)
    ids.push_back(static_cast<std::int32_t>(rng.next_u64() % vocabulary));
  runtime::LoadOptions load;
  load.compute = runtime::Compute::kFloat;
  NARROW_ASSIGN(auto loaded, runtime::LoadedModel::load(std::move(source), load));
  runtime::SessionOptions options;
  options.cache_keys = options.cache_values = Format::kF32;
  options.n_ctx = 64;
  NARROW_ASSIGN(auto session, runtime::Session::create(loaded, options));
  std::vector<float> logits;
  NARROW_TRY(session->forward(ids, runtime::LogitRows::kAll, logits));
  return logits;
}

// Infinite where one has another length or holds a NaN.
inline float greatest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return std::numeric_limits<float>::infinity();
  float worst = 0.0f;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const float d = std::fabs(a[i] - b[i]);
    if (!(d <= worst)) worst = std::isnan(d) ? std::numeric_limits<float>::infinity() : d;
  }
  return worst;
}

}  // namespace narrow::testing
