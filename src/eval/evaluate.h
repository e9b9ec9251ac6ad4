// Perplexity and KL divergence of a model on a token sequence, streamed from both models side by side: no
// file of logits is ever needed.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "eval/divergence.h"
#include "narrow/progress.h"
#include "runtime/session.h"

namespace narrow::eval {

struct Protocol {
  std::int64_t n_ctx = 512;
  std::int64_t max_windows = 0;  // 0: all that fit
  // 0: llama-perplexity's protocol: the tokens are cut into windows of n_ctx, the first token of each is
  // replaced by BOS where the model has one, and the second half of each window is scored. > 0: windows of
  // n_ctx start every `stride` tokens, and each token is scored once, in the first window that holds it
  // (Hugging Face's fixed-length perplexity).
  std::int64_t stride = 0;
  std::optional<std::int32_t> bos;  // unset: the model adds none
};

// One window: tokens [begin, begin + size) are fed, and tokens from begin + first_scored on are predicted and
// scored.
struct Window {
  std::int64_t begin = 0, size = 0, first_scored = 0;
};

// kInvalidArgument when the text is too short for one window, or a number is out of range.
Result<std::vector<Window>> cut_windows(std::int64_t n_tokens, const Protocol& protocol);

// Says everything that is needed to measure again.
std::string describe(const Protocol& protocol, std::int64_t n_tokens, std::size_t windows);

struct Evaluation {
  std::vector<TokenScore> scores;  // by window, then position
  std::size_t windows = 0;
  std::int64_t tokens_fed = 0;
};

// A scored position, while both models' logits are at hand.
struct ScoredPosition {
  std::int64_t window = 0, token = 0;  // the window's index; the index of the predicted token in the text
  TokenScore score;
  std::span<const float> logits, reference;  // [n_vocab]; reference is empty without one
};
using PositionObserver = std::function<void(const ScoredPosition&)>;

// `reference` may be null. Both sessions are reset before each window and need n_ctx positions.
// `observer`, where given, sees every scored position in order, from one thread.
// kNumeric names the position of the first logit that is not finite.
Result<Evaluation> evaluate(runtime::Session& model, std::int64_t n_vocab, runtime::Session* reference,
                            std::span<const std::int32_t> tokens, const Protocol& protocol,
                            ProgressSink& progress, const PositionObserver& observer = {});

}  // namespace narrow::eval
