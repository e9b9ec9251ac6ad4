#include "model/fold.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace narrow::model {
namespace {

std::vector<std::int32_t> identity(std::int64_t n) {
  std::vector<std::int32_t> c(static_cast<std::size_t>(n));
  std::iota(c.begin(), c.end(), 0);
  return c;
}

class Finder {
 public:
  explicit Finder(const ModelSource& source) : source_(source), c_(source.config()) {}

  Result<FoldPlan> find() {
    for (std::int64_t i = 0; i < c_.n_layer; ++i) {
      NARROW_TRY(norm_fold(FoldKind::kAttnNorm, i));
      NARROW_TRY(key_query(i));
      NARROW_TRY(value_output(i));
      NARROW_TRY(norm_fold(FoldKind::kFfnNorm, i));
      NARROW_TRY(up_down(i));
    }
    NARROW_TRY(final_norm());
    return std::move(plan_);
  }

 private:
  static std::string prefix(std::int64_t layer) { return fmt::format("blk.{}.", layer); }
  bool has(const std::string& name) const { return source_.find(name).has_value(); }

  Result<std::size_t> require(const std::string& name) const {
    if (const auto i = source_.find(name)) return *i;
    return make_error(ErrorCode::kNotFound, "{}: tensor '{}' is missing", source_.path().string(), name);
  }

  void refuse(FoldKind kind, std::string_view why) {
    for (const FoldRefusal& r : plan_.refused) {
      if (r.kind == kind) return;
    }
    plan_.refused.push_back({kind, fmt::format("{}: {}", c_.arch, why)});
  }

  static FoldGroup group(FoldKind kind, std::int64_t layer, std::int64_t channels) {
    FoldGroup g;
    g.kind = kind;
    g.layer = layer;
    g.channels = channels;
    g.name = kind == FoldKind::kFinalNorm ? std::string(fold_name(kind))
                                          : prefix(layer) + std::string(fold_name(kind));
    return g;
  }

  // Columns of every row.
  Status columns(const std::string& name, std::vector<std::int32_t> channel, std::vector<FoldPart>& out) {
    NARROW_ASSIGN(const std::size_t i, require(name));
    out.push_back({i, 0, source_.tensors()[i].shape.rows(), true, std::move(channel)});
    return {};
  }

  // Rows [begin, begin + channel.size()) of a matrix, and the same stretch of its bias.
  Status rows(const std::string& stem, std::int64_t begin, const std::vector<std::int32_t>& channel,
              std::vector<FoldPart>& out) {
    NARROW_ASSIGN(const std::size_t i, require(stem + ".weight"));
    const auto n = static_cast<std::int64_t>(channel.size());
    out.push_back({i, begin, begin + n, false, channel});
    const auto bias = source_.find(stem + ".bias");
    if (!bias) return {};
    std::vector<std::int32_t> of(static_cast<std::size_t>(source_.tensors()[*bias].shape.elements()), -1);
    std::copy(channel.begin(), channel.end(), of.begin() + begin);
    out.push_back({*bias, 0, 1, true, std::move(of)});
    return {};
  }

  Status norm_vectors(const std::string& stem, std::vector<FoldPart>& out) {
    NARROW_TRY(columns(stem + ".weight", identity(c_.n_embd), out));
    if (has(stem + ".bias")) NARROW_TRY(columns(stem + ".bias", identity(c_.n_embd), out));
    return {};
  }

