#include <fmt/format.h>

#include <memory>

#include "cli/command.h"
#include "cli/engine_options.h"
#include "cli/json_output.h"

namespace narrow::cli {
namespace {

void print_report(const EvaluateReport& r) {
  fmt::print("protocol        {}\n", r.protocol);
  fmt::print("perplexity      {:.4f} ± {:.4f}\n", r.perplexity, r.perplexity_se);
  if (r.divergence) {
    const auto& d = *r.divergence;
    fmt::print("reference       perplexity {:.4f} ± {:.4f}\n", d.reference_perplexity,
               d.reference_perplexity_se);
    fmt::print(
        "KL divergence   {:.6f} ± {:.6f}  (median {:.6f}, 90 % {:.6f}, 99 % {:.6f}, 99.9 % {:.6f}, max "
        "{:.4f})\n",
        d.kl_mean, d.kl_se, d.kl_median, d.kl_p90, d.kl_p99, d.kl_p999, d.kl_max);
    fmt::print("top-1 agreement {:.2f} % ± {:.2f} %\n", 100 * d.top1_agreement, 100 * d.top1_se);
    fmt::print("RMS change of p {:.3f} %\n", 100 * d.delta_p_rms);
  }
  fmt::print("size            {:.1f} MB, {:.3f} bpw\n", static_cast<double>(r.model_bytes) / 1e6, r.bpw);
  fmt::print("time            {:.1f} s, {:.0f} tokens/s, peak memory {:.0f} MB\n", r.seconds, r.tokens_per_s,
             static_cast<double>(r.peak_memory_bytes) / 1e6);
}

struct EvalArgs {
  EvaluateOptions options;
  SpeedOptions speed;
  bool measure_speed = false;
  std::string json;
};

}  // namespace

void add_eval(CLI::App& app, Context& context) {
  CLI::App* sub = app.add_subcommand(
      "eval", "Measure what quantization cost: perplexity, KL divergence, agreement; or speed");
  sub->footer(
      "Examples:\n"
      "  narrow eval model-q4_k_m.gguf --text wiki.test.raw\n"
      "  narrow eval model-q4_k_m.gguf --ref model-f32.gguf --text wiki.test.raw --windows 16 --json -\n"
      "  narrow eval model-q4_k_m.gguf --speed --prefill 512 --decode 64");
  auto args = std::make_shared<EvalArgs>();
  EvaluateOptions& o = args->options;
  sub->add_option("model", o.model, "GGUF file or Hugging Face folder to measure")->required();
  sub->add_option("--ref", o.reference, "Model to compare with (usually the unquantized one)");
  sub->add_option("--text", o.text, "UTF-8 text to measure on");
  sub->add_option("--ctx", o.n_ctx, "Tokens per window")->capture_default_str();
  sub->add_option("--windows", o.windows, "Windows to measure; 0: all")->capture_default_str();
  sub->add_option("--stride", o.stride,
                  "Sliding window with this step instead of llama-perplexity's protocol");
  add_engine_options(*sub, o.engine);
  CLI::Option* speed =
      sub->add_flag("--speed", args->measure_speed, "Measure prefill and decode tokens/s instead");
  sub->add_option("--prefill", args->speed.prefill, "Tokens fed at once, with --speed")
      ->needs(speed)
      ->capture_default_str();
  sub->add_option("--decode", args->speed.decode, "Tokens fed one by one, with --speed")
      ->needs(speed)
      ->capture_default_str();
  sub->add_option("--repetitions", args->speed.repetitions, "Rounds, with --speed")
      ->needs(speed)
      ->capture_default_str();
  sub->add_option("--json", args->json, "Write the result as JSON to this file, or - for standard output");
  sub->callback([args, &context] {
    const auto progress = make_progress(context);
    if (args->measure_speed) {
      if (!args->options.text.empty() || !args->options.reference.empty()) {
        context.exit_code =
            report_error({ErrorCode::kInvalidArgument,
                          "--speed measures no text: leave --text and --ref out, or run eval twice"});
        return;
      }
      args->speed.model = args->options.model;
      args->speed.engine = args->options.engine;
      const auto r = measure_speed(args->speed, *progress);
      if (!r.ok()) {
        context.exit_code = report_error(r.error());
        return;
      }
      if (args->json != "-") {
        fmt::print("prefill {} tokens  {:.1f} tokens/s (spread {:.0f} %)\n", args->speed.prefill,
                   r->prefill_tokens_per_s, 100 * r->prefill_spread);
        fmt::print("decode {} tokens   {:.1f} tokens/s (spread {:.0f} %)\n", args->speed.decode,
                   r->decode_tokens_per_s, 100 * r->decode_spread);
        fmt::print("peak memory {:.0f} MB, of it KV cache {:.0f} MB; file {:.1f} MB\n",
                   static_cast<double>(r->peak_memory_bytes) / 1e6, static_cast<double>(r->cache_bytes) / 1e6,
                   static_cast<double>(r->model_bytes) / 1e6);
      }
      if (!args->json.empty()) {
        if (const Status s = write_json(args->json, r->to_json()); !s.ok())
          context.exit_code = report_error(s.error());
      }
      return;
    }
    if (args->options.text.empty()) {
      context.exit_code = report_error(
          {ErrorCode::kInvalidArgument, "eval needs a text to measure on: give --text FILE (or --speed)"});
      return;
    }
    const auto r = evaluate(args->options, *progress);
    if (!r.ok()) {
      context.exit_code = report_error(r.error());
      return;
    }
    if (args->json != "-") print_report(*r);
    if (!args->json.empty()) {
      if (const Status s = write_json(args->json, r->to_json()); !s.ok())
        context.exit_code = report_error(s.error());
    }
  });
}

}  // namespace narrow::cli
