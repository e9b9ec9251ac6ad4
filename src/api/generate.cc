#include "narrow/generate.h"

#include <algorithm>
#include <chrono>

#include "api/engine.h"
#include "api/guard.h"
#include "api/loaded.h"
#include "base/cpu_features.h"
#include "base/stopwatch.h"
#include "runtime/sampling/sampler.h"
#include "text/chat_template.h"

namespace narrow {
namespace {

using Clock = std::chrono::steady_clock;

// Passes text on as it comes, but holds back what could still turn out to be the start of a stop text.
class StopFilter {
 public:
  StopFilter(const std::vector<std::string>& stops, const Generator::OnText& on_text)
      : stops_(stops), on_text_(on_text) {}

  // True when a stop text came: everything before it has been passed on, the rest is dropped.
  bool push(const std::string& piece) {
    held_ += piece;
    std::size_t cut = std::string::npos;
    for (const std::string& s : stops_) {
      if (!s.empty()) cut = std::min(cut, held_.find(s));
    }
    if (cut != std::string::npos) {
      held_.resize(cut);
      flush();
      return true;
    }
    std::size_t keep = 0;
    for (const std::string& s : stops_) {
      for (std::size_t n = std::min(s.size(), held_.size()); n > keep; --n) {
        if (held_.compare(held_.size() - n, n, s, 0, n) == 0) keep = n;
      }
    }
    emit(held_.size() - keep);
    return false;
  }
  void flush() { emit(held_.size()); }
  const std::string& text() const { return text_; }

 private:
  void emit(std::size_t n) {
    if (n == 0) return;
    if (on_text_) on_text_(std::string_view(held_).substr(0, n));
    text_.append(held_, 0, n);
    held_.erase(0, n);
  }
  const std::vector<std::string>& stops_;
  const Generator::OnText& on_text_;
  std::string held_, text_;
};

class GeneratorImpl final : public Generator {
 public:
  GeneratorImpl(api::OpenedModel model, std::shared_ptr<const text::Tokenizer> tokenizer,
                std::unique_ptr<runtime::Session> session)
      : model_(std::move(model)), tokenizer_(std::move(tokenizer)), session_(std::move(session)) {}

  Result<GenerateReport> complete(std::string_view prompt, const GenerateOptions& options,
                                  const OnText& on_text) override {
    return api::guarded([&]() -> Result<GenerateReport> {
      NARROW_ASSIGN(const auto ids, tokenizer_->encode(prompt));
      return generate(ids, options, on_text, false);
    });
  }

  Result<GenerateReport> chat(const std::vector<ChatMessage>& messages, const GenerateOptions& options,
                              const OnText& on_text, std::string_view template_source) override {
    return api::guarded([&]() -> Result<GenerateReport> {
      NARROW_ASSIGN(const std::string prompt, render_chat(messages, template_source));
      text::EncodeTextOptions encode;
      encode.add_special = false;  // the template writes its own special tokens
      NARROW_ASSIGN(auto ids, tokenizer_->encode(prompt, encode));
      // As llama.cpp does: a template that leaves BOS out still gets one where the model wants it.
      const text::TokenizerSpec& spec = tokenizer_->spec();
      if (spec.add_bos && spec.bos && (ids.empty() || ids[0] != *spec.bos))
        ids.insert(ids.begin(), *spec.bos);
      return generate(ids, options, on_text, true);
    });
  }

  Result<std::string> render_chat(const std::vector<ChatMessage>& messages,
                                  std::string_view template_source) const override {
    return api::guarded([&]() -> Result<std::string> {
      const text::TokenizerSpec& spec = tokenizer_->spec();
      const std::string_view source =
          template_source.empty() ? std::string_view(spec.chat_template) : template_source;
      if (source.empty()) {
        return make_error(
            ErrorCode::kUnsupported,
            "{}: the model has no chat template: give one with --chat-template FILE, or complete plain text",
            model_.source->path().string());
      }
      NARROW_ASSIGN(const auto chat_template, text::ChatTemplate::parse(source));
      text::ChatRenderOptions render;
      for (const ChatMessage& m : messages)
        render.messages.push_back({{"role", m.role}, {"content", m.content}});
      const auto token_text = [&](std::optional<std::int32_t> id) {
        return id ? spec.tokens[static_cast<std::size_t>(*id)] : std::string();
      };
      render.bos_token = token_text(spec.bos);
      render.eos_token = token_text(spec.eos);
      return chat_template.render(render);
    });
  }

  Result<std::vector<std::int32_t>> tokenize(std::string_view text, bool add_special,
                                             bool parse_special) const override {
    return api::guarded([&] { return tokenizer_->encode(text, {add_special, parse_special}); });
  }

