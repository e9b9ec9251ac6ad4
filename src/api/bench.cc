#include "narrow/bench.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "api/engine.h"
#include "api/guard.h"
#include "api/loaded.h"
#include "base/cpu_features.h"
#include "base/thread_team.h"
#include "eval/limits.h"
#include "eval/speed.h"
#include "kernels/dispatch.h"

namespace narrow {
namespace {

Result<std::vector<eval::SpeedTest>> tests_of(const BenchOptions& o) {
  std::vector<eval::SpeedTest> tests;
  for (const auto& [option, counts] :
       {std::pair("--prefill", &o.prefill), std::pair("--decode", &o.decode)}) {
    for (const std::int64_t n : *counts) {
      if (n < 0) return make_error(ErrorCode::kInvalidArgument, "{} {}: at least 0 needed", option, n);
      if (n == 0) continue;
      eval::SpeedTest t;
      t.depth = o.depth;
      if (counts == &o.prefill) {
        t.n_prompt = n;
      } else {
        t.n_gen = n;
        t.batch = o.batch;
      }
      tests.push_back(t);
    }
  }
  if (tests.empty()) {
    return make_error(ErrorCode::kInvalidArgument,
                      "nothing to measure: --prefill and --decode are both 0 or empty");
  }
  return tests;
}

// The stored format of most weights.
std::string main_type(std::span<const TensorInfo> tensors) {
  std::map<std::string_view, std::int64_t> weights;
  for (const TensorInfo& t : tensors) weights[format_info(t.format).name] += t.shape.elements();
  const auto most = std::max_element(weights.begin(), weights.end(),
                                     [](const auto& a, const auto& b) { return a.second < b.second; });
  return most == weights.end() ? "" : std::string(most->first);
}

// Bytes of keys and values that a decoded token reads, on average over the test: the cache at its end, as far
// as earlier tokens saw less of it.
double cache_bytes_per_token(const model::ModelConfig& config, const eval::SpeedResult& r) {
  const eval::SpeedTest& t = r.test;
  double attended = 0;
  for (std::int64_t i = 0; i < t.n_gen; ++i) attended += eval::attended_positions(config, t.depth + i);
  attended /= static_cast<double>(t.n_gen);
  const double at_end = eval::attended_positions(config, t.depth + t.n_gen - 1);
  return static_cast<double>(r.cache_bytes) / static_cast<double>(t.batch) * attended / at_end;
}

BenchResult result_of(const eval::SpeedResult& r, const model::ModelSource& source,
                      const BenchLimits& limits) {
  const eval::SpeedTest& t = r.test;
  BenchResult out;
  out.test = t.name();
  out.n_prompt = t.n_prompt;
  out.n_gen = t.n_gen;
  out.depth = t.depth;
  out.batch = t.batch;
  out.tokens_per_s = r.rate.median;
  out.spread = r.rate.spread;
  out.ms_per_token = 1000 / r.rate.median;
  out.samples = r.tokens_per_s;
  out.cache_bytes = r.cache_bytes;

  // One pass over the weights serves a step of all sequences, or a whole prefill, of which only the last
  // token's logits are computed.
  const std::int64_t rows = t.batch * std::max<std::int64_t>(t.n_prompt, 1);
  const eval::PassCost pass = eval::pass_cost(source.tensors(), source.config(), rows);
  const double head_rows = t.n_prompt > 0 ? 1.0 / static_cast<double>(t.n_prompt) : 1.0;
  out.operations_per_token = 2 * (pass.layer_products + pass.head_products * head_rows);
  out.bytes_per_token = pass.weight_bytes / static_cast<double>(rows);
  if (t.n_gen > 0) out.bytes_per_token += cache_bytes_per_token(source.config(), r);
  const double arithmetic = limits.int8_operations_per_s / out.operations_per_token;
  const double memory = limits.model_bytes_per_s / out.bytes_per_token;
  out.limit = memory < arithmetic ? "memory" : "arithmetic";
  out.limit_tokens_per_s = std::min(memory, arithmetic);
  out.of_limit = out.tokens_per_s / out.limit_tokens_per_s;
  return out;
}

Result<BenchReport> bench_impl(const BenchOptions& o, ProgressSink& progress) {
  if (o.depth < 0) return make_error(ErrorCode::kInvalidArgument, "--depth {}: at least 0 needed", o.depth);
  if (o.batch < 1) return make_error(ErrorCode::kInvalidArgument, "--batch {}: at least 1 needed", o.batch);
  if (o.repetitions < 1) {
    return make_error(ErrorCode::kInvalidArgument, "--repetitions {}: at least 1 needed", o.repetitions);
  }
  NARROW_ASSIGN(const std::vector<eval::SpeedTest> tests, tests_of(o));
  NARROW_ASSIGN(const runtime::LoadOptions load, api::load_options(o.engine));
  NARROW_ASSIGN(const runtime::SessionOptions session, api::session_options(o.engine, 0));
  NARROW_ASSIGN(const api::OpenedModel model, api::open_model(o.model, load));
  const model::ModelConfig& config = model.source->config();
  NARROW_ASSIGN(const std::vector<eval::SpeedResult> speed,
                eval::measure_tests(model.weights, session, tests, o.repetitions, progress));

  BenchReport r;
  r.peak_rss_bytes = peak_resident_bytes();  // before the limits' buffers count
  r.model = o.model.has_filename() ? o.model.filename().string() : o.model.parent_path().filename().string();
  r.name = config.name;
  r.architecture = config.arch;
  r.type = main_type(model.source->tensors());
  r.bpw = api::bits_per_weight(*model.source);
  r.size_bytes = model.source->file_bytes();
  r.threads = thread_count();
  r.isa = kernels::kernels().name;
  r.repetitions = o.repetitions;
  r.engine = o.engine;
  for (const eval::SpeedResult& s : speed) r.cache_bytes = std::max(r.cache_bytes, s.cache_bytes);

  const double weight_bytes = eval::pass_cost(model.source->tensors(), config, 1).weight_bytes;
  const eval::Limits limits = eval::measure_limits(static_cast<std::uint64_t>(weight_bytes));
  r.limits.int8_operations_per_s = limits.int8_operations_per_s;
  r.limits.memory_bytes_per_s = limits.memory_bytes_per_s;
  r.limits.memory_buffer_bytes = limits.memory_buffer_bytes;
  r.limits.model_bytes_per_s = limits.model_bytes_per_s;
  r.limits.model_buffer_bytes = limits.model_buffer_bytes;
  for (const eval::SpeedResult& s : speed) r.results.push_back(result_of(s, *model.source, r.limits));
  return r;
}

// RFC 4180.
std::string csv_cell(const std::string& s) {
  if (s.find_first_of(",\"\r\n") == std::string::npos) return s;
  std::string out = "\"";
  for (const char c : s) out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + "\"";
}

}  // namespace

Result<BenchReport> bench(const BenchOptions& options, ProgressSink& progress) {
  return api::guarded([&] { return bench_impl(options, progress); });
}

std::string BenchReport::to_json() const {
  nlohmann::ordered_json j = {
      {"model", model},
      {"name", name},
      {"architecture", architecture},
      {"type", type},
      {"bpw", bpw},
      {"size_bytes", size_bytes},
      {"threads", threads},
      {"isa", isa},
      {"repetitions", repetitions},
      {"compute", engine.compute},
      {"cache_type_k", engine.cache_type_k.empty() ? "default" : engine.cache_type_k},
      {"cache_type_v", engine.cache_type_v.empty() ? "default" : engine.cache_type_v},
      {"rotate_keys", engine.rotate_keys},
      {"cache_bytes", cache_bytes},
      {"peak_rss_bytes", peak_rss_bytes},
      {"limits",
       {{"int8_operations_per_s", limits.int8_operations_per_s},
        {"memory_bytes_per_s", limits.memory_bytes_per_s},
        {"memory_buffer_bytes", limits.memory_buffer_bytes},
        {"model_bytes_per_s", limits.model_bytes_per_s},
        {"model_buffer_bytes", limits.model_buffer_bytes}}},
      {"results", nlohmann::ordered_json::array()},
  };
  for (const BenchResult& r : results) {
    j["results"].push_back({{"test", r.test},
                            {"n_prompt", r.n_prompt},
                            {"n_gen", r.n_gen},
                            {"depth", r.depth},
                            {"batch", r.batch},
                            {"repetitions", repetitions},
                            {"tokens_per_s", r.tokens_per_s},
                            {"spread", r.spread},
                            {"ms_per_token", r.ms_per_token},
                            {"samples", r.samples},
                            {"cache_bytes", r.cache_bytes},
                            {"bytes_per_token", r.bytes_per_token},
                            {"operations_per_token", r.operations_per_token},
                            {"limit", r.limit},
                            {"limit_tokens_per_s", r.limit_tokens_per_s},
                            {"of_limit", r.of_limit}});
  }
  // The model's name may be any bytes.
  return j.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

std::string BenchReport::to_csv() const {
  std::string out =
      "model,type,size_bytes,threads,isa,test,n_prompt,n_gen,depth,batch,repetitions,tokens_per_s,spread,"
      "ms_per_token,limit,limit_tokens_per_s,of_limit,cache_bytes,peak_rss_bytes\n";
  for (const BenchResult& r : results) {
    out += fmt::format("{},{},{},{},{},{},{},{},{},{},{},{:.6g},{:.6g},{:.6g},{},{:.6g},{:.6g},{},{}\n",
                       csv_cell(model), type, size_bytes, threads, isa, r.test, r.n_prompt, r.n_gen, r.depth,
                       r.batch, repetitions, r.tokens_per_s, r.spread, r.ms_per_token, r.limit,
                       r.limit_tokens_per_s, r.of_limit, r.cache_bytes, peak_rss_bytes);
  }
  return out;
}

}  // namespace narrow
