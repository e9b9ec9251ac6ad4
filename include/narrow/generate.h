// Text in, text out.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "narrow/engine.h"
#include "narrow/result.h"

namespace narrow {

struct GenerateOptions {
  int max_tokens = 128;
  float temperature = 0.8f;
  int top_k = 40;
  float top_p = 0.95f, min_p = 0.05f, repeat_penalty = 1.0f;
  int repeat_last = 64;
  std::uint64_t seed = 0;
  bool ignore_eos = false;
  std::vector<std::string> stop;  // texts that end the answer; not part of it
};

struct ChatMessage {
  std::string role, content;  // "system", "user", "assistant"
};

struct GenerateReport {
  std::string text;
  std::string stop_reason;  // "end token", "stop text", "max tokens", "context full"
  std::int64_t prompt_tokens = 0, new_tokens = 0;
  double prefill_tokens_per_s = 0, decode_tokens_per_s = 0;
  std::uint64_t peak_memory_bytes = 0;
};

class Generator {
 public:
  struct Options {
    std::filesystem::path model;
    std::filesystem::path tokenizer;  // empty: the model's own
    std::int64_t n_ctx = 0;           // 0: the model's, at most 4096
    EngineOptions engine;
  };
  static Result<std::unique_ptr<Generator>> load(const Options& options);
  virtual ~Generator() = default;
  using OnText = std::function<void(std::string_view)>;  // pieces as they come, whole UTF-8
  virtual Result<GenerateReport> complete(std::string_view prompt, const GenerateOptions& options,
                                          const OnText& on_text = {}) = 0;
  // Through the model's chat template (or `template_source`, Jinja, if not empty).
  virtual Result<GenerateReport> chat(const std::vector<ChatMessage>& messages,
                                      const GenerateOptions& options, const OnText& on_text = {},
                                      std::string_view template_source = {}) = 0;
  virtual Result<std::string> render_chat(const std::vector<ChatMessage>& messages,
                                          std::string_view template_source = {}) const = 0;
  virtual Result<std::vector<std::int32_t>> tokenize(std::string_view text, bool add_special,
                                                     bool parse_special) const = 0;
  virtual Result<std::string> detokenize(const std::vector<std::int32_t>& ids) const = 0;
  // [tokens, n_vocab] logits of a token sequence from an empty context; for tests and tools.
  virtual Result<std::vector<float>> logits(const std::vector<std::int32_t>& ids) = 0;
};

}  // namespace narrow
