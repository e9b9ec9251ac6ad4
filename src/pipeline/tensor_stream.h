// One tensor of a source in another format, a bounded number of rows at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/aligned_buffer.h"
#include "calib/stats.h"
#include "model/source.h"
#include "narrow/progress.h"
#include "quant/quantizer.h"

namespace narrow::pipeline {

struct StreamStats {
  quant::WeightError error;
  std::uint64_t overflowed = 0;  // finite values that became infinite
  std::uint64_t flushed = 0;     // non-zero values that became zero; counted for f16 and bf16 only
};

// `n` values to a float format, counting what the format cannot hold. Threaded; `scratch` is working memory.
Status cast_values(const float* in, std::int64_t n, Format to, std::byte* out, AlignedBuffer<float>& scratch,
                   StreamStats& stats);

// "[row, column]" of an element.
std::string position_text(const Shape& shape, std::int64_t element);

// kNumeric: where a model's NaN or infinity is.
Error non_finite_error(const std::string& file, const TensorInfo& t, std::int64_t element, float value);

// Receives the stored bytes in order: `byte_offset` from the start of the tensor.
using WriteBytes = std::function<Status(std::uint64_t byte_offset, std::span<const std::byte> data)>;

using Importance = std::map<std::string, std::vector<calib::Moments>, std::less<>>;

class TensorStream {
 public:
  // `method` may be null where only floats are written.
  // `importance` may be null: what is known of the inputs of tensors, by name, one entry or one per expert.
  TensorStream(const model::ModelSource& source, const quant::Method* method, bool search,
               ProgressSink& progress, const Importance* importance = nullptr)
      : source_(source), method_(method), search_(search), progress_(progress), importance_(importance) {}

  // Tensor `index` in `to`. kNumeric names the first NaN or infinity; kCancelled when the sink says so. The
  // same bytes for any number of threads.
  Status run(std::size_t index, Format to, const WriteBytes& write, StreamStats& stats);

 private:
  Status copy(std::size_t index, std::int64_t begin, std::int64_t end, std::span<std::byte> out);
  Status decode(std::size_t index, std::int64_t begin, std::int64_t end);
  Status encode(std::size_t index, std::int64_t begin, std::int64_t n, Format to, StreamStats& stats);
  Status quantize_rows(const TensorInfo& t, std::int64_t begin, std::int64_t n,
                       const quant::QuantizeSpec& spec, quant::WeightError& error);

  const model::ModelSource& source_;
  const quant::Method* method_;
  bool search_;
  ProgressSink& progress_;
  const Importance* importance_;
  AlignedBuffer<float> decoded_, scratch_;
  AlignedBuffer<std::byte> encoded_;
  std::uint64_t done_bytes_ = 0;  // source bytes, for progress
};

}  // namespace narrow::pipeline
