#include "model/rotate.h"

#include <algorithm>
#include <cmath>
#include <memory>

#include "model/fold.h"
#include "ops/hadamard.h"

namespace narrow::model {
namespace {

using ops::Rotation;
using SharedRotation = std::shared_ptr<const Rotation>;
using Reach = TransformedSource::Reach;

// Below this share of the greatest gain, dividing a norm's bias by it would cost too many digits.
constexpr float kLeastGain = 1e-3f;

Result<std::vector<float>> read_vector(const ModelSource& source, std::size_t index) {
  std::vector<float> x(static_cast<std::size_t>(source.tensors()[index].shape.elements()));
  NARROW_TRY(source.read_f32(index, 0, source.tensors()[index].shape.rows(), x.data()));
  return x;
}

Result<std::size_t> require(const ModelSource& source, const std::string& name) {
  if (const auto i = source.find(name)) return *i;
  return make_error(ErrorCode::kNotFound, "{}: tensor '{}' is missing", source.path().string(), name);
}

void turn_inputs(std::size_t index, const SharedRotation& r, TransformedSource& source) {
  const std::int64_t k = source.tensors()[index].shape.row_length();
  source.add(index, Reach::kRow, [r, k](std::int64_t begin, std::int64_t end, float* rows) {
    ops::rotate_inputs(*r, rows, end - begin, k);
  });
}

// Rows [first, first + count) of a matrix and its bias.
Status turn_outputs(const std::string& stem, std::int64_t first, std::int64_t count, const SharedRotation& r,
                    TransformedSource& source) {
  NARROW_ASSIGN(const std::size_t weight, require(source, stem + ".weight"));
  const std::int64_t k = source.tensors()[weight].shape.row_length();
  source.add(weight, Reach::kTensor, [=](std::int64_t, std::int64_t, float* rows) {
    ops::rotate_outputs(*r, rows + first * k, count, k);
  });
  if (const auto bias = source.find(stem + ".bias")) {
    source.add(*bias, Reach::kTensor, [=](std::int64_t, std::int64_t, float* values) {
      ops::rotate_outputs(*r, values + first, count, 1);
    });
  }
  return {};
}

void set_values(std::size_t index, std::vector<float> values, TransformedSource& source) {
  source.add(index, Reach::kTensor, [v = std::move(values)](std::int64_t, std::int64_t, float* out) {
    std::copy(v.begin(), v.end(), out);
  });
}

bool is_norm(const FoldGroup& g) {
  return g.kind == FoldKind::kAttnNorm || g.kind == FoldKind::kFfnNorm || g.kind == FoldKind::kFinalNorm;
}

// The bias vector beside a matrix.
std::optional<std::size_t> bias_of(const ModelSource& source, std::size_t weight) {
  std::string name = source.tensors()[weight].name;
  name.replace(name.size() - std::string_view("weight").size(), std::string::npos, "bias");
  return source.find(name);
}

bool all_have_biases(const ModelSource& source, const FoldGroup& g) {
  return std::all_of(g.consumers.begin(), g.consumers.end(),
                     [&](const FoldPart& p) { return bias_of(source, p.tensor).has_value(); });
}

bool constant(const std::vector<float>& x) {
  return std::all_of(x.begin(), x.end(), [&](float v) { return v == x.front(); });
}

bool divisible_by(const std::vector<float>& gain) {
  float least = std::fabs(gain.front()), greatest = least;
  for (const float g : gain) {
    least = std::min(least, std::fabs(g));
    greatest = std::max(greatest, std::fabs(g));
  }
  return least > 0.0f && least >= kLeastGain * greatest;
}

// The bias of a norm is handed on: into the biases behind it, or turned with what it is added to.
Status turn_norm_bias(const FoldGroup& g, const std::vector<float>& gain, const SharedRotation& r,
                      TransformedSource& source) {
  const std::size_t index = g.producers[1].tensor;
  NARROW_ASSIGN(std::vector<float> bias, read_vector(source, index));
  if (!all_have_biases(source, g)) {
    for (std::size_t i = 0; i < bias.size(); ++i) bias[i] /= gain[i];
    ops::rotate_outputs(*r, bias.data(), static_cast<std::int64_t>(bias.size()), 1);
    set_values(index, std::move(bias), source);
    return {};
  }
  for (const FoldPart& p : g.consumers) {
    const Shape& shape = source.tensors()[p.tensor].shape;
    const std::size_t target = *bias_of(source, p.tensor);
    NARROW_ASSIGN(std::vector<float> sum, read_vector(source, target));
    std::vector<float> row(static_cast<std::size_t>(shape.row_length()));
    for (std::int64_t n = 0; n < shape.rows(); ++n) {
      NARROW_TRY(source.read_f32(p.tensor, n, n + 1, row.data()));
      double dot = 0;
      for (std::size_t i = 0; i < row.size(); ++i) {
        dot += static_cast<double>(row[i]) * static_cast<double>(bias[i]);
      }
      sum[static_cast<std::size_t>(n)] += static_cast<float>(dot);
    }
    set_values(target, std::move(sum), source);
  }
  set_values(index, std::vector<float>(bias.size(), 0.0f), source);
  return {};
}

// A norm and the matrices behind it.
Status turn_norm(const FoldGroup& g, const SharedRotation& r, TransformedSource& source) {
  NARROW_ASSIGN(std::vector<float> gain, read_vector(source, g.producers[0].tensor));
  if (g.producers.size() > 1) NARROW_TRY(turn_norm_bias(g, gain, r, source));
  set_values(g.producers[0].tensor, std::vector<float>(gain.size(), 1.0f), source);
  const auto shared = std::make_shared<const std::vector<float>>(std::move(gain));
  for (const FoldPart& p : g.consumers) {
    const std::int64_t k = source.tensors()[p.tensor].shape.row_length();
    source.add(p.tensor, Reach::kRow, [p, shared, k](std::int64_t begin, std::int64_t end, float* rows) {
      scale_part(p, *shared, begin, end, k, rows);
    });
    turn_inputs(p.tensor, r, source);
  }
  return {};
}

}  // namespace

Status rotate_heads(std::uint64_t seed, TransformedSource& source) {
  const ModelConfig& c = source.config();
  const std::int64_t n_q = c.n_head * c.head_dim, n_kv = c.n_head_kv * c.head_dim;
  for (std::int64_t i = 0; i < c.n_layer; ++i) {
    const std::string p = fmt::format("blk.{}.", i);
    const auto r = std::make_shared<const Rotation>(c.head_dim, seed + 1 + static_cast<std::uint64_t>(i));
    const bool fused = source.find(p + "attn_qkv.weight").has_value();
    NARROW_TRY(turn_outputs(p + (fused ? "attn_qkv" : "attn_v"), fused ? n_q + n_kv : 0, n_kv, r, source));
    NARROW_ASSIGN(const std::size_t output, require(source, p + "attn_output.weight"));
    turn_inputs(output, r, source);
  }
  return {};
}

Result<std::string> residual_refusal(const ModelSource& source) {
  const ModelConfig& c = source.config();
  for (const char* part : {"post_attention_norm", "post_ffw_norm"}) {
    for (std::int64_t i = 0; i < c.n_layer; ++i) {
      const auto index = source.find(fmt::format("blk.{}.{}.weight", i, part));
      if (!index) continue;
      NARROW_ASSIGN(const std::vector<float> gain, read_vector(source, *index));
      if (constant(gain)) continue;
      return fmt::format(
          "{}: the gains of '{}' differ and are applied to what enters the residual stream, where no weight "
          "can "
          "take them, so the stream cannot be rotated",
          c.arch, source.tensors()[*index].name);
    }
  }
  NARROW_ASSIGN(const std::size_t norm, require(source, "output_norm.weight"));
  NARROW_ASSIGN(const std::vector<float> gain, read_vector(source, norm));
  const bool has_bias = source.find("output_norm.bias").has_value();
  if (!source.find("output.weight") && (has_bias || !constant(gain))) {
    return fmt::format(
        "{}: the head is tied to the embedding and the final norm's {}; residual rotation would need an "
        "untied "
        "head (+{:.0f} MB as f32)",
        c.arch, has_bias ? "bias cannot be turned with it" : "gains differ",
        static_cast<double>(c.n_vocab * c.n_embd * 4) / 1e6);
  }
  NARROW_ASSIGN(const FoldPlan plan, find_folds(source));
  for (const FoldGroup& g : plan.groups) {
    if (!is_norm(g) || g.producers.size() < 2 || all_have_biases(source, g)) continue;
    NARROW_ASSIGN(const std::vector<float> gains, read_vector(source, g.producers[0].tensor));
    if (divisible_by(gains)) continue;
    return fmt::format(
        "{}: '{}' has a bias that no matrix behind it can take, and gains near zero, so the residual stream "
        "cannot be rotated",
        c.arch, source.tensors()[g.producers[0].tensor].name);
  }
  return std::string();
}

Status rotate_residual(std::uint64_t seed, TransformedSource& source) {
  NARROW_ASSIGN(const std::string refusal, residual_refusal(source));
  if (!refusal.empty()) return make_error(ErrorCode::kUnsupported, "{}", refusal);
  const ModelConfig& c = source.config();
  const auto r = std::make_shared<const Rotation>(c.n_embd, seed, c.norm == NormKind::kLayer);
  // With a tied head the final gains are all the same: they stay, and the embedding turns for both its uses.
  NARROW_ASSIGN(const FoldPlan plan, find_folds(source));
  for (const FoldGroup& g : plan.groups) {
    if (is_norm(g)) NARROW_TRY(turn_norm(g, r, source));
  }
  NARROW_ASSIGN(const std::size_t embedding, require(source, "token_embd.weight"));
  turn_inputs(embedding, r, source);
  if (const auto positions = source.find("position_embd.weight")) turn_inputs(*positions, r, source);
  for (std::int64_t i = 0; i < c.n_layer; ++i) {
    const std::string p = fmt::format("blk.{}.", i);
    NARROW_TRY(turn_outputs(p + "attn_output", 0, c.n_embd, r, source));
    const bool moe = c.layers[static_cast<std::size_t>(i)].moe;
    NARROW_TRY(turn_outputs(p + (moe ? "ffn_down_exps" : "ffn_down"), 0,
                            moe ? c.n_expert * c.n_embd : c.n_embd, r, source));
  }
  return {};
}

}  // namespace narrow::model
