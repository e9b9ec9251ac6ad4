#include "pipeline/mixes.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <numeric>

namespace narrow::pipeline {
namespace {

using enum Format;
using enum Role;
using enum When;
using enum Needs;

constexpr MixRule kRulesQ2K[] = {{kAttnValue, kSharedKv, kQ4_K},
                                 {kAttnValue, kAlways, kQ3_K},
                                 {kFfnDown, kAlways, kQ3_K},
                                 {kAttnOutput, kEightExperts, kQ5_K},
                                 {kAttnOutput, kAlways, kQ3_K}};
constexpr MixRule kRulesQ2KS[] = {{kAttnValue, kSharedKv, kQ4_K}, {kFfnDown, kFirstEighth, kQ4_K}};
constexpr MixRule kRulesQ3KS[] = {{kAttnOutput, kEightExperts, kQ5_K}};
constexpr MixRule kRulesQ3KM[] = {{kAttnValue, kFirstTwo, kQ5_K},      {kAttnValue, kAlways, kQ4_K},
                                  {kFfnDown, kFirstSixteenth, kQ5_K},  {kFfnDown, kAlways, kQ4_K},
                                  {kAttnOutput, kEightExperts, kQ5_K}, {kAttnOutput, kAlways, kQ4_K}};
constexpr MixRule kRulesQ3KL[] = {{kAttnValue, kAlways, kQ5_K},
                                  {kFfnDown, kAlways, kQ5_K},
                                  {kAttnOutput, kEightExperts, kQ3_K},
                                  {kAttnOutput, kAlways, kQ5_K}};
constexpr MixRule kRulesQ4KS[] = {
    {kAttnValue, kFirstFour, kQ5_K}, {kFfnDown, kFirstEighth, kQ5_K}, {kAttnOutput, kEightExperts, kQ5_K}};
constexpr MixRule kRulesQ4KM[] = {
    {kAttnValue, kSpread, kQ6_K}, {kFfnDown, kSpread, kQ6_K}, {kAttnOutput, kEightExperts, kQ5_K}};
constexpr MixRule kRulesQ5KM[] = {{kAttnValue, kSpread, kQ6_K}, {kFfnDown, kSpread, kQ6_K}};
constexpr MixRule kRulesIQ4[] = {{kAttnValue, kSharedKv, kQ5_K},
                                 {kFfnDown, kFirstEighth, kQ5_K, kNoImportance},
                                 {kAttnOutput, kEightExperts, kQ5_K}};
constexpr MixRule kRulesQ40[] = {{kFfnDown, kFirstEighth, kQ4_1, kImportance}};
constexpr MixRule kRulesQ50[] = {{kFfnDown, kFirstEighth, kQ5_1, kImportance}};
constexpr MixRule kRulesIQ3M[] = {{kAttnValue, kAlways, kQ4_K},
                                  {kFfnDown, kFirstEighth, kQ4_K},
                                  {kFfnDown, kSpreadOfEightExperts, kQ4_K},
                                  {kAttnOutput, kEightExperts, kQ5_K},
                                  {kAttnOutput, kAlways, kQ4_K}};
constexpr MixRule kRulesIQ3S[] = {{kAttnValue, kSharedKv, kQ4_K}, {kAttnOutput, kEightExperts, kQ5_K}};
constexpr MixRule kRulesIQ3XS[] = {{kAttnValue, kSharedKv, kQ4_K},  {kAttnKey, kAlways, kIQ3_XXS},
                                   {kAttnQuery, kAlways, kIQ3_XXS}, {kFfnGate, kMiddle, kIQ3_XXS},
                                   {kFfnUp, kMiddle, kIQ3_XXS},     {kAttnOutput, kEightExperts, kQ5_K}};
constexpr MixRule kRulesIQ3XXS[] = {{kEmbedding, kAlways, kIQ3_S},
                                    {kAttnValue, kSharedKv, kQ4_K},
                                    {kAttnValue, kAlways, kIQ3_S, kNoImportance},
                                    {kAttnKey, kAlways, kIQ2_S},
                                    {kAttnQuery, kAlways, kIQ2_S},
                                    {kFfnDown, kFirstEighth, kQ4_K, kNoImportance},
                                    {kFfnDown, kAlways, kQ3_K, kNoImportance},
                                    {kAttnOutput, kEightExperts, kQ5_K},
                                    {kAttnOutput, kAlways, kIQ3_S}};
constexpr MixRule kRulesIQ2S[] = {{kEmbedding, kAlways, kIQ3_S},       {kAttnValue, kSharedKv, kQ4_K},
                                  {kAttnValue, kFourExperts, kQ4_K},   {kAttnValue, kAlways, kIQ3_S},
                                  {kAttnKey, kEightExperts, kQ4_K},    {kFfnDown, kFirstEighth, kIQ3_S},
                                  {kAttnOutput, kEightExperts, kQ5_K}, {kAttnOutput, kAlways, kIQ3_S}};
constexpr MixRule kRulesIQ2XS[] = {{kEmbedding, kAlways, kQ2_K},       {kAttnValue, kSharedKv, kQ4_K},
                                   {kAttnValue, kFourExperts, kQ4_K},  {kAttnValue, kAlways, kQ2_K},
                                   {kAttnKey, kEightExperts, kQ4_K},   {kFfnDown, kFirstEighth, kQ2_K},
                                   {kAttnOutput, kEightExperts, kQ5_K}};
constexpr MixRule kRulesIQ1[] = {{kEmbedding, kAlways, kQ2_K},        {kAttnValue, kSharedKv, kQ4_K},
                                 {kAttnValue, kFourExperts, kQ4_K},   {kAttnValue, kAlways, kQ2_K},
                                 {kAttnKey, kEightExperts, kQ4_K},    {kFfnDown, kFirstEighth, kQ2_K},
                                 {kAttnOutput, kEightExperts, kQ5_K}, {kAttnOutput, kAlways, kIQ2_XXS}};
constexpr MixRule kRulesTernary[] = {{kEmbedding, kAlways, kQ4_K}};

constexpr std::uint32_t kMxfp4FileType = 38;
constexpr std::string_view kMxfp4Moe = "mxfp4_moe";

constexpr Mix kMixes[] = {
    {"f32", 0, kF32, {}, "32-bit floats"},
    {"f16", 1, kF16, {}, "16-bit floats, 11-bit precision"},
    {"bf16", 32, kBF16, {}, "16-bit floats with the range of f32, 8-bit precision"},
    {"q8_0", 7, kQ8_0, {}, "8 bits; hardly any loss"},
    {"q6_k", 18, kQ6_K, {}, "6 bits; very low loss"},
    {"q5_k_m", 17, kQ5_K, kRulesQ5KM, "5 bits, q6_k for half of attn_v and ffn_down; low loss"},
    {"q5_k", 17, kQ5_K, kRulesQ5KM, "alias of q5_k_m", "q5_k_m"},
    {"q5_k_s", 16, kQ5_K, {}, "5 bits throughout"},
    {"q5_1", 9, kQ5_1, {}, "5 bits with minimum, blocks of 32"},
    {"q5_0", 8, kQ5_0, kRulesQ50, "5 bits, blocks of 32"},
    {"q4_k_m", 15, kQ4_K, kRulesQ4KM, "4 bits, q6_k for half of attn_v and ffn_down; the usual choice"},
    {"q4_k", 15, kQ4_K, kRulesQ4KM, "alias of q4_k_m", "q4_k_m"},
    {"q4_k_s", 14, kQ4_K, kRulesQ4KS, "4 bits, q5_k for the first layers"},
    {"q4_1", 3, kQ4_1, {}, "4 bits with minimum, blocks of 32"},
    {"q4_0", 2, kQ4_0, kRulesQ40, "4 bits, blocks of 32; fastest on many machines"},
    {"iq4_nl", 25, kIQ4_NL, kRulesIQ4, "4 bits, non-linear levels, blocks of 32"},
    {"iq4_xs", 30, kIQ4_XS, kRulesIQ4, "4.25 bits, non-linear levels"},
    {"mxfp4", kMxfp4FileType, kMXFP4, {}, "4-bit floats with shared exponents (OCP MX), q8_0 head"},
    {kMxfp4Moe, kMxfp4FileType, kMXFP4, {}, "mxfp4 for experts, q8_0 for everything else"},
    {"q3_k_l", 13, kQ3_K, kRulesQ3KL, "3 bits, q5_k for attn_v, attn_output and ffn_down"},
    {"q3_k_m", 12, kQ3_K, kRulesQ3KM, "3 bits, q4_k and q5_k for attn_v, attn_output and ffn_down"},
    {"q3_k", 12, kQ3_K, kRulesQ3KM, "alias of q3_k_m", "q3_k_m"},
    {"q3_k_s", 11, kQ3_K, kRulesQ3KS, "3 bits throughout"},
    {"q2_k", 10, kQ2_K, kRulesQ2K, "2 bits, q3_k for attn_v, attn_output and ffn_down; high loss"},
    {"q2_k_s", 21, kQ2_K, kRulesQ2KS, "2 bits, q4_k for the first layers; very high loss"},
    {"tq2_0", 37, kTQ2_0, kRulesTernary, "ternary, 2 bits; for models trained to be ternary"},
    {"tq1_0", 36, kTQ1_0, kRulesTernary, "ternary, 1.69 bits; for models trained to be ternary"},
    {"iq3_m", 27, kIQ3_S, kRulesIQ3M, "3.44 bits from a codebook, q4_k for attn_v and attn_output"},
    {"iq3_s", 26, kIQ3_S, kRulesIQ3S, "3.44 bits from a codebook"},
    {"iq3_xs", 22, kIQ3_S, kRulesIQ3XS, "3.3 bits from codebooks; calibrate"},
    {"iq3_xxs", 23, kIQ3_XXS, kRulesIQ3XXS,
     "3.06 bits from a codebook, iq2_s for attn_q and attn_k; calibrate"},
    {"iq2_m", 29, kIQ2_S, kRulesIQ2S,
     "2.56 bits from a codebook, iq3_s for attn_v and attn_output; calibrate"},
    {"iq2_s", 28, kIQ2_XS, kRulesIQ2S,
     "2.31 bits from a codebook, iq3_s for attn_v and attn_output; calibrate"},
    {"iq2_xs", 20, kIQ2_XS, kRulesIQ2XS, "2.31 bits from a codebook; high loss, calibrate"},
    {"iq2_xxs", 19, kIQ2_XXS, kRulesIQ2XS, "2.06 bits from a codebook; very high loss, calibrate"},
    {"iq1_m", 31, kIQ1_M, kRulesIQ1, "1.75 bits, ternary codebook; for very large models, calibrate"},
    {"iq1_s", 24, kIQ1_S, kRulesIQ1, "1.56 bits, ternary codebook; for very large models, calibrate"},
};

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

std::string lower(std::string_view s) {
  std::string out(s);
  for (char& c : out) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return out;
}

bool spread(std::int64_t i, std::int64_t n) { return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2; }

// `i` of `n`: which of the layers that have such a tensor this one is.
bool holds(When when, std::int64_t i, std::int64_t n, const ModelTraits& t) {
  switch (when) {
    case kAlways:
      return true;
    case kFirstTwo:
      return i < 2;
    case kFirstFour:
      return i < 4;
    case kFirstEighth:
      return i < n / 8;
    case kFirstSixteenth:
      return i < n / 16;
    case kSpread:
      return spread(i, n);
    case kMiddle:
      return i >= n / 8 && i < 7 * n / 8;
    case kSharedKv:
      return t.n_head_kv > 0 && t.n_head / t.n_head_kv >= 4;
    case kFourExperts:
      return t.n_expert >= 4;
    case kEightExperts:
      return t.n_expert == 8;
    case kSpreadOfEightExperts:
      return t.n_expert == 8 && spread(i, n);
  }
  return false;
}

bool satisfied(Needs needs, bool importance) {
  return needs == kNothing || (needs == kImportance) == importance;
}

// The mixes around 2 bits and below: their rules are all there is.
bool is_lowest(const Mix& mix) {
  return mix.base == kIQ1_S || mix.base == kIQ1_M || mix.base == kIQ2_XXS || mix.base == kIQ2_XS ||
         mix.base == kIQ2_S;
}

// Heads and tied embeddings decide every logit directly, so they keep more bits than the mix's base.
Format head_format(const Mix& mix, std::int64_t row_length) {
  if (mix.base == kMXFP4 || mix.base == kQ8_0 || row_length % format_info(mix.base).block_size != 0)
    return kQ8_0;
  return is_lowest(mix) || mix.base == kIQ3_XXS ? kQ5_K : kQ6_K;
}

// Llama 2 70B's shape: eight query heads share each value head, so more bits there cost next to nothing.
bool is_llama_70b(const ModelTraits& t) {
  return t.arch == "llama" && t.n_layer == 80 && t.n_head != t.n_head_kv;
}

Format layer_format(const Mix& mix, Role role, std::int64_t i, std::int64_t n, const ModelTraits& traits,
                    bool importance) {
  Format f = mix.base;
  for (const MixRule& rule : mix.rules) {
    if (rule.role == role && holds(rule.when, i, n, traits) && satisfied(rule.needs, importance)) {
      f = rule.format;
      break;
    }
  }
  if (is_lowest(mix)) return f;
  if (role == kAttnValue && is_llama_70b(traits) && (f == kQ3_K || f == kQ4_K)) f = kQ5_K;
  // With eight experts attention is a small share of the weights.
  if ((role == kAttnValue || role == kAttnKey) && traits.n_expert == 8) f = kQ8_0;
  return f;
}

}  // namespace

std::int64_t layer_of(std::string_view name) {
  constexpr std::string_view kPrefix = "blk.";
  if (!name.starts_with(kPrefix)) return -1;
  std::int64_t layer = -1;
  const char* end = name.data() + name.size();
  const auto r = std::from_chars(name.data() + kPrefix.size(), end, layer);
  return r.ec == std::errc() && r.ptr != end && *r.ptr == '.' && layer >= 0 ? layer : -1;
}

Role tensor_role(std::string_view name) {
  if (name == "output.weight") return kHead;
  if (name == "token_embd.weight" || name == "per_layer_token_embd.weight") return kEmbedding;
  if (contains(name, "attn_qkv.weight") || contains(name, "attn_kv_b.weight") ||
      contains(name, "attn_v.weight")) {
    return kAttnValue;
  }
  if (contains(name, "attn_k.weight")) return kAttnKey;
  if (contains(name, "attn_q.weight")) return kAttnQuery;
  if (contains(name, "attn_output.weight")) return kAttnOutput;
  if (contains(name, "ffn_down")) return kFfnDown;
  if (contains(name, "ffn_gate")) return kFfnGate;
  if (contains(name, "ffn_up")) return kFfnUp;
  return kOther;
}

std::span<const Mix> all_mixes() { return kMixes; }

const Mix* find_mix(std::string_view name) {
  const std::string wanted = lower(name);
  const auto it =
      std::find_if(std::begin(kMixes), std::end(kMixes), [&](const Mix& m) { return m.name == wanted; });
  return it == std::end(kMixes) ? nullptr : it;
}

Result<const Mix*> require_mix(std::string_view name) {
  const Mix* mix = find_mix(name);
  if (mix != nullptr) return mix;
  std::vector<std::string_view> known;
  for (const Mix& m : kMixes) known.push_back(m.name);
  return make_error(ErrorCode::kInvalidArgument, "unknown type '{}'; known types: {}", name,
                    fmt::join(known, ", "));
}

std::vector<Format> mix_types(const Mix& mix, const ModelTraits& traits, std::span<const TensorInfo> tensors,
                              bool tied, bool importance) {
  std::vector<Format> types(tensors.size(), mix.base);
  if (format_info(mix.base).kind == FormatKind::kFloat) return types;

  // Exceptions count the layers that have such a tensor, in order of the layers.
  std::vector<std::size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    const std::int64_t la = layer_of(tensors[a].name), lb = layer_of(tensors[b].name);
    return la != lb ? la < lb : tensors[a].name < tensors[b].name;
  });
  const std::int64_t n_value = std::count_if(
      tensors.begin(), tensors.end(), [](const TensorInfo& t) { return tensor_role(t.name) == kAttnValue; });
  std::int64_t i_value = 0, i_down = 0;
  for (const std::size_t at : order) {
    const TensorInfo& t = tensors[at];
    const Role role = tensor_role(t.name);
    if (role == kHead || (role == kEmbedding && tied)) {
      types[at] = head_format(mix, t.shape.row_length());
    } else if (mix.name == kMxfp4Moe) {
      types[at] = t.shape.rank() > 2 ? kMXFP4 : kQ8_0;
    } else if (role == kAttnValue) {
      types[at] = layer_format(mix, role, i_value++, n_value, traits, importance);
    } else if (role == kFfnDown) {
      // A mixture of experts has several such tensors in a layer; there the name says the layer.
      const std::int64_t i = traits.n_expert > 1 && !is_lowest(mix) ? layer_of(t.name) : i_down;
      ++i_down;
      types[at] = layer_format(mix, role, i, traits.n_layer, traits, importance);
    } else {
      types[at] = layer_format(mix, role, std::max<std::int64_t>(0, layer_of(t.name)), traits.n_layer, traits,
                               importance);
    }
  }
  return types;
}

