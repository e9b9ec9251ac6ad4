// Rotary position settings of config.json, in the styles before and since transformers 5.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "model/arch/common.h"

namespace narrow::model {
namespace {

constexpr double kMaxFactor = 1e6;

void read_yarn(HfFields& p, ModelConfig& c) {
  RopeConfig& r = c.rope;
  r.scaling = RopeScaling::kYarn;
  const double factor = p.number({"factor"}, 1.0, kMaxFactor);
  r.factor = static_cast<float>(factor);
  r.original_context = static_cast<int>(p.integer({"original_max_position_embeddings"}, 1, INT32_MAX,
                                                  std::min<std::int64_t>(c.n_ctx_train, INT32_MAX)));
  r.beta_fast = static_cast<float>(p.number({"beta_fast"}, 1e-3, 1e6, 32.0));
  r.beta_slow = static_cast<float>(p.number({"beta_slow"}, 1e-3, 1e6, 1.0));
  // YaRN (Peng et al. 2023), equation 22, with DeepSeek's two multipliers where given.
  const auto scale = [&](double m) { return factor <= 1.0 ? 1.0 : 0.1 * m * std::log(factor) + 1.0; };
  double attention = yarn_default_attention(factor);
  const double mscale = p.number({"mscale"}, 0.0, 1e3, 0.0),
               all = p.number({"mscale_all_dim"}, 0.0, 1e3, 0.0);
  if (mscale > 0.0 && all > 0.0) attention = scale(mscale) / scale(all);
  r.attention_factor = static_cast<float>(p.number({"attention_factor"}, 0.0, 1e3, attention));
  if (!p.boolean("truncate", true)) {
    p.reject("truncate", "only rounded correction ranges are supported", ErrorCode::kUnsupported);
  }
}

void read_llama3(HfFields& p, ModelConfig& c) {
  RopeConfig& r = c.rope;
  r.scaling = RopeScaling::kLlama3;
  r.factor = static_cast<float>(p.number({"factor"}, 1.0, kMaxFactor));
  r.low_freq_factor = static_cast<float>(p.number({"low_freq_factor"}, 1e-6, kMaxFactor));
  r.high_freq_factor = static_cast<float>(p.number({"high_freq_factor"}, 1e-6, kMaxFactor));
  r.original_context = static_cast<int>(p.integer({"original_max_position_embeddings"}, 1, INT32_MAX));
  if (p.ok() && !(r.low_freq_factor < r.high_freq_factor)) {
    p.reject("low_freq_factor", fmt::format("it must be below high_freq_factor {}", r.high_freq_factor));
  }
  r.factors = llama3_rope_factors(r);
}

void read_longrope(HfFields& f, HfFields& p, ModelConfig& c) {
  RopeConfig& r = c.rope;
  r.scaling = RopeScaling::kLongRope;
  // Phi-3 keeps the original context beside rope_scaling; newer files inside.
  const auto context = std::min<std::int64_t>(c.n_ctx_train, INT32_MAX);
  const std::int64_t outer = f.integer({"original_max_position_embeddings"}, 1, INT32_MAX, context);
  r.original_context = static_cast<int>(p.integer({"original_max_position_embeddings"}, 1, INT32_MAX, outer));
  const auto read_list = [&](std::string_view key, std::vector<float>& out) {
    const std::vector<double> list = p.numbers(key);
    if (list.size() != static_cast<std::size_t>(r.dims / 2)) {
      p.reject(key, fmt::format("it must list {} numbers, not {}", r.dims / 2, list.size()));
    }
    out.assign(list.begin(), list.end());
    if (std::any_of(list.begin(), list.end(), [](double x) { return !(x > 0.0); })) {
      p.reject(key, "every factor must be above 0");
    }
  };
  read_list("long_factor", r.factors_long);
  read_list("short_factor", r.factors_short);
  const double scale = static_cast<double>(c.n_ctx_train) / r.original_context;
  r.factor = static_cast<float>(scale > 1.0 ? scale : 1.0);
  const double attention =
      scale > 1.0 ? std::sqrt(1.0 + std::log(scale) / std::log(static_cast<double>(r.original_context)))
                  : 1.0;
  r.attention_factor = static_cast<float>(p.number({"attention_factor"}, 0.0, 1e3, attention));
}

void read_scaling(HfFields& f, HfFields& p, ModelConfig& c) {
  const std::string type = p.text({"rope_type", "type"}, "default");
  if (type == "default" || type == "none" || !f.ok()) return;
  if (type == "linear") {
    c.rope.scaling = RopeScaling::kLinear;
    c.rope.factor = static_cast<float>(p.number({"factor"}, 1e-3, kMaxFactor));
  } else if (type == "yarn") {
    read_yarn(p, c);
  } else if (type == "llama3") {
    read_llama3(p, c);
  } else if (type == "longrope" || type == "su") {
    read_longrope(f, p, c);
  } else {
    p.reject(p.has("rope_type") ? "rope_type" : "type",
             "known are default, linear, yarn, llama3 and longrope", ErrorCode::kUnsupported);
  }
}

}  // namespace

double yarn_default_attention(double factor) { return factor <= 1.0 ? 1.0 : 0.1 * std::log(factor) + 1.0; }

void read_hf_rope(HfFields& f, const Arch& arch, ModelConfig& c) {
  const Json empty = Json::object();
  const Json* parameters = f.find("rope_parameters");
  const Json* scaling = f.find("rope_scaling");
  std::string_view name = "rope_parameters";
  const Json* object = parameters;
  if (!object) {
    object = scaling;
    name = "rope_scaling";
  }
  if (object && !object->is_object()) return f.reject(name, "an object is needed");
  const Json* sliding = nullptr;
  if (object && object->contains("full_attention")) {  // one set per kind of layer
    const auto it = object->find("sliding_attention");
    if (it != object->end() && it->is_object()) sliding = &*it;
    object = &(*object)["full_attention"];
    if (!object->is_object()) return f.reject(name, "'full_attention' must be an object");
  }
  HfFields p(f, object ? *object : empty, name);
  double theta = f.number({"rope_theta", "rotary_emb_base"}, 1e-3, 1e12, arch.default_theta);
  theta = p.number({"rope_theta"}, 1e-3, 1e12, theta);
  c.rope.theta = static_cast<float>(theta);
  if (c.rope.theta_local > 0.0f) {  // the architecture has a second one; traits() set its default
    double local = f.number({"rope_local_base_freq"}, 1e-3, 1e12, c.rope.theta_local);
    if (sliding) {
      HfFields s(f, *sliding, "rope_parameters.sliding_attention");
      local = s.number({"rope_theta"}, 1e-3, 1e12, local);
      if (const std::string type = s.text({"rope_type"}, "default"); type != "default") {
        s.reject("rope_type", "sliding layers are never scaled", ErrorCode::kUnsupported);
      }
    }
    c.rope.theta_local = static_cast<float>(local);
  }
  double partial = f.number({"partial_rotary_factor", "rotary_pct"}, 0.0, 1.0, arch.default_partial);
  partial = p.number({"partial_rotary_factor"}, 0.0, 1.0, partial);
  c.rope.dims = static_cast<int>(static_cast<double>(c.head_dim) * partial);
  if (f.ok() && (c.rope.dims < 2 || c.rope.dims % 2 != 0)) {
    f.fail(make_error(ErrorCode::kCorrupt,
                      "{}: {} rotary dimensions of head_dim {}: an even number is needed", f.file(),
                      c.rope.dims, c.head_dim));
    return;
  }
  read_scaling(f, p, c);
}

std::vector<float> llama3_rope_factors(const RopeConfig& r) {
  std::vector<float> out;
  for (int i = 0; i < r.dims / 2; ++i) {
    const double frequency = std::pow(static_cast<double>(r.theta), -2.0 * i / r.dims);
    const double wavelength = 2.0 * std::numbers::pi / frequency;
    const double turns = r.original_context / wavelength;  // within the original context
    double divisor = 1.0;
    if (turns < r.low_freq_factor) {
      divisor = r.factor;
    } else if (turns <= r.high_freq_factor) {
      const double smooth =
          (turns - r.low_freq_factor) / (static_cast<double>(r.high_freq_factor) - r.low_freq_factor);
      divisor = 1.0 / ((1.0 - smooth) / r.factor + smooth);
    }
    out.push_back(static_cast<float>(divisor));
  }
  return out;
}

bool recover_llama3_rope(RopeConfig& rope) {
  if (rope.factors.empty()) return false;
  RopeConfig guess = rope;
  guess.scaling = RopeScaling::kLlama3;
  guess.factor = *std::max_element(rope.factors.begin(), rope.factors.end());
  guess.low_freq_factor = 1.0f;
  guess.high_freq_factor = 4.0f;
  for (int context : {8192, 4096, 16384, 32768}) {  // every published Llama 3 has 8192
    guess.original_context = context;
    const std::vector<float> factors = llama3_rope_factors(guess);
    if (factors.size() != rope.factors.size()) return false;
    bool same = true;
    for (std::size_t i = 0; i < factors.size(); ++i) {
      same = same && std::abs(factors[i] - rope.factors[i]) <= 1e-3f * std::abs(factors[i]);
    }
    if (!same) continue;
    guess.factors = rope.factors;
    rope = guess;
    return true;
  }
  return false;
}

void write_hf_rope(const ModelConfig& c, Json& j, std::string_view theta_key) {
  const RopeConfig& r = c.rope;
  const auto list = [](const std::vector<float>& v) {
    Json out = Json::array();
    for (float x : v) out.push_back(shortest(x));
    return out;
  };
  Json p = Json::object();
  switch (r.scaling) {
    case RopeScaling::kNone:
      p["rope_type"] = "default";
      break;
    case RopeScaling::kLinear:
      p["rope_type"] = "linear";
      p["factor"] = shortest(r.factor);
      break;
    case RopeScaling::kYarn:
      p["rope_type"] = "yarn";
      p["factor"] = shortest(r.factor);
      p["original_max_position_embeddings"] = r.original_context;
      p["attention_factor"] = shortest(r.attention_factor);
      p["beta_fast"] = shortest(r.beta_fast);
      p["beta_slow"] = shortest(r.beta_slow);
      break;
    case RopeScaling::kLlama3:
      p["rope_type"] = "llama3";
      p["factor"] = shortest(r.factor);
      p["low_freq_factor"] = shortest(r.low_freq_factor);
      p["high_freq_factor"] = shortest(r.high_freq_factor);
      p["original_max_position_embeddings"] = r.original_context;
      break;
    case RopeScaling::kLongRope:
      p["rope_type"] = "longrope";
      p["long_factor"] = list(r.factors_long);
      p["short_factor"] = list(r.factors_short);
      p["attention_factor"] = shortest(r.attention_factor);
      j["original_max_position_embeddings"] = r.original_context;
      break;
  }
  // Both styles, with the same content: transformers 4 reads the flat keys, 5 reads rope_parameters.
  j[std::string(theta_key)] = shortest(r.theta);
  j["rope_scaling"] = r.scaling == RopeScaling::kNone ? Json(nullptr) : p;
  p["rope_theta"] = shortest(r.theta);
  if (r.dims != c.head_dim)
    p["partial_rotary_factor"] = static_cast<double>(r.dims) / static_cast<double>(c.head_dim);
  j["rope_parameters"] = std::move(p);
}

}  // namespace narrow::model
