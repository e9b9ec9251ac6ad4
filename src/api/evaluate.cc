#include "narrow/evaluate.h"

#include <chrono>
#include <nlohmann/json.hpp>

#include "api/engine.h"
#include "api/guard.h"
#include "api/loaded.h"
#include "base/atomic_file.h"
#include "base/cpu_features.h"
#include "eval/evaluate.h"
#include "eval/speed.h"
#include "eval/summary.h"

namespace narrow {
namespace {

using Clock = std::chrono::steady_clock;

Result<EvaluateReport> evaluate_impl(const EvaluateOptions& o, ProgressSink& progress) {
  const auto start = Clock::now();
  NARROW_ASSIGN(const std::string text, read_text_file(o.text, kMaxTextBytes));
  NARROW_ASSIGN(const runtime::LoadOptions load, api::load_options(o.engine));
  NARROW_ASSIGN(const api::OpenedModel model, api::open_model(o.model, load));
  const std::int64_t n_vocab = model.weights->config().n_vocab;
  NARROW_ASSIGN(const auto tokenizer, api::open_tokenizer(o.model, n_vocab));
  NARROW_ASSIGN(const std::vector<text::TokenId> ids, tokenizer->encode(text));

  api::OpenedModel reference;
  if (!o.reference.empty()) {
    NARROW_ASSIGN(reference, api::open_model(o.reference));
    const std::int64_t other = reference.weights->config().n_vocab;
    if (other != n_vocab) {
      return make_error(
          ErrorCode::kInvalidArgument,
          "{} has {} tokens in its vocabulary and {} has {}: KL divergence needs two models with the same",
          o.model.string(), n_vocab, o.reference.string(), other);
    }
    NARROW_ASSIGN(const auto reference_tokenizer, api::open_tokenizer(o.reference, other));
    NARROW_ASSIGN(const std::vector<text::TokenId> reference_ids, reference_tokenizer->encode(text));
    if (ids != reference_ids) {
      return make_error(
          ErrorCode::kInvalidArgument,
          "{} and {} cut the text into different tokens: KL divergence needs two models with the same "
          "tokenizer",
          o.model.string(), o.reference.string());
    }
  }

  eval::Protocol protocol;
  protocol.n_ctx = o.n_ctx;
  protocol.max_windows = o.windows;
  protocol.stride = o.stride;
  if (tokenizer->spec().add_bos) protocol.bos = tokenizer->spec().bos;
  NARROW_ASSIGN(const auto windows, eval::cut_windows(static_cast<std::int64_t>(ids.size()), protocol));

  NARROW_ASSIGN(const runtime::SessionOptions session_options, api::session_options(o.engine, o.n_ctx));
  NARROW_ASSIGN(auto session, runtime::Session::create(model.weights, session_options));
  std::unique_ptr<runtime::Session> reference_session;
  if (reference.weights) {
    runtime::SessionOptions plain;
    plain.n_ctx = o.n_ctx;
    NARROW_ASSIGN(reference_session, runtime::Session::create(reference.weights, plain));
  }
  NARROW_ASSIGN(const eval::Evaluation e,
                eval::evaluate(*session, n_vocab, reference_session.get(), ids, protocol, progress));

  EvaluateReport r;
  r.protocol = eval::describe(protocol, static_cast<std::int64_t>(ids.size()), windows.size());
  if (o.engine.compute != EngineOptions().compute) r.protocol += ", compute " + o.engine.compute;
  r.windows = static_cast<std::int64_t>(e.windows);
  r.scored_tokens = static_cast<std::int64_t>(e.scores.size());
  const eval::ScoreSummary s = eval::summarize(e.scores, reference.weights != nullptr);
  r.perplexity = s.perplexity;
  r.perplexity_se = s.perplexity_se;
  if (reference.weights) {
    r.divergence = {s.kl_mean,
                    s.kl_se,
                    s.kl_median,
                    s.kl_p90,
                    s.kl_p99,
                    s.kl_p999,
                    s.kl_max,
                    s.top1_agreement,
                    s.top1_se,
                    s.reference_perplexity,
                    s.reference_perplexity_se,
                    s.delta_p_rms};
    r.reference_bytes = reference.source->file_bytes();
  }
  r.model_bytes = model.source->file_bytes();
  r.bpw = api::bits_per_weight(*model.source);
  r.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  r.tokens_per_s = static_cast<double>(e.tokens_fed) / r.seconds;
  r.peak_memory_bytes = peak_resident_bytes();
  return r;
}

Result<SpeedReport> measure_speed_impl(const SpeedOptions& o, ProgressSink& progress) {
  NARROW_ASSIGN(const runtime::LoadOptions load, api::load_options(o.engine));
  NARROW_ASSIGN(const api::OpenedModel model, api::open_model(o.model, load));
  NARROW_ASSIGN(const runtime::SessionOptions session, api::session_options(o.engine, 0));
  NARROW_ASSIGN(const eval::Speed s,
                eval::measure_speed(model.weights, session, o.prefill, o.decode, o.repetitions, progress));
  SpeedReport r;
  r.prefill_tokens_per_s = s.prefill.median;
  r.prefill_spread = s.prefill.spread;
  r.decode_tokens_per_s = s.decode.median;
  r.decode_spread = s.decode.spread;
  r.cache_bytes = s.cache_bytes;
  r.model_bytes = model.source->file_bytes();
  r.peak_memory_bytes = peak_resident_bytes();
  return r;
}

}  // namespace

Result<EvaluateReport> evaluate(const EvaluateOptions& options, ProgressSink& progress) {
  return api::guarded([&] { return evaluate_impl(options, progress); });
}

Result<SpeedReport> measure_speed(const SpeedOptions& options, ProgressSink& progress) {
  return api::guarded([&] { return measure_speed_impl(options, progress); });
}

std::string EvaluateReport::to_json() const {
  nlohmann::ordered_json j = {
      {"protocol", protocol},           {"windows", windows},
      {"scored_tokens", scored_tokens}, {"perplexity", perplexity},
      {"perplexity_se", perplexity_se},
  };
  if (divergence) {
    const Divergence& d = *divergence;
    j["kl_mean"] = d.kl_mean;
    j["kl_se"] = d.kl_se;
    j["kl_median"] = d.kl_median;
    j["kl_p90"] = d.kl_p90;
    j["kl_p99"] = d.kl_p99;
    j["kl_p999"] = d.kl_p999;
    j["kl_max"] = d.kl_max;
    j["top1_agreement"] = d.top1_agreement;
    j["top1_se"] = d.top1_se;
    j["reference_perplexity"] = d.reference_perplexity;
    j["reference_perplexity_se"] = d.reference_perplexity_se;
    j["delta_p_rms"] = d.delta_p_rms;
    j["reference_bytes"] = reference_bytes;
  }
  j["model_bytes"] = model_bytes;
  j["bpw"] = bpw;
  j["seconds"] = seconds;
  j["tokens_per_s"] = tokens_per_s;
  j["peak_memory_bytes"] = peak_memory_bytes;
  return j.dump(2);
}

std::string SpeedReport::to_json() const {
  const nlohmann::ordered_json j = {
      {"prefill_tokens_per_s", prefill_tokens_per_s},
      {"prefill_spread", prefill_spread},
      {"decode_tokens_per_s", decode_tokens_per_s},
      {"decode_spread", decode_spread},
      {"model_bytes", model_bytes},
      {"cache_bytes", cache_bytes},
      {"peak_memory_bytes", peak_memory_bytes},
  };
  return j.dump(2);
}

}  // namespace narrow