Format fitting_format(Format wanted, std::int64_t row_length) {
  const auto fits = [&](Format f) { return row_length % format_info(f).block_size == 0; };
  if (fits(wanted)) return wanted;
  Format next = wanted;
  switch (wanted) {
    case kQ2_K:
    case kQ3_K:
    case kTQ1_0:
    case kTQ2_0:
      next = kQ4_0;
      break;
    case kQ4_K:
      next = kQ5_0;
      break;
    case kQ5_K:
      next = kQ5_1;
      break;
    case kQ6_K:
      next = kQ8_0;
      break;
    case kIQ1_S:
    case kIQ1_M:
    case kIQ2_XXS:
    case kIQ2_XS:
    case kIQ2_S:
    case kIQ3_XXS:
    case kIQ3_S:
    case kIQ4_XS:
      next = kIQ4_NL;
      break;
    default:
      break;
  }
  return fits(next) ? next : kF16;
}

double typical_bpw(const Mix& mix) {
  constexpr std::int64_t kEmbd = 4096, kKv = 1024, kFf = 14336, kVocab = 128256, kLayers = 32;
  const ModelTraits traits{"llama", kLayers, 32, 8, 0};
  std::vector<TensorInfo> tensors = {{"token_embd.weight", kF32, {kVocab, kEmbd}},
                                     {"output.weight", kF32, {kVocab, kEmbd}}};
  for (std::int64_t i = 0; i < kLayers; ++i) {
    const auto add = [&](std::string_view part, std::int64_t n, std::int64_t k) {
      tensors.push_back({fmt::format("blk.{}.{}.weight", i, part), kF32, {n, k}});
    };
    add("attn_q", kEmbd, kEmbd);
    add("attn_k", kKv, kEmbd);
    add("attn_v", kKv, kEmbd);
    add("attn_output", kEmbd, kEmbd);
    add("ffn_gate", kFf, kEmbd);
    add("ffn_up", kFf, kEmbd);
    add("ffn_down", kEmbd, kFf);
  }
  const std::vector<Format> types = mix_types(mix, traits, tensors, false);
  const double norm_weights = static_cast<double>((2 * kLayers + 1) * kEmbd);
  double bits = 32.0 * norm_weights, weights = norm_weights;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const auto n = static_cast<double>(tensors[i].shape.elements());
    bits += n * format_info(types[i]).bpw();
    weights += n;
  }
  return bits / weights;
}

}  // namespace narrow::pipeline
