#include "ops/rows.h"

#include "base/thread_team.h"
#include "kernels/dispatch.h"

namespace narrow::ops {
namespace {

// Below this many floats handing rows out costs more than the work.
constexpr std::int64_t kSerialFloats = 4 * 1024;
// Rows per item, so that a small row is not an item of its own.
constexpr std::int64_t kItemFloats = 2 * 1024;

}  // namespace

void for_rows(std::int64_t m, std::int64_t floats_per_row, const std::function<void(std::int64_t)>& body) {
  if (m * floats_per_row <= kSerialFloats) {
    for (std::int64_t r = 0; r < m; ++r) body(r);
    return;
  }
  const std::int64_t step =
      std::max<std::int64_t>(1, kItemFloats / std::max<std::int64_t>(1, floats_per_row));
  parallel_for((m + step - 1) / step, [&](std::int64_t item, int) {
    const std::int64_t end = std::min(m, (item + 1) * step);
    for (std::int64_t r = item * step; r < end; ++r) body(r);
  });
}

Status embedding(const TensorView& table, std::span<const std::int32_t> ids, float scale, Matrix out) {
  if (table.shape.rank() != 2 || out.rows != static_cast<std::int64_t>(ids.size()) ||
      out.cols != table.shape[1]) {
    return make_error(ErrorCode::kInvalidArgument,
                      "embedding: {} ids of the table {} do not fit the output {}", ids.size(),
                      table.shape.text(), out.shape().text());
  }
  for (const std::int32_t id : ids) {
    if (id < 0 || id >= table.shape[0]) {
      return make_error(ErrorCode::kInvalidArgument, "embedding: token id {} is outside the vocabulary of {}",
                        id, table.shape[0]);
    }
  }
  for (std::int64_t r = 0; r < out.rows; ++r) {
    float* row = out.row(r);
    NARROW_TRY(decode_row(table.format, table.row(ids[static_cast<std::size_t>(r)]), row, out.cols));
    if (scale == 1.0f) continue;
    for (std::int64_t i = 0; i < out.cols; ++i) row[i] *= scale;
  }
  return {};
}

void rms_norm(ConstMatrix x, const float* gain, float eps, std::int64_t k, Matrix out) {
  for_rows(x.rows, x.cols, [&](std::int64_t r) {
    for (std::int64_t c = 0; c < x.cols; c += k) {
      kernels::kernels().rms_norm(x.row(r) + c, gain, eps, out.row(r) + c, k);
    }
  });
}

void layer_norm(ConstMatrix x, const float* gain, const float* bias, float eps, Matrix out) {
  for_rows(x.rows, x.cols, [&](std::int64_t r) {
    kernels::kernels().layer_norm(x.row(r), gain, bias, eps, out.row(r), x.cols);
  });
}

void add_bias(Matrix y, const float* bias) {
  for_rows(y.rows, y.cols, [&](std::int64_t r) { kernels::kernels().add_f32(bias, y.row(r), y.cols); });
}

void add_scaled(ConstMatrix x, float scale, Matrix y) {
  for_rows(y.rows, y.cols, [&](std::int64_t r) {
    if (scale == 1.0f) {
      kernels::kernels().add_f32(x.row(r), y.row(r), y.cols);
    } else {
      kernels::kernels().axpy_f32(scale, x.row(r), y.row(r), y.cols);
    }
  });
}

void rope(Matrix x, std::int64_t head_dim, std::int64_t dims, bool interleaved, ConstMatrix cos,
          ConstMatrix sin) {
  const auto rotate = interleaved ? kernels::kernels().rope_interleaved : kernels::kernels().rope_half;
  for_rows(x.rows, x.cols, [&](std::int64_t r) {
    for (std::int64_t c = 0; c < x.cols; c += head_dim) rotate(x.row(r) + c, cos.row(r), sin.row(r), dims);
  });
}

void scale_and_cap(Matrix x, float scale, float cap) {
  if (scale == 1.0f && cap == 0.0f) return;
  for_rows(x.rows, x.cols, [&](std::int64_t r) {
    float* row = x.row(r);
    if (scale != 1.0f) {
      for (std::int64_t i = 0; i < x.cols; ++i) row[i] *= scale;
    }
    if (cap != 0.0f) kernels::kernels().softcap(row, cap, x.cols);
  });
}

}  // namespace narrow::ops
