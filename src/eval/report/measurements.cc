#include "eval/report/measurements.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

namespace narrow::eval::report {
namespace {

using Json = nlohmann::ordered_json;

std::string name_of(Format f) { return std::string(format_info(f).name); }

// Bytes of the UTF-8 sequence at `at`, 0 where there is none (RFC 3629: no surrogates, nothing overlong).
std::size_t sequence_length(const std::string& s, std::size_t at) {
  const auto byte = [&](std::size_t i) {
    return at + i < s.size() ? static_cast<unsigned char>(s[at + i]) : 0u;
  };
  const unsigned lead = byte(0);
  const std::size_t n = lead < 0x80   ? 1
                        : lead < 0xc2 ? 0
                        : lead < 0xe0 ? 2
                        : lead < 0xf0 ? 3
                        : lead < 0xf5 ? 4
                                      : 0;
  for (std::size_t i = 1; i < n; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  const unsigned second = byte(1);
  if (lead == 0xe0 && second < 0xa0) return 0;
  if (lead == 0xed && second > 0x9f) return 0;
  if (lead == 0xf0 && second < 0x90) return 0;
  if (lead == 0xf4 && second > 0x8f) return 0;
  return n;
}

Json json_of(const Histogram& h) { return {{"low", h.low}, {"high", h.high}, {"counts", h.counts}}; }

Json json_of(const ScoreSummary& s) {
  return {{"perplexity", s.perplexity},
          {"perplexity_se", s.perplexity_se},
          {"reference_perplexity", s.reference_perplexity},
          {"reference_perplexity_se", s.reference_perplexity_se},
          {"kl_mean", s.kl_mean},
          {"kl_se", s.kl_se},
          {"kl_median", s.kl_median},
          {"kl_p90", s.kl_p90},
          {"kl_p99", s.kl_p99},
          {"kl_p999", s.kl_p999},
          {"kl_max", s.kl_max},
          {"top1_agreement", s.top1_agreement},
          {"top1_se", s.top1_se},
          {"delta_p_rms", s.delta_p_rms}};
}

Json json_of(const std::vector<Prediction>& predictions, const std::vector<std::string>& texts) {
  Json out = Json::array();
  for (std::size_t i = 0; i < predictions.size(); ++i) {
    out.push_back({{"token", predictions[i].token}, {"text", texts[i]}, {"p", predictions[i].p}});
  }
  return out;
}

Json json_of(const CloseUp& c) {
  Json j = {{"tensor", c.tensor},
            {"type", name_of(c.type)},
            {"reference", json_of(c.reference)},
            {"stored", json_of(c.stored)}};
  if (!c.levels.empty()) {
    j["in_levels"] = json_of(c.in_levels);
    j["levels"] = c.levels;
    j["level_counts"] = c.level_counts;
    j["log10_scales"] = json_of(c.scales);
  }
  if (!c.input_rms.empty()) j["input_rms_quantiles"] = c.input_rms;
  if (!c.input_absmax.empty()) j["input_absmax_quantiles"] = c.input_absmax;
  return j;
}

Json json_of(const ModelMeasurements& m) {
  Json j = {{"name", m.name},          {"path", m.path},         {"file_bytes", m.file_bytes}, {"bpw", m.bpw},
            {"types", Json::object()}, {"on_front", m.on_front}, {"scores", json_of(m.scores)}};
  for (const auto& [type, n] : m.types) j["types"][name_of(type)] = n;
  j["stream_error"] = m.stream_error;
  j["tensors"] = Json::array();
  for (const TensorDamage& t : m.tensors) {
    j["tensors"].push_back({{"name", t.name},
                            {"type", name_of(t.type)},
                            {"reference_type", name_of(t.reference_type)},
                            {"shape", t.shape.dims()},
                            {"relative_rms", t.relative_rms},
                            {"max_abs_error", t.max_abs_error},
                            {"output_error", t.output_error},
                            {"kl_share", t.kl_share}});
  }
  j["worst_tokens"] = Json::array();
  for (const WorstToken& w : m.worst) {
    j["worst_tokens"].push_back(
        {{"position", w.position},
         {"kl", w.kl},
         {"token", w.token},
         {"before", w.before},
         {"text", w.text},
         {"after", w.after},
         {"p", w.p},
         {"reference_p", w.reference_p},
         {"predicted", json_of(w.predicted, w.predicted_text)},
         {"reference_predicted", json_of(w.reference_predicted, w.reference_predicted_text)}});
  }
  j["advice"] = Json::array();
  for (const Advice& a : m.advice) {
    j["advice"].push_back({{"tensor", a.tensor},
                           {"from", name_of(a.from)},
                           {"to", name_of(a.to)},
                           {"more_bytes", a.more_bytes},
                           {"error_now", a.error_now},
                           {"error_then", a.error_then},
                           {"kl_change", a.kl_change}});
  }
  j["close_ups"] = Json::array();
  for (const CloseUp& c : m.close_ups) j["close_ups"].push_back(json_of(c));
  return j;
}

}  // namespace

void find_front(std::vector<ModelMeasurements>& models) {
  for (ModelMeasurements& m : models) {
    m.on_front = std::none_of(models.begin(), models.end(), [&](const ModelMeasurements& o) {
      const bool no_worse = o.file_bytes <= m.file_bytes && o.scores.kl_mean <= m.scores.kl_mean;
      return no_worse && (o.file_bytes < m.file_bytes || o.scores.kl_mean < m.scores.kl_mean);
    });
  }
}

std::pair<int, std::string> layer_and_kind(const std::string& tensor) {
  constexpr std::string_view kBlock = "blk.", kWeight = ".weight";
  std::string_view rest = tensor;
  if (rest.ends_with(kWeight)) rest.remove_suffix(kWeight.size());
  if (!rest.starts_with(kBlock)) return {-1, std::string(rest)};
  int layer = 0;
  const char* begin = rest.data() + kBlock.size();
  const char* end = rest.data() + rest.size();
  const auto r = std::from_chars(begin, end, layer);
  if (r.ec != std::errc() || r.ptr == end || *r.ptr != '.') return {-1, std::string(rest)};
  return {layer, std::string(r.ptr + 1, end)};
}

std::string visible_text(const std::string& bytes) {
  std::string out;
  for (std::size_t i = 0; i < bytes.size();) {
    const std::size_t n = sequence_length(bytes, i);
    const auto c = static_cast<unsigned char>(bytes[i]);
    if (c == '\n') {
      out += "\u21b5";  // a bent arrow
    } else if (n == 0 || (n == 1 && (c < 0x20 || c == 0x7f))) {
      out += fmt::format("\\x{:02x}", c);
    } else {
      out.append(bytes, i, n);
    }
    i += std::max<std::size_t>(1, n);
  }
  return out;
}

std::string to_json(const Measurements& m) {
  Json j = {{"reference",
             {{"path", m.reference_path},
              {"name", m.title},
              {"architecture", m.architecture},
              {"file_bytes", m.reference_bytes},
              {"bpw", m.reference_bpw}}},
            {"text", m.text_path},
            {"statistics", m.statistics_path},
            {"protocol", m.protocol},
            {"windows", m.windows},
            {"scored_tokens", m.scored_tokens},
            {"models", Json::array()}};
  for (const ModelMeasurements& one : m.models) j["models"].push_back(json_of(one));
  return j.dump(-1, ' ', true, Json::error_handler_t::replace);
}

}  // namespace narrow::eval::report