  Result<std::string> detokenize(const std::vector<std::int32_t>& ids) const override {
    return api::guarded([&] { return tokenizer_->decode(ids, false); });
  }

  Result<std::vector<float>> logits(const std::vector<std::int32_t>& ids) override {
    return api::guarded([&]() -> Result<std::vector<float>> {
      NARROW_TRY(session_->truncate(0));
      std::vector<float> out;
      NARROW_TRY(session_->forward(ids, runtime::LogitRows::kAll, out));
      return out;
    });
  }

 private:
  // at_start: the answer is a text of its own (chat), else it goes on where the prompt ended.
  Result<GenerateReport> generate(const std::vector<std::int32_t>& prompt, const GenerateOptions& o,
                                  const OnText& on_text, bool at_start) {
    if (prompt.empty())
      return make_error(ErrorCode::kInvalidArgument, "the prompt is empty: give at least one token");
    if (o.max_tokens < 0) {
      return make_error(ErrorCode::kInvalidArgument, "{} tokens to generate: use 0 or more", o.max_tokens);
    }
    if (static_cast<std::int64_t>(prompt.size()) > session_->n_ctx()) {
      return make_error(ErrorCode::kInvalidArgument,
                        "the prompt has {} tokens and the context {}: shorten it or give a larger --ctx",
                        prompt.size(), session_->n_ctx());
    }
    runtime::SamplerOptions so;
    so.temperature = o.temperature;
    so.top_k = o.top_k;
    so.top_p = o.top_p;
    so.min_p = o.min_p;
    so.repeat_penalty = o.repeat_penalty;
    so.repeat_last = o.repeat_last;
    so.seed = o.seed;
    NARROW_ASSIGN(runtime::Sampler sampler, runtime::Sampler::create(so));

    GenerateReport r;
    r.prompt_tokens = static_cast<std::int64_t>(prompt.size());
    r.stop_reason = "max tokens";
    NARROW_TRY(session_->truncate(0));
    std::vector<float> logits;
    auto t = Clock::now();
    NARROW_TRY(session_->forward(prompt, runtime::LogitRows::kLast, logits));
    r.prefill_tokens_per_s = static_cast<double>(prompt.size()) / seconds_since(t);

    text::StreamDecoder decoder(tokenizer_, true, at_start);
    StopFilter filter(o.stop, on_text);
    std::vector<std::int32_t> history = prompt;
    t = Clock::now();
    while (r.new_tokens < o.max_tokens) {
      NARROW_ASSIGN(const std::int32_t id, sampler.sample(logits, history));
      if (!o.ignore_eos && tokenizer_->is_end(id)) {
        r.stop_reason = "end token";
        break;
      }
      ++r.new_tokens;
      history.push_back(id);
      if (filter.push(decoder.push(id))) {
        r.stop_reason = "stop text";
        break;
      }
      if (r.new_tokens == o.max_tokens) break;
      if (session_->position() >= session_->n_ctx()) {
        r.stop_reason = "context full";
        break;
      }
      NARROW_TRY(session_->forward({&id, 1}, runtime::LogitRows::kLast, logits));
    }
    if (r.stop_reason != "stop text" && !filter.push(decoder.flush())) filter.flush();
    // The first new token comes out of the prefill; the clock ran over the others.
    r.decode_tokens_per_s = r.new_tokens > 1 ? static_cast<double>(r.new_tokens - 1) / seconds_since(t) : 0;
    r.text = filter.text();
    r.peak_memory_bytes = peak_resident_bytes();
    return r;
  }

  api::OpenedModel model_;
  std::shared_ptr<const text::Tokenizer> tokenizer_;
  std::unique_ptr<runtime::Session> session_;
};

}  // namespace

Result<std::unique_ptr<Generator>> Generator::load(const Options& options) {
  return api::guarded([&]() -> Result<std::unique_ptr<Generator>> {
    NARROW_ASSIGN(const runtime::LoadOptions load, api::load_options(options.engine));
    NARROW_ASSIGN(const runtime::SessionOptions so, api::session_options(options.engine, options.n_ctx));
    NARROW_ASSIGN(api::OpenedModel model, api::open_model(options.model, load));
    NARROW_ASSIGN(auto tokenizer,
                  api::open_tokenizer(options.tokenizer.empty() ? options.model : options.tokenizer,
                                      model.weights->config().n_vocab));
    NARROW_ASSIGN(auto session, runtime::Session::create(model.weights, so));
    return std::unique_ptr<Generator>(
        std::make_unique<GeneratorImpl>(std::move(model), std::move(tokenizer), std::move(session)));
  });
}

}  // namespace narrow
