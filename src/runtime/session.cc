#include "runtime/session.h"

#include <algorithm>

#include "runtime/decoder.h"

namespace narrow::runtime {
namespace {

constexpr std::int64_t kDefaultContext = 4096;
// No machine served has more memory; below it no product of sizes overflows.
constexpr double kMaxCacheBytes = 0x1p46;

class DecoderSession final : public Session {
 public:
  DecoderSession(std::unique_ptr<Decoder> decoder, std::int64_t n_vocab)
      : decoder_(std::move(decoder)), n_vocab_(n_vocab) {}

  Status forward(std::span<const std::int32_t> tokens, LogitRows rows, std::vector<float>& logits) override {
    switch (rows) {
      case LogitRows::kNone:
        return forward_from(tokens, tokens.size(), logits);
      case LogitRows::kLast:
        return forward_from(tokens, tokens.empty() ? 0 : tokens.size() - 1, logits);
      case LogitRows::kAll:
        break;
    }
    return forward_from(tokens, 0, logits);
  }

  Status forward_from(std::span<const std::int32_t> tokens, std::size_t first,
                      std::vector<float>& logits) override {
    NARROW_TRY(check(tokens, first));
    logits.resize((tokens.size() - first) * static_cast<std::size_t>(n_vocab_));
    float* out = logits.data();
    for (std::size_t begin = 0; begin < tokens.size(); begin += kChunk) {
      const std::size_t size = std::min<std::size_t>(kChunk, tokens.size() - begin);
      NARROW_TRY(decoder_->run(tokens.subspan(begin, size), position_ + static_cast<std::int64_t>(begin)));
      const std::size_t skip = first > begin ? std::min(first - begin, size) : 0;
      if (skip == size) continue;
      const auto count = static_cast<std::int64_t>(size - skip);
      NARROW_TRY(decoder_->logits(static_cast<std::int64_t>(skip), count, out));
      out += count * n_vocab_;
    }
    position_ += static_cast<std::int64_t>(tokens.size());
    return {};
  }

  std::int64_t position() const override { return position_; }
  void truncate(std::int64_t position) override {
    position_ = std::clamp<std::int64_t>(position, 0, position_);
  }
  std::int64_t n_ctx() const override { return decoder_->cache().capacity(); }
  std::uint64_t cache_bytes() const override { return decoder_->cache().bytes(); }

 private:
  Status check(std::span<const std::int32_t> tokens, std::size_t first) const {
    if (first > tokens.size()) {
      return make_error(ErrorCode::kInvalidArgument, "logits asked from token {} of {}", first,
                        tokens.size());
    }
    const std::int64_t end = position_ + static_cast<std::int64_t>(tokens.size());
    if (end > n_ctx()) {
      return make_error(
          ErrorCode::kInvalidArgument,
          "{} tokens after the {} present do not fit the context of {}; a larger --ctx is needed",
          tokens.size(), position_, n_ctx());
    }
    for (const std::int32_t t : tokens) {
      if (t < 0 || t >= n_vocab_) {
        return make_error(ErrorCode::kInvalidArgument, "token id {} is outside the model's vocabulary of {}",
                          t, n_vocab_);
      }
    }
    return {};
  }

  std::unique_ptr<Decoder> decoder_;
  std::int64_t n_vocab_;
  std::int64_t position_ = 0;
};

}  // namespace

Result<std::unique_ptr<Session>> Session::create(std::shared_ptr<const LoadedModel> model,
                                                 const SessionOptions& options) {
  const model::ModelConfig& c = model->config();
  const std::int64_t n_ctx = options.n_ctx != 0 ? options.n_ctx : std::min(c.n_ctx_train, kDefaultContext);
  if (n_ctx < 1)
    return make_error(ErrorCode::kInvalidArgument, "a context of {} tokens; at least 1 needed", n_ctx);
  if (c.position == model::Position::kLearned && n_ctx > c.n_ctx_train) {
    return make_error(ErrorCode::kInvalidArgument,
                      "a context of {} tokens, but this model has learned positions for {} only", n_ctx,
                      c.n_ctx_train);
  }
  const double cache_bytes = 2.0 * sizeof(float) * static_cast<double>(c.n_layer) *
                             static_cast<double>(c.n_head_kv * c.head_dim) * static_cast<double>(n_ctx);
  if (cache_bytes > kMaxCacheBytes) {
    return make_error(ErrorCode::kOutOfMemory,
                      "a context of {} tokens needs {:.0f} GB for keys and values; a smaller --ctx is needed",
                      n_ctx, cache_bytes / 1e9);
  }
  const std::int64_t n_vocab = c.n_vocab;
  NARROW_ASSIGN(std::unique_ptr<Decoder> decoder, Decoder::create(std::move(model), n_ctx));
  return std::unique_ptr<Session>(std::make_unique<DecoderSession>(std::move(decoder), n_vocab));
}

}  // namespace narrow::runtime
