#include "runtime/batch.h"

#include <algorithm>

#include "runtime/decoder.h"

namespace narrow::runtime {
namespace {

constexpr std::int64_t kDefaultContext = 4096;
// No machine served has more memory; below it no product of sizes overflows.
constexpr double kMaxCacheBytes = 0x1p46;

// A part of a step that fits a run.
struct Piece {
  std::size_t step = 0, begin = 0, size = 0;
};

class DecoderBatch final : public Batch {
 public:
  DecoderBatch(std::unique_ptr<Decoder> decoder, std::vector<KvSequence> sequences, std::int64_t n_vocab,
               std::int64_t n_ctx)
      : decoder_(std::move(decoder)), sequences_(std::move(sequences)), n_vocab_(n_vocab), n_ctx_(n_ctx) {}

  Status forward(std::span<const Step> steps, std::vector<float>& logits) override {
    NARROW_TRY(check(steps));
    std::size_t rows = 0;
    for (const Step& s : steps) rows += s.tokens.size() - s.logits_from;
    logits.resize(rows * static_cast<std::size_t>(n_vocab_));
    start_.clear();
    for (const Step& s : steps) start_.push_back(sequence(s.sequence).length());

    const Status status = run(steps, logits.data());
    if (!status.ok()) {
      for (std::size_t i = 0; i < steps.size(); ++i) {
        NARROW_TRY(sequence(steps[i].sequence).truncate(start_[i]));
      }
    }
    return status;
  }

  Status share_prefix(int from, int to, std::int64_t positions) override {
    if (from < 0 || from >= n_sequences() || to < 0 || to >= n_sequences() || from == to || positions < 0 ||
        positions > sequence(from).length()) {
      return make_error(ErrorCode::kInvalidArgument,
                        "sequence {} of {} cannot take {} positions from sequence {}, which has {}", to,
                        n_sequences(), positions, from,
                        from >= 0 && from < n_sequences() ? sequence(from).length() : 0);
    }
    NARROW_ASSIGN(sequence(to), sequence(from).fork(positions));
    return {};
  }

  std::int64_t position(int s) const override { return sequences_[static_cast<std::size_t>(s)].length(); }
  Status truncate(int s, std::int64_t position) override {
    return sequence(s).truncate(std::clamp<std::int64_t>(position, 0, sequence(s).length()));
  }
  int n_sequences() const override { return static_cast<int>(sequences_.size()); }
  std::int64_t n_ctx() const override { return n_ctx_; }
  std::uint64_t cache_bytes() const override { return decoder_->pool().bytes_in_use(); }

 private:
  KvSequence& sequence(int i) { return sequences_[static_cast<std::size_t>(i)]; }

  Status check(std::span<const Step> steps) {
    for (std::size_t i = 0; i < steps.size(); ++i) {
      const Step& s = steps[i];
      if (s.sequence < 0 || s.sequence >= n_sequences()) {
        return make_error(ErrorCode::kInvalidArgument, "sequence {} is none of the {}", s.sequence,
                          n_sequences());
      }
      for (std::size_t j = 0; j < i; ++j) {
        if (steps[j].sequence == s.sequence) {
          return make_error(ErrorCode::kInvalidArgument, "sequence {} has two steps in one batch",
                            s.sequence);
        }
      }
      if (s.logits_from > s.tokens.size()) {
        return make_error(ErrorCode::kInvalidArgument, "logits asked from token {} of {}", s.logits_from,
                          s.tokens.size());
      }
      const std::int64_t present = sequence(s.sequence).length();
      if (present + static_cast<std::int64_t>(s.tokens.size()) > n_ctx_) {
        return make_error(
            ErrorCode::kInvalidArgument,
            "{} tokens after the {} present do not fit the context of {}; a larger --ctx is needed",
            s.tokens.size(), present, n_ctx_);
      }
      for (const std::int32_t t : s.tokens) {
        if (t < 0 || t >= n_vocab_) {
          return make_error(ErrorCode::kInvalidArgument,
                            "token id {} is outside the model's vocabulary of {}", t, n_vocab_);
        }
      }
    }
    return {};
  }

