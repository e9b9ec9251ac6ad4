#include "runtime/session.h"

#include <algorithm>

#include "runtime/batch.h"

namespace narrow::runtime {
namespace {

class SingleSession final : public Session {
 public:
  explicit SingleSession(std::unique_ptr<Batch> batch) : batch_(std::move(batch)) {}

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
    const Batch::Step step{0, tokens, first};
    return batch_->forward({&step, 1}, logits);
  }

  std::int64_t position() const override { return batch_->position(0); }
  Status truncate(std::int64_t position) override { return batch_->truncate(0, position); }
  std::int64_t n_ctx() const override { return batch_->n_ctx(); }
  std::uint64_t cache_bytes() const override { return batch_->cache_bytes(); }

 private:
  std::unique_ptr<Batch> batch_;
};

}  // namespace

Result<std::unique_ptr<Session>> Session::create(std::shared_ptr<const LoadedModel> model,
                                                 const SessionOptions& options) {
  NARROW_ASSIGN(std::unique_ptr<Batch> batch, Batch::create(std::move(model), 1, options));
  return std::unique_ptr<Session>(std::make_unique<SingleSession>(std::move(batch)));
}

}  // namespace narrow::runtime
