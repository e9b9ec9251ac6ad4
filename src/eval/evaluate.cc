#include "eval/evaluate.h"

#include <algorithm>
#include <cmath>

#include "base/thread_team.h"

namespace narrow::eval {
namespace {

// Logits of this many bytes per model are held at a time: a vocabulary of 262,144 gives blocks of 64 rows.
constexpr std::int64_t kLogitBytes = 64 << 20;

Status check_finite(std::span<const float> logits, std::int64_t position, const char* which) {
  for (const float x : logits) {
    if (!std::isfinite(x)) {
      return make_error(ErrorCode::kNumeric,
                        "the {} gives a logit of {} at position {}: its weights are damaged", which, x,
                        position);
    }
  }
  return {};
}

}  // namespace

Result<std::vector<Window>> cut_windows(std::int64_t n_tokens, const Protocol& p) {
  if (p.n_ctx < 4)
    return make_error(ErrorCode::kInvalidArgument, "a context of {} is too short: use at least 4", p.n_ctx);
  if (p.stride < 0 || p.stride >= p.n_ctx) {
    return make_error(ErrorCode::kInvalidArgument,
                      "a stride of {} must be from 1 to the context minus 1 ({})", p.stride, p.n_ctx - 1);
  }
  if (p.max_windows < 0) {
    return make_error(ErrorCode::kInvalidArgument, "{} windows: use 0 for all, or a positive number",
                      p.max_windows);
  }
  std::vector<Window> windows;
  const auto full = [&] {
    return p.max_windows > 0 && static_cast<std::int64_t>(windows.size()) >= p.max_windows;
  };
  if (p.stride == 0) {
    // The first scored token is n_ctx / 2 + 1: its prediction is read off the position before it.
    for (std::int64_t b = 0; b + p.n_ctx <= n_tokens && !full(); b += p.n_ctx) {
      windows.push_back({b, p.n_ctx, p.n_ctx / 2 + 1});
    }
  } else {
    std::int64_t scored_to = 1;  // the very first token has no context
    for (std::int64_t b = 0; scored_to < n_tokens && n_tokens >= p.n_ctx && !full(); b += p.stride) {
      const std::int64_t end = std::min(b + p.n_ctx, n_tokens);
      windows.push_back({b, end - b, scored_to - b});
      scored_to = end;
    }
  }
  if (windows.empty()) {
    return make_error(
        ErrorCode::kInvalidArgument,
        "the text has {} tokens, fewer than one window of {}: use a longer text or a smaller --ctx", n_tokens,
        p.n_ctx);
  }
  return windows;
}

std::string describe(const Protocol& p, std::int64_t n_tokens, std::size_t windows) {
  const std::string bos = p.bos ? fmt::format("BOS {}", *p.bos) : std::string("no BOS");
  if (p.stride == 0) {
    return fmt::format(
        "llama-perplexity: {} tokens in windows of {}, {} at each window's start, second half scored, "
        "{} windows",
        n_tokens, p.n_ctx, bos, windows);
  }
  return fmt::format(
      "sliding window: {} tokens, windows of {} every {} tokens, {} at the text's start, each token "
      "scored once, {} windows",
      n_tokens, p.n_ctx, p.stride, bos, windows);
}

Result<Evaluation> evaluate(runtime::Session& model, std::int64_t n_vocab, runtime::Session* reference,
                            std::span<const std::int32_t> tokens, const Protocol& protocol,
                            ProgressSink& progress, const PositionObserver& observer) {
  NARROW_ASSIGN(const std::vector<Window> windows,
                cut_windows(static_cast<std::int64_t>(tokens.size()), protocol));
  const std::int64_t block = std::clamp<std::int64_t>(kLogitBytes / 4 / n_vocab, 1, protocol.n_ctx);
  const auto vocab = static_cast<std::size_t>(n_vocab);

  Evaluation result;
  result.windows = windows.size();
  std::vector<float> logits, reference_logits;
  std::vector<std::int32_t> ids;
  progress.begin("evaluate", windows.size(), "windows");
  double nll_sum = 0;
  for (std::size_t w = 0; w < windows.size(); ++w) {
    if (progress.cancelled()) return make_error(ErrorCode::kCancelled, "cancelled");
    const Window& window = windows[w];
    ids.assign(tokens.begin() + window.begin, tokens.begin() + window.begin + window.size);
    if (protocol.bos && protocol.stride == 0) ids[0] = *protocol.bos;
    NARROW_TRY(model.truncate(0));
    if (reference) NARROW_TRY(reference->truncate(0));

    // The last token is fed to nobody: nothing after it is scored.
    const std::int64_t fed = window.size - 1;
    const std::int64_t lead = window.first_scored - 1;  // positions whose logits are not needed
    std::int64_t at = 0;
    while (at < fed) {
      const bool scored = at >= lead;
      const std::int64_t n = scored ? std::min(block, fed - at) : lead - at;
      const std::span<const std::int32_t> piece(ids.data() + at, static_cast<std::size_t>(n));
      const runtime::LogitRows rows = scored ? runtime::LogitRows::kAll : runtime::LogitRows::kNone;
      NARROW_TRY(model.forward(piece, rows, logits));
      if (reference) NARROW_TRY(reference->forward(piece, rows, reference_logits));
      if (scored) {
        const std::size_t base = result.scores.size();
        result.scores.resize(base + static_cast<std::size_t>(n));
        NARROW_TRY(
            check_finite({logits.data(), static_cast<std::size_t>(n) * vocab}, window.begin + at, "model"));
        if (reference) {
          NARROW_TRY(check_finite({reference_logits.data(), static_cast<std::size_t>(n) * vocab},
                                  window.begin + at, "reference"));
        }
        const auto rows_of = [&](std::int64_t i) {
          const std::size_t row = static_cast<std::size_t>(i) * vocab;
          ScoredPosition p{static_cast<std::int64_t>(w), window.begin + at + i + 1, {}, {}, {}};
          p.logits = {logits.data() + row, vocab};
          if (reference) p.reference = {reference_logits.data() + row, vocab};
          return p;
        };
        parallel_for(n, [&](std::int64_t i, int) {
          const ScoredPosition p = rows_of(i);
          result.scores[base + static_cast<std::size_t>(i)] =
              score_token(p.logits, p.reference, ids[static_cast<std::size_t>(at + i + 1)]);
        });
        for (std::int64_t i = 0; i < n; ++i) {
          ScoredPosition p = rows_of(i);
          p.score = result.scores[base + static_cast<std::size_t>(i)];
          nll_sum += p.score.nll;
          if (observer) observer(p);
        }
      }
      at += n;
    }
    result.tokens_fed += fed;
    progress.update(w + 1, fmt::format("perplexity {:.4f}",
                                       std::exp(nll_sum / static_cast<double>(result.scores.size()))));
  }
  progress.end();
  return result;
}

}  // namespace narrow::eval
