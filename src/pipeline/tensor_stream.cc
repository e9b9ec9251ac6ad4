#include "pipeline/tensor_stream.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "base/thread_team.h"
#include "formats/cast.h"
#include "pipeline/plan.h"

namespace narrow::pipeline {
namespace {

constexpr std::int64_t kBlockElements = 1 << 16;  // one item of parallel work

// The rows [0, n) cut into blocks of about kBlockElements; fixed by the row length alone.
struct Blocks {
  Blocks(std::int64_t rows, std::int64_t row_length)
      : n(rows), size(std::max<std::int64_t>(1, kBlockElements / std::max<std::int64_t>(1, row_length))) {}
  std::int64_t count() const { return (n + size - 1) / size; }
  std::int64_t begin(std::int64_t b) const { return b * size; }
  std::int64_t end(std::int64_t b) const { return std::min(n, (b + 1) * size); }
  std::int64_t n, size;
};

// What one block found; kept apart so that the totals do not depend on threads.
struct BlockResult {
  Status status;
  std::int64_t bad_element = -1;  // from the start of the block
  float bad_value = 0;
  StreamStats stats;
};

Status first_error(const std::vector<BlockResult>& results) {
  for (const BlockResult& r : results) NARROW_TRY(r.status);
  return {};
}

// What the cast cost in values that stayed finite.
quant::WeightError cast_error(const float* before, const float* after, std::int64_t n) {
  quant::WeightError error;
  for (std::int64_t i = 0; i < n; ++i) {
    if (!std::isinf(after[i])) error.add_values(before + i, after + i, 1);
  }
  return error;
}

}  // namespace

std::string position_text(const Shape& shape, std::int64_t element) {
  std::vector<std::int64_t> at(static_cast<std::size_t>(shape.rank()));
  for (int d = shape.rank() - 1; d >= 0; --d) {
    at[static_cast<std::size_t>(d)] = element % shape[d];
    element /= shape[d];
  }
  return fmt::format("[{}]", fmt::join(at, ", "));
}

Error non_finite_error(const std::string& file, const TensorInfo& t, std::int64_t element, float value) {
  return make_error(ErrorCode::kNumeric, "{}: tensor {} holds {} at {}: the model is damaged; get it again",
                    file, t.name, std::isnan(value) ? "NaN" : "infinity", position_text(t.shape, element));
}

Status cast_values(const float* in, std::int64_t n, Format to, std::byte* out, AlignedBuffer<float>& scratch,
                   StreamStats& stats) {
  const Blocks blocks(n, 1);
  std::vector<BlockResult> results(static_cast<std::size_t>(blocks.count()));
  scratch.reserve_at_least(static_cast<std::size_t>(thread_count() * blocks.size));
  parallel_for(blocks.count(), [&](std::int64_t b, int thread) {
    BlockResult& r = results[static_cast<std::size_t>(b)];
    const std::int64_t first = blocks.begin(b), count = blocks.end(b) - first;
    std::byte* to_bytes = out + row_bytes(to, first);
    float* back = scratch.data() + thread * blocks.size;
    const auto counts = cast_from_f32(to, in + first, to_bytes, count);
    r.status = counts.ok() ? decode_row(to, to_bytes, back, count) : counts.status();
    if (!r.status.ok()) return;
    r.stats.overflowed = counts->overflowed;
    r.stats.flushed = counts->flushed;
    r.stats.error = cast_error(in + first, back, count);
  });
  NARROW_TRY(first_error(results));
  for (const BlockResult& r : results) {
    stats.error.add(r.stats.error);
    stats.overflowed += r.stats.overflowed;
    stats.flushed += r.stats.flushed;
  }
  return {};
}

// Stored rows as they are; floats are still checked.
Status TensorStream::copy(std::size_t index, std::int64_t begin, std::int64_t end, std::span<std::byte> out) {
  const TensorInfo& t = source_.tensors()[index];
  NARROW_TRY(source_.read_raw(index, begin, end, out.data()));
  if (format_info(t.format).kind != FormatKind::kFloat) return {};
  return decode(index, begin, end);
}

// Rows [begin, end) to decoded_.
Status TensorStream::decode(std::size_t index, std::int64_t begin, std::int64_t end) {
  const TensorInfo& t = source_.tensors()[index];
  const std::int64_t k = t.shape.row_length();
  decoded_.reserve_at_least(static_cast<std::size_t>((end - begin) * k));
  const Blocks blocks(end - begin, k);
  std::vector<BlockResult> results(static_cast<std::size_t>(blocks.count()));
  parallel_for(blocks.count(), [&](std::int64_t b, int) {
    BlockResult& r = results[static_cast<std::size_t>(b)];
    const std::int64_t first = blocks.begin(b), last = blocks.end(b);
    float* out = decoded_.data() + first * k;
    r.status = source_.read_f32(index, begin + first, begin + last, out);
    if (!r.status.ok()) return;
    r.bad_element = find_non_finite(out, (last - first) * k);
    if (r.bad_element >= 0) r.bad_value = out[r.bad_element];
  });
  NARROW_TRY(first_error(results));
  for (std::int64_t b = 0; b < blocks.count(); ++b) {
    const BlockResult& r = results[static_cast<std::size_t>(b)];
    if (r.bad_element < 0) continue;
    return non_finite_error(source_.path().string(), t, (begin + blocks.begin(b)) * k + r.bad_element,
                            r.bad_value);
  }
  return {};
}

// The `n` rows in decoded_ to encoded_. `begin` is their place in the tensor.
Status TensorStream::encode(std::size_t index, std::int64_t begin, std::int64_t n, Format to,
                            StreamStats& stats) {
  const TensorInfo& t = source_.tensors()[index];
  const std::int64_t k = t.shape.row_length();
  if (format_info(to).kind == FormatKind::kQuantized) {
    quant::QuantizeSpec spec;
    spec.format = to;
    spec.search = search_;
    quant::WeightError error;
    const Status s = quantize_rows(t, begin, n, spec, error);
    if (!s.ok()) {
      return with_context(s.error(),
                          fmt::format("{}: tensor {}, rows from {}", source_.path().string(), t.name, begin));
    }
    if (!std::isfinite(error.sum_squared_error)) {
      return make_error(ErrorCode::kNumeric,
                        "{}: tensor {}, rows from {}: values too large for the scales of {}; choose bf16 or "
                        "f32 for it by a rule",
                        source_.path().string(), t.name, begin, format_info(to).name);
    }
    stats.error.add(error);
    return {};
  }
  return cast_values(decoded_.data(), n * k, to, encoded_.data(), scratch_, stats);
}

// With the importances of the rows' expert, where they are known.
Status TensorStream::quantize_rows(const TensorInfo& t, std::int64_t begin, std::int64_t n,
                                   const quant::QuantizeSpec& spec, quant::WeightError& error) {
  const std::int64_t k = t.shape.row_length();
  const auto known = importance_ != nullptr ? importance_->find(t.name) : Importance::const_iterator{};
  if (importance_ == nullptr || known == importance_->end()) {
    return method_->quantize(decoded_.data(), n, k, {}, spec, encoded_.data(), &error);
  }
  const std::vector<calib::Moments>& entries = known->second;
  const std::int64_t per_entry = t.shape.rows() / static_cast<std::int64_t>(entries.size());
  for (std::int64_t at = 0; at < n;) {
    const std::int64_t entry = (begin + at) / per_entry;
    const std::int64_t count = std::min(n - at, (entry + 1) * per_entry - (begin + at));
    quant::LayerStats stats;
    stats.mean_square = entries[static_cast<std::size_t>(entry)].mean_square;
    quant::WeightError part;
    NARROW_TRY(method_->quantize(decoded_.data() + at * k, count, k, stats, spec,
                                 encoded_.data() + static_cast<std::size_t>(at) * row_bytes(spec.format, k),
                                 &part));
    error.add(part);
    at += count;
  }
  return {};
}

Status TensorStream::run(std::size_t index, Format to, const WriteBytes& write, StreamStats& stats) {
  const TensorInfo& t = source_.tensors()[index];
  const std::int64_t rows = t.shape.rows(), k = t.shape.row_length();
  const bool same = to == t.format;
  const bool quantizes = !same && format_info(to).kind == FormatKind::kQuantized;
  const std::int64_t chunk = quantizes && !method_->row_independent ? rows : rows_per_chunk(k);
  const std::size_t stride = row_bytes(to, k);
  for (std::int64_t begin = 0; begin < rows; begin += chunk) {
    if (progress_.cancelled()) {
      return make_error(ErrorCode::kCancelled, "cancelled while working on {}", t.name);
    }
    const std::int64_t end = std::min(rows, begin + chunk);
    const std::size_t bytes = static_cast<std::size_t>(end - begin) * stride;
    encoded_.reserve_at_least(bytes);
    if (same) {
      NARROW_TRY(copy(index, begin, end, {encoded_.data(), bytes}));
    } else {
      NARROW_TRY(decode(index, begin, end));
      NARROW_TRY(encode(index, begin, end - begin, to, stats));
    }
    NARROW_TRY(write(static_cast<std::uint64_t>(begin) * stride, {encoded_.data(), bytes}));
    done_bytes_ += static_cast<std::uint64_t>(end - begin) * row_bytes(t.format, k);
    progress_.update(done_bytes_ / 1'000'000, t.name);
  }
  source_.drop(index);
  return {};
}

}  // namespace narrow::pipeline
