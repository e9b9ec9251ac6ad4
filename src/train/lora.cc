#include "train/lora.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/rng.h"

namespace narrow::train {
namespace {

// FNV-1a: the same start for a matrix whichever others are chosen.
std::uint64_t hash(const std::string& name) {
  std::uint64_t h = 0xcbf29ce484222325ull;
  for (const char c : name) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3ull;
  return h;
}

at::Tensor uniform(std::int64_t rank, std::int64_t k, std::uint64_t seed) {
  at::Tensor out = at::empty({rank, k}, at::kFloat);
  const float bound = 1.0f / std::sqrt(static_cast<float>(k));
  Rng rng(seed);
  auto* p = out.data_ptr<float>();
  for (std::int64_t i = 0; i < out.numel(); ++i) p[i] = rng.uniform(-bound, bound);
  return out;
}

}  // namespace

bool is_layer_matrix(const std::string& name) {
  return name.starts_with("blk.") && name.ends_with(".weight") && name.find("_norm.") == std::string::npos;
}

Status add_loras(Decoder& student, const LoraSpec& spec) {
  if (spec.rank < 1 || !std::isfinite(spec.alpha)) {
    return make_error(ErrorCode::kInvalidArgument,
                      "low-rank updates of rank {} and alpha {}: the rank is 1 or more", spec.rank,
                      spec.alpha);
  }
  std::vector<std::string> names;
  for (const auto& [name, w] : student.weights()) {
    if (w.dim() != 2 || !(spec.wanted ? spec.wanted(name) : is_layer_matrix(name))) continue;
    if (spec.rank >= std::min(w.size(0), w.size(1))) {
      return make_error(
          ErrorCode::kInvalidArgument,
          "'{}' is {} x {}: a low-rank update of rank {} is no smaller; use a smaller --lora-rank, or "
          "leave it out with --lora-match",
          name, w.size(0), w.size(1), spec.rank);
    }
    names.push_back(name);
  }
  if (names.empty()) {
    return make_error(ErrorCode::kInvalidArgument,
                      "no matrix gets a low-rank update: --lora-match finds none");
  }
  for (const std::string& name : names) {
    at::Tensor w = student.weight(name);
    w.set_requires_grad(false);
    Rng mix(spec.seed ^ hash(name));
    Lora lora;
    // In the weight's dtype: what is added to it has its precision anyway.
    lora.a = uniform(spec.rank, w.size(1), mix.next_u64())
                 .to(w.options().requires_grad(false))
                 .set_requires_grad(true);
    lora.b = at::zeros({w.size(0), spec.rank}, w.options().requires_grad(false)).set_requires_grad(true);
    lora.scale = static_cast<float>(spec.alpha / static_cast<double>(spec.rank));
    student.attach_lora(name, std::move(lora));
  }
  return {};
}

}  // namespace narrow::train