  Status norm_fold(FoldKind kind, std::int64_t layer) {
    const bool attention = kind == FoldKind::kAttnNorm;
    const std::string p = prefix(layer), norm = p + (attention ? "attn_norm" : "ffn_norm");
    if (!has(norm + ".weight")) {
      refuse(kind, attention
                       ? "no norm comes before attention (its output is normalised instead), so nothing can "
                         "take the inverse of scales on q, k and v"
                       : "no norm comes before the feed-forward layer (its output is normalised instead), so "
                         "nothing can take the inverse of scales on gate and up");
      return {};
    }
    FoldGroup g = group(kind, layer, c_.n_embd);
    NARROW_TRY(norm_vectors(norm, g.producers));
    std::vector<std::string> names;
    if (attention) {
      names = {"attn_qkv", "attn_q", "attn_k", "attn_v"};
    } else {
      names = {"ffn_gate_inp", "ffn_gate_exps", "ffn_up_exps", "ffn_gate", "ffn_up"};
    }
    for (const std::string& n : names) {
      if (has(p + n + ".weight")) NARROW_TRY(columns(p + n + ".weight", identity(c_.n_embd), g.consumers));
    }
    if (!g.consumers.empty()) plan_.groups.push_back(std::move(g));
    return {};
  }

  // Where q, k or v lies: a matrix of its own, or rows of qkv.
  Status projection(std::int64_t layer, char which, const std::vector<std::int32_t>& channel,
                    std::vector<FoldPart>& out) {
    const std::string p = prefix(layer);
    if (!has(p + "attn_qkv.weight")) return rows(p + "attn_" + which, 0, channel, out);
    const std::int64_t n_q = c_.n_head * c_.head_dim, n_kv = c_.n_head_kv * c_.head_dim;
    return rows(p + "attn_qkv", which == 'q' ? 0 : which == 'k' ? n_q : n_q + n_kv, channel, out);
  }

  Status value_output(std::int64_t layer) {
    FoldGroup g = group(FoldKind::kValueOutput, layer, c_.n_head_kv * c_.head_dim);
    NARROW_TRY(projection(layer, 'v', identity(g.channels), g.producers));
    std::vector<std::int32_t> channel;
    for (std::int64_t h = 0; h < c_.n_head; ++h) {
      const std::int64_t kv = h / (c_.n_head / c_.n_head_kv);
      for (std::int64_t d = 0; d < c_.head_dim; ++d) {
        channel.push_back(static_cast<std::int32_t>(kv * c_.head_dim + d));
      }
    }
    NARROW_TRY(columns(prefix(layer) + "attn_output.weight", std::move(channel), g.consumers));
    plan_.groups.push_back(std::move(g));
    return {};
  }

  // The factor of each dimension of a head: rope turns pairs into each other.
  std::vector<std::int32_t> head_channels(std::int64_t layer, std::int32_t& count) const {
    const LayerConfig& lc = c_.layers[static_cast<std::size_t>(layer)];
    const std::int64_t rotated = c_.position == Position::kRope && lc.rope ? c_.rope.dims : 0;
    std::vector<std::int32_t> of;
    for (std::int64_t d = 0; d < c_.head_dim; ++d) {
      std::int64_t channel = rotated / 2 + d - rotated;
      if (d < rotated) channel = c_.rope.style == RopeStyle::kInterleaved ? d / 2 : d % (rotated / 2);
      of.push_back(static_cast<std::int32_t>(channel));
    }
    count = static_cast<std::int32_t>(rotated / 2 + c_.head_dim - rotated);
    return of;
  }

  Status key_query(std::int64_t layer) {
    if (c_.qk_norm != QkNorm::kNone) {
      refuse(FoldKind::kKeyQuery, "queries and keys are normalised, which would undo scales on their rows");
      return {};
    }
    std::int32_t per_head = 0;
    const std::vector<std::int32_t> of = head_channels(layer, per_head);
    FoldGroup g = group(FoldKind::kKeyQuery, layer, c_.n_head_kv * per_head);
    std::vector<std::int32_t> keys, queries;
    for (std::int64_t h = 0; h < c_.n_head; ++h) {
      const auto kv = static_cast<std::int32_t>(h / (c_.n_head / c_.n_head_kv));
      for (const std::int32_t d : of) queries.push_back(kv * per_head + d);
    }
    for (std::int32_t kv = 0; kv < c_.n_head_kv; ++kv) {
      for (const std::int32_t d : of) keys.push_back(kv * per_head + d);
    }
    NARROW_TRY(projection(layer, 'k', keys, g.producers));
    NARROW_TRY(projection(layer, 'q', queries, g.consumers));
    plan_.groups.push_back(std::move(g));
    return {};
  }

