#include "train/dataset.h"

#include <algorithm>
#include <cstring>

#include "base/rng.h"

namespace narrow::train {
namespace {

constexpr std::int64_t kMaxWindow = 1 << 20;

Status check_options(const DatasetOptions& o) {
  if (o.n_ctx < 2 || o.n_ctx > kMaxWindow) {
    return make_error(ErrorCode::kInvalidArgument, "windows of {} tokens to train on: use 2 to {}", o.n_ctx,
                      kMaxWindow);
  }
  if (o.validation_windows < 0) {
    return make_error(ErrorCode::kInvalidArgument, "{} windows held out for validation: use 0 or more",
                      o.validation_windows);
  }
  if (o.bos && (*o.bos < 0 || *o.bos >= o.n_vocab)) {
    return make_error(ErrorCode::kCorrupt, "BOS token {} is not in the model's vocabulary of {}", *o.bos,
                      o.n_vocab);
  }
  return {};
}

Status check_documents(std::span<const Document> documents, std::int64_t n_vocab) {
  for (std::size_t d = 0; d < documents.size(); ++d) {
    const Document& doc = documents[d];
    if (!doc.counts.empty() && doc.counts.size() != doc.ids.size()) {
      return make_error(ErrorCode::kInternal, "document {}: {} tokens with a mask of {}", d, doc.ids.size(),
                        doc.counts.size());
    }
    for (const std::int32_t id : doc.ids) {
      if (id >= 0 && id < n_vocab) continue;
      return make_error(ErrorCode::kCorrupt,
                        "text {}: token {} is not in the model's vocabulary of {}: the tokenizer belongs to "
                        "another model",
                        d + 1, id, n_vocab);
    }
  }
  return {};
}

// A generator for one pass: neighbouring epochs and seeds must have nothing in common.
Rng epoch_rng(std::uint64_t seed, std::int64_t epoch) {
  Rng outer(seed ^ 0x6461746173657400ull);
  const std::uint64_t base = outer.next_u64();
  Rng inner(base + static_cast<std::uint64_t>(epoch) * 0xd1342543de82ef95ull);
  return Rng(inner.next_u64());
}

}  // namespace

std::int64_t Batch::counted() const { return mask.sum().item<std::int64_t>(); }

Status Dataset::check(const BatchPlan& plan) {
  if (plan.world < 1 || plan.rank < 0 || plan.rank >= plan.world || plan.windows < 1 ||
      plan.windows % plan.world != 0) {
    return make_error(ErrorCode::kInvalidArgument,
                      "a batch of {} windows cannot be shared equally by {} processes (this one is {}): make "
                      "it a multiple",
                      plan.windows, plan.world, plan.rank);
  }
  return {};
}

Result<Dataset> Dataset::create(std::span<const Document> documents, const DatasetOptions& options) {
  NARROW_TRY(check_options(options));
  NARROW_TRY(check_documents(documents, options.n_vocab));
  Dataset out;
  out.n_ctx_ = options.n_ctx;
  out.seed_ = options.seed;
  for (const Document& d : documents) out.text_tokens_ += static_cast<std::int64_t>(d.ids.size());
  if (out.text_tokens_ == 0) {
    return make_error(ErrorCode::kInvalidArgument, "no text to train on: it has no token at all");
  }
  const std::int64_t width = options.n_ctx - (options.bos ? 1 : 0);
  const std::int64_t needed = options.validation_windows + 1;
  if (out.text_tokens_ / width < needed) {
    return make_error(
        ErrorCode::kInvalidArgument,
        "the text is too short: {} tokens, but {} are needed for a window of {} and {} held out "
        "for validation: give more text or make windows shorter",
        out.text_tokens_, needed * width, options.n_ctx, options.validation_windows);
  }

  const std::int64_t whole = out.text_tokens_ / width;
  out.tokens_.reserve(static_cast<std::size_t>(whole * options.n_ctx));
  out.counts_.reserve(out.tokens_.capacity());
  const auto n_ctx = static_cast<std::size_t>(options.n_ctx);
  std::int64_t windows = 0;
  std::size_t filled = 0;  // of the window that is being filled
  bool any = false;        // something in it counts
  for (const Document& d : documents) {
    for (std::size_t i = 0; i < d.ids.size(); ++i) {
      if (filled == 0 && options.bos) {
        out.tokens_.push_back(*options.bos);
        out.counts_.push_back(0);
        ++filled;
      }
      const bool counts = d.counts.empty() || d.counts[i] != 0;
      out.tokens_.push_back(d.ids[i]);
      out.counts_.push_back(counts ? 1 : 0);
      any = any || (counts && filled > 0);  // nothing predicts a window's first token
      if (++filled < n_ctx) continue;
      if (any) {
        ++windows;
      } else {
        out.tokens_.resize(out.tokens_.size() - n_ctx);
        out.counts_.resize(out.counts_.size() - n_ctx);
      }
      filled = 0;
      any = false;
    }
  }
  out.tokens_.resize(static_cast<std::size_t>(windows) * n_ctx);
  out.counts_.resize(out.tokens_.size());
  out.dropped_tokens_ = out.text_tokens_ - windows * width;
  if (windows < needed) {
    return make_error(ErrorCode::kInvalidArgument,
                      "the text is too short: of its {} windows only {} have an answer to learn from, but {} "
                      "are needed, {} of them held out for validation",
                      whole, windows, needed, options.validation_windows);
  }
  std::int64_t held = 0;
  for (std::int64_t w = 0; w < windows; ++w) {
    const bool validates =
        held < options.validation_windows && w == windows * (2 * held + 1) / (2 * options.validation_windows);
    (validates ? out.validation_ : out.training_).push_back(w);
    held += validates ? 1 : 0;
  }
  return out;
}

std::int64_t Dataset::training_window(std::int64_t place) const {
  const std::int64_t epoch = place / training_windows();
  if (epoch != epoch_) {
    order_ = training_;
    Rng rng = epoch_rng(seed_, epoch);
    for (std::size_t i = order_.size() - 1; i > 0; --i) {
      std::swap(order_[i], order_[rng.next_u64() % (i + 1)]);
    }
    epoch_ = epoch;
  }
  return order_[static_cast<std::size_t>(place % training_windows())];
}

Batch Dataset::batch(std::int64_t step, const BatchPlan& plan) const {
  const std::int64_t own = plan.windows / plan.world;
  std::vector<std::int64_t> windows(static_cast<std::size_t>(own));
  for (std::int64_t i = 0; i < own; ++i) {
    windows[static_cast<std::size_t>(i)] = training_window(step * plan.windows + plan.rank * own + i);
  }
  return gather(windows);
}

Batch Dataset::validation(std::int64_t first, std::int64_t n) const {
  first = std::clamp<std::int64_t>(first, 0, validation_windows());
  n = std::clamp<std::int64_t>(n, 0, validation_windows() - first);
  return gather(std::span(validation_).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(n)));
}

double Dataset::epochs(std::int64_t steps, const BatchPlan& plan) const {
  return static_cast<double>(steps) * static_cast<double>(plan.windows) /
         static_cast<double>(training_windows());
}

Batch Dataset::gather(std::span<const std::int64_t> windows) const {
  const auto b = static_cast<std::int64_t>(windows.size());
  Batch out = {at::empty({b, n_ctx_}, at::kLong), at::zeros({b, n_ctx_}, at::kBool)};
  auto* tokens = out.tokens.data_ptr<std::int64_t>();
  auto* mask = out.mask.data_ptr<bool>();
  for (const std::int64_t w : windows) {
    const auto from = static_cast<std::size_t>(w * n_ctx_);
    for (std::int64_t i = 0; i < n_ctx_; ++i) tokens[i] = tokens_[from + static_cast<std::size_t>(i)];
    for (std::int64_t i = 0; i + 1 < n_ctx_; ++i)
      mask[i] = counts_[from + static_cast<std::size_t>(i) + 1] != 0;
    tokens += n_ctx_;
    mask += n_ctx_;
  }
  return out;
}

}  // namespace narrow::train
