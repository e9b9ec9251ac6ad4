// Several sequences of one model that advance together: one pass over the weights serves all their tokens.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "runtime/session.h"

namespace narrow::runtime {

class Batch {
 public:
  // n_sequences (at least 1) empty sequences of up to n_ctx positions each.
  static Result<std::unique_ptr<Batch>> create(std::shared_ptr<const LoadedModel> model, int n_sequences,
                                               const SessionOptions& options = {});
  virtual ~Batch() = default;

  // Tokens to append to one sequence. Logits are computed for the tokens from index `logits_from` on.
  struct Step {
    int sequence = 0;
    std::span<const std::int32_t> tokens;
    std::size_t logits_from = 0;
  };
  // `logits` becomes [rows, n_vocab], rows in the order of the steps and their tokens; the output layer is
  // computed for these alone. Each sequence at most once. A sequence's logits do not depend on what else is
  // in the batch, bit for bit. Ids out of range and more tokens than n_ctx are kInvalidArgument; nothing
  // changes then.
  virtual Status forward(std::span<const Step> steps, std::vector<float>& logits) = 0;

  // `to` becomes the first `positions` positions of `from`, whose keys and values both then share.
  virtual Status share_prefix(int from, int to, std::int64_t positions) = 0;
  virtual std::int64_t position(int sequence) const = 0;
  // Forgets everything from `position` on; beyond the end that is nothing. kInvalidArgument where sliding
  // windows have let go of what `position` would see (KvSequence::truncate); 0 always works.
  virtual Status truncate(int sequence, std::int64_t position) = 0;
  virtual int n_sequences() const = 0;
  virtual std::int64_t n_ctx() const = 0;         // of each sequence
  virtual std::uint64_t cache_bytes() const = 0;  // keys and values of all positions in use, shared ones once
};

}  // namespace narrow::runtime