  Status up_down(std::int64_t layer) {
    const std::string p = prefix(layer);
    if (!c_.gated_ffn && c_.activation != Activation::kRelu) {
      refuse(FoldKind::kUpDown,
             "the activation between up and down is not linear in a scale, so rows of up cannot take one");
      return {};
    }
    if (c_.layers[static_cast<std::size_t>(layer)].moe) return expert_up_down(layer);
    FoldGroup g = group(FoldKind::kUpDown, layer, c_.n_ff);
    // Gated without a gate of its own: up holds the gate's rows first.
    const bool fused = c_.gated_ffn && !has(p + "ffn_gate.weight");
    NARROW_TRY(rows(p + "ffn_up", fused ? c_.n_ff : 0, identity(c_.n_ff), g.producers));
    NARROW_TRY(columns(p + "ffn_down.weight", identity(c_.n_ff), g.consumers));
    plan_.groups.push_back(std::move(g));
    return {};
  }

  Status expert_up_down(std::int64_t layer) {
    NARROW_ASSIGN(const std::size_t up, require(prefix(layer) + "ffn_up_exps.weight"));
    NARROW_ASSIGN(const std::size_t down, require(prefix(layer) + "ffn_down_exps.weight"));
    for (std::int64_t e = 0; e < c_.n_expert; ++e) {
      FoldGroup g = group(FoldKind::kUpDown, layer, c_.n_ff_expert);
      g.expert = e;
      g.name += fmt::format("[{}]", e);
      const std::vector<std::int32_t> channel = identity(g.channels);
      g.producers.push_back({up, e * c_.n_ff_expert, (e + 1) * c_.n_ff_expert, false, channel});
      g.consumers.push_back({down, e * c_.n_embd, (e + 1) * c_.n_embd, true, channel});
      plan_.groups.push_back(std::move(g));
    }
    return {};
  }

  Status final_norm() {
    if (!has("output.weight")) {
      refuse(FoldKind::kFinalNorm,
             "the head is tied to the embedding, so the final norm cannot hand scales on");
      return {};
    }
    FoldGroup g = group(FoldKind::kFinalNorm, c_.n_layer, c_.n_embd);
    NARROW_TRY(norm_vectors("output_norm", g.producers));
    NARROW_TRY(columns("output.weight", identity(c_.n_embd), g.consumers));
    plan_.groups.push_back(std::move(g));
    return {};
  }

  const ModelSource& source_;
  const ModelConfig& c_;
  FoldPlan plan_;
};

std::vector<float> inverse_of(std::span<const float> scale) {
  std::vector<float> inverse;
  for (const float s : scale) inverse.push_back(1.0f / s);
  return inverse;
}

}  // namespace

std::string_view fold_name(FoldKind kind) {
  switch (kind) {
    case FoldKind::kAttnNorm:
      return "attn_norm";
    case FoldKind::kFfnNorm:
      return "ffn_norm";
    case FoldKind::kUpDown:
      return "up_down";
    case FoldKind::kValueOutput:
      return "value_output";
    case FoldKind::kFinalNorm:
      return "final_norm";
    case FoldKind::kKeyQuery:
      break;
  }
  return "key_query";
}

Result<FoldPlan> find_folds(const ModelSource& source) { return Finder(source).find(); }

std::vector<float> channel_max(const FoldPart& part, std::int64_t channels, std::span<const float> values) {
  std::vector<float> out(static_cast<std::size_t>(channels), 0.0f);
  for (std::size_t i = 0; i < part.channel.size(); ++i) {
    if (part.channel[i] < 0) continue;
    float& m = out[static_cast<std::size_t>(part.channel[i])];
    m = std::max(m, values[i]);
  }
  return out;
}

