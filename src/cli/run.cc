#include <fmt/format.h>

#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>

#include "cli/command.h"
#include "cli/engine_options.h"

namespace narrow::cli {
namespace {

struct RunArgs {
  Generator::Options load;
  GenerateOptions generate;
  std::string prompt, prompt_file, system, template_file;
  bool chat = false, show_prompt = false, stats = false;
};

// Not only regular files: a prompt may come through a pipe.
Result<std::string> read_whole(const std::string& path, const char* what) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return Error{ErrorCode::kNotFound, fmt::format("{}: cannot open the {}", path, what)};
  return std::string(std::istreambuf_iterator<char>(in), {});
}

Result<std::string> read_prompt(const RunArgs& a) {
  if (a.prompt_file.empty()) return a.prompt;
  if (a.prompt_file == "-") return std::string(std::istreambuf_iterator<char>(std::cin), {});
  return read_whole(a.prompt_file, "prompt file");
}

Status run(const RunArgs& a) {
  auto prompt = read_prompt(a);
  if (!prompt.ok()) return prompt.error();
  std::string template_source;
  if (!a.template_file.empty()) {
    auto source = read_whole(a.template_file, "chat template");
    if (!source.ok()) return source.error();
    template_source = std::move(*source);
  }
  auto generator = Generator::load(a.load);
  if (!generator.ok()) return generator.error();

  const auto on_text = [](std::string_view piece) {
    std::fwrite(piece.data(), 1, piece.size(), stdout);
    std::fflush(stdout);
  };
  Result<GenerateReport> r = GenerateReport{};
  if (a.chat || !a.system.empty() || !template_source.empty()) {
    std::vector<ChatMessage> messages;
    if (!a.system.empty()) messages.push_back({"system", a.system});
    messages.push_back({"user", *prompt});
    if (a.show_prompt) {
      const auto text = (*generator)->render_chat(messages, template_source);
      if (!text.ok()) return text.error();
      on_text(*text);
    }
    r = (*generator)->chat(messages, a.generate, on_text, template_source);
  } else {
    if (a.show_prompt) on_text(*prompt);
    r = (*generator)->complete(*prompt, a.generate, on_text);
  }
  if (!r.ok()) return r.error();
  std::fputc('\n', stdout);
  std::fflush(stdout);  // before the statistics, which go to standard error
  if (a.stats) {
    fmt::print(
        stderr,
        "[{} prompt tokens at {:.1f} tokens/s, {} new tokens at {:.1f} tokens/s, peak memory {:.0f} MB, "
        "stopped by: {}]\n",
        r->prompt_tokens, r->prefill_tokens_per_s, r->new_tokens, r->decode_tokens_per_s,
        static_cast<double>(r->peak_memory_bytes) / 1e6, r->stop_reason);
  }
  return {};
}

}  // namespace

void add_run(CLI::App& app, Context& context) {
  CLI::App* sub =
      app.add_subcommand("run", "Complete a prompt, or answer one through the model's chat template");
  sub->footer(
      "Examples:\n"
      "  narrow run model-q4_k_m.gguf 'Once upon a time' -n 64\n"
      "  narrow run model-q4_k_m.gguf --chat --prompt 'What is the capital of France?' --temperature 0\n"
      "  narrow run model-q4_k_m.gguf --chat --system 'Answer in one word.' --prompt-file question.txt "
      "--seed 7");
  auto args = std::make_shared<RunArgs>();
  RunArgs& a = *args;
  GenerateOptions& g = a.generate;
  sub->add_option("model", a.load.model, "GGUF file or Hugging Face folder")->required();
  auto* prompt = sub->add_option("prompt,-p,--prompt", a.prompt, "The prompt");
  auto* file =
      sub->add_option("--prompt-file", a.prompt_file, "Read the prompt from a file, or - for standard input");
  prompt->excludes(file);
  sub->add_option("-n,--max-tokens", g.max_tokens, "Most tokens to generate")->capture_default_str();
  sub->add_flag("--chat", a.chat, "Put the prompt through the model's chat template");
  sub->add_option("--system", a.system, "System message (implies --chat)");
  sub->add_option("--chat-template", a.template_file,
                  "Jinja file instead of the model's template (implies --chat)");
  sub->add_option("--tokenizer", a.load.tokenizer, "Tokenizer of another file or folder");
  sub->add_option("--ctx", a.load.n_ctx, "Context length; 0: the model's, at most 4096")
      ->capture_default_str();
  add_engine_options(*sub, a.load.engine);
  sub->add_option("--temperature", g.temperature, "0: always the most likely token")->capture_default_str();
  sub->add_option("--top-k", g.top_k, "Keep the k most likely tokens; 0: all")->capture_default_str();
  sub->add_option("--top-p", g.top_p, "Keep the fewest tokens with this total probability")
      ->capture_default_str();
  sub->add_option("--min-p", g.min_p, "Drop tokens below this share of the top one's probability")
      ->capture_default_str();
  sub->add_option("--repeat-penalty", g.repeat_penalty, "Above 1: recent tokens get less likely")
      ->capture_default_str();
  sub->add_option("--repeat-last", g.repeat_last, "How many recent tokens that is")->capture_default_str();
  sub->add_option("--seed", g.seed, "Seed of the sampler")->capture_default_str();
  sub->add_option("--stop", g.stop, "End the answer before this text (may be repeated)")
      ->take_all()
      ->expected(1);
  sub->add_flag("--ignore-eos", g.ignore_eos, "Go on past the model's end token");
  sub->add_flag("--show-prompt", a.show_prompt, "Print the prompt too, as the model sees it");
  sub->add_flag("--stats", a.stats, "Print token counts, speed and memory to standard error");
  sub->callback([args, &context] {
    if (args->prompt.empty() && args->prompt_file.empty()) {
      context.exit_code = report_error(
          {ErrorCode::kInvalidArgument, "run needs a prompt: give --prompt TEXT or --prompt-file FILE"});
      return;
    }
    if (const Status s = run(*args); !s.ok()) context.exit_code = report_error(s.error());
  });
}

}  // namespace narrow::cli