  // Steps in order, cut into runs of at most kChunk tokens.
  Status run(std::span<const Step> steps, float* out) {
    std::size_t in_run = 0;
    pieces_.clear();
    for (std::size_t i = 0; i < steps.size(); ++i) {
      for (std::size_t begin = 0; begin < steps[i].tokens.size();) {
        const std::size_t size = std::min(kChunk - in_run, steps[i].tokens.size() - begin);
        pieces_.push_back({i, begin, size});
        begin += size;
        in_run += size;
        if (in_run < kChunk) continue;
        NARROW_TRY(run_pieces(steps, out));
        in_run = 0;
        pieces_.clear();
      }
    }
    return pieces_.empty() ? Status() : run_pieces(steps, out);
  }

  Status run_pieces(std::span<const Step> steps, float*& out) {
    runs_.clear();
    rows_.clear();
    std::int64_t row = 0;
    for (const Piece& p : pieces_) {
      const Step& s = steps[p.step];
      runs_.push_back({&sequence(s.sequence), s.tokens.subspan(p.begin, p.size)});
      for (std::size_t i = 0; i < p.size; ++i, ++row) {
        if (p.begin + i >= s.logits_from) rows_.push_back(row);
      }
    }
    NARROW_TRY(decoder_->run(runs_));
    if (rows_.empty()) return {};
    NARROW_TRY(decoder_->logits(rows_, out));
    out += static_cast<std::int64_t>(rows_.size()) * n_vocab_;
    return {};
  }

  std::unique_ptr<Decoder> decoder_;
  std::vector<KvSequence> sequences_;  // their pages live in the decoder's pool
  std::int64_t n_vocab_, n_ctx_;
  std::vector<std::int64_t> start_, rows_;
  std::vector<Piece> pieces_;
  std::vector<Run> runs_;
};

}  // namespace

Result<std::unique_ptr<Batch>> Batch::create(std::shared_ptr<const LoadedModel> model, int n_sequences,
                                             const SessionOptions& options) {
  const model::ModelConfig& c = model->config();
  if (n_sequences < 1) {
    return make_error(ErrorCode::kInvalidArgument, "a batch of {} sequences; at least 1 needed", n_sequences);
  }
  const std::int64_t n_ctx = options.n_ctx != 0 ? options.n_ctx : std::min(c.n_ctx_train, kDefaultContext);
  if (n_ctx < 1) {
    return make_error(ErrorCode::kInvalidArgument, "a context of {} tokens; at least 1 needed", n_ctx);
  }
  if (c.position == model::Position::kLearned && n_ctx > c.n_ctx_train) {
    return make_error(ErrorCode::kInvalidArgument,
                      "a context of {} tokens, but this model has learned positions for {} only", n_ctx,
                      c.n_ctx_train);
  }
  const double cache_bytes = 2.0 * sizeof(float) * n_sequences * static_cast<double>(c.n_layer) *
                             static_cast<double>(c.n_head_kv * c.head_dim) * static_cast<double>(n_ctx);
  if (cache_bytes > kMaxCacheBytes) {
    return make_error(ErrorCode::kOutOfMemory,
                      "a context of {} tokens needs {:.0f} GB for keys and values; a smaller --ctx is needed",
                      n_ctx, cache_bytes / 1e9);
  }
  const std::int64_t n_vocab = c.n_vocab;
  NARROW_ASSIGN(std::unique_ptr<Decoder> decoder,
                Decoder::create(std::move(model), n_sequences, n_ctx, options));
  std::vector<KvSequence> sequences;
  for (int i = 0; i < n_sequences; ++i) sequences.emplace_back(decoder->pool());
  return std::unique_ptr<Batch>(
      std::make_unique<DecoderBatch>(std::move(decoder), std::move(sequences), n_vocab, n_ctx));
}

}  // namespace narrow::runtime