std::vector<float> channel_mean(const FoldPart& part, std::int64_t channels, std::span<const float> values) {
  std::vector<double> sum(static_cast<std::size_t>(channels), 0.0);
  std::vector<std::int64_t> count(sum.size(), 0);
  for (std::size_t i = 0; i < part.channel.size(); ++i) {
    if (part.channel[i] < 0) continue;
    const auto c = static_cast<std::size_t>(part.channel[i]);
    sum[c] += values[i];
    ++count[c];
  }
  std::vector<float> out;
  for (std::size_t c = 0; c < sum.size(); ++c) {
    out.push_back(count[c] > 0 ? static_cast<float>(sum[c] / static_cast<double>(count[c])) : 0.0f);
  }
  return out;
}

void scale_part(const FoldPart& part, std::span<const float> factors, std::int64_t row_begin,
                std::int64_t row_end, std::int64_t row_length, float* rows) {
  const std::int64_t begin = std::max(row_begin, part.row_begin), end = std::min(row_end, part.row_end);
  for (std::int64_t r = begin; r < end; ++r) {
    float* row = rows + (r - row_begin) * row_length;
    for (std::int64_t j = 0; j < row_length; ++j) {
      const std::int32_t c = part.channel[static_cast<std::size_t>(part.columns ? j : r - part.row_begin)];
      if (c >= 0) row[j] *= factors[static_cast<std::size_t>(c)];
    }
  }
}

Status check_scales(const FoldGroup& group, std::span<const float> scale) {
  if (static_cast<std::int64_t>(scale.size()) != group.channels) {
    return make_error(ErrorCode::kInvalidArgument, "{}: {} scales for {} channels", group.name, scale.size(),
                      group.channels);
  }
  for (std::size_t i = 0; i < scale.size(); ++i) {
    if (std::isfinite(scale[i]) && scale[i] > 0.0f && std::isfinite(1.0f / scale[i])) continue;
    return make_error(ErrorCode::kInvalidArgument, "{}: the scale of channel {} is {}; it must be positive",
                      group.name, i, scale[i]);
  }
  return {};
}

Status apply_fold(const FoldGroup& group, std::span<const float> scale, OverlaySource& overlay) {
  NARROW_TRY(check_scales(group, scale));
  const std::vector<float> inverse = inverse_of(scale);
  const auto apply = [&](const std::vector<FoldPart>& parts, std::span<const float> factors) -> Status {
    for (const FoldPart& part : parts) {
      const Shape& shape = overlay.tensors()[part.tensor].shape;
      std::vector<float> x(static_cast<std::size_t>(shape.elements()));
      NARROW_TRY(overlay.read_f32(part.tensor, 0, shape.rows(), x.data()));
      scale_part(part, factors, 0, shape.rows(), shape.row_length(), x.data());
      NARROW_TRY(overlay.replace(part.tensor, x));
      overlay.drop(part.tensor);
    }
    return {};
  };
  NARROW_TRY(apply(group.producers, inverse));
  return apply(group.consumers, scale);
}

Status apply_fold(const FoldGroup& group, std::span<const float> scale, TransformedSource& source) {
  NARROW_TRY(check_scales(group, scale));
  const auto apply = [&](const std::vector<FoldPart>& parts, std::vector<float> factors) {
    const auto shared = std::make_shared<const std::vector<float>>(std::move(factors));
    for (const FoldPart& part : parts) {
      const std::int64_t k = source.tensors()[part.tensor].shape.row_length();
      source.add(part.tensor, TransformedSource::Reach::kRow,
                 [part, shared, k](std::int64_t begin, std::int64_t end, float* rows) {
                   scale_part(part, *shared, begin, end, k, rows);
                 });
    }
  };
  apply(group.producers, inverse_of(scale));
  apply(group.consumers, {scale.begin(), scale.end()});
  return {};
}

}  // namespace narrow::model
