#include "ops/matmul.h"

#include <algorithm>
#include <mutex>
#include <optional>
#include <vector>

#include "base/thread_team.h"
#include "kernels/dispatch.h"
#include "ops/gemm.h"
#include "ops/scratch.h"

namespace narrow::ops {
namespace {

constexpr std::int64_t kScratchFloats = 256 * 1024;
constexpr std::int64_t kMinTile = 16, kMaxTile = 256;

// Output features per tile: as many rows of k as fit the scratch. A function of k alone.
std::int64_t tile_features(std::int64_t k) {
  const std::int64_t fit = kScratchFloats / std::max<std::int64_t>(k, 1) / kMinTile * kMinTile;
  return std::clamp(fit, kMinTile, kMaxTile);
}

// For a single token: enough work per item to pay for handing it out.
std::int64_t single_token_features(std::int64_t k) {
  return std::clamp<std::int64_t>(32 * 1024 / std::max<std::int64_t>(k, 1), 8, kMaxTile);
}

Status check_product(ConstMatrix x, const Product& p) {
  if (p.weight.shape.rank() != 2 || p.weight.shape[1] != x.cols) {
    return make_error(ErrorCode::kInvalidArgument,
                      "matmul: x {} does not fit the weight {}, which must be [n, {}]", x.shape().text(),
                      p.weight.shape.text(), x.cols);
  }
  if (p.out.rows != x.rows || p.out.cols != p.weight.shape[0]) {
    return make_error(ErrorCode::kInvalidArgument, "matmul: x {} * weight {}^T does not fit the output {}",
                      x.shape().text(), p.weight.shape.text(), p.out.shape().text());
  }
  const FormatInfo& format = format_info(p.weight.format);
  if (format.decode == nullptr) {
    return make_error(ErrorCode::kUnsupported,
                      "matmul: weight {} is stored as {}, which is not a number to multiply by",
                      p.weight.shape.text(), format.name);
  }
  if (x.cols % format.block_size != 0) {
    return make_error(ErrorCode::kInvalidArgument,
                      "matmul: rows of the weight {} are no multiple of {}'s block of {}",
                      p.weight.shape.text(), format.name, format.block_size);
  }
  return {};
}

// A run of output features of one product.
struct Tile {
  const Product* product;
  std::int64_t begin, count;
};

std::vector<Tile> cut_tiles(std::span<const Product> products, std::int64_t features) {
  std::vector<Tile> tiles;
  for (const Product& p : products) {
    for (std::int64_t begin = 0; begin < p.out.cols; begin += features) {
      tiles.push_back({&p, begin, std::min(features, p.out.cols - begin)});
    }
  }
  return tiles;
}

// Mapped f32 rows are used where they lie when they are aligned as floats must be; null otherwise.
const float* as_floats(Format format, const std::byte* rows) {
  const bool aligned = reinterpret_cast<std::uintptr_t>(rows) % alignof(float) == 0;
  return format == Format::kF32 && aligned ? reinterpret_cast<const float*>(rows) : nullptr;
}

void single_token_tile(const float* x, const Tile& tile, float* scratch) {
  const kernels::KernelTable& kt = kernels::kernels();
  const TensorView& w = tile.product->weight;
  const std::int64_t k = w.shape[1];
  const auto id = static_cast<std::size_t>(w.format);
  const kernels::VecDot vec_dot = id < kernels::kVecDotSlots ? kt.vec_dot[id] : nullptr;
  const FormatInfo& format = format_info(w.format);
  const std::size_t stride = w.stride_bytes();
  const std::byte* row = w.data + static_cast<std::size_t>(tile.begin) * stride;
  float* y = tile.product->out.data + tile.begin;
  for (std::int64_t i = 0; i < tile.count; ++i, row += stride) {
    if (vec_dot != nullptr && reinterpret_cast<std::uintptr_t>(row) % 2 == 0) {
      y[i] = vec_dot(row, x, k);
      continue;
    }
    const float* weights = as_floats(w.format, row);
    if (weights == nullptr) {
      format.decode(row, scratch, k);
      weights = scratch;
    }
    y[i] = kt.dot_f32(weights, x, k);
  }
}

Status many_tokens_tile(ConstMatrix x, const Tile& tile, float* scratch) {
  const TensorView& w = tile.product->weight;
  const std::int64_t k = w.shape[1];
  const std::size_t stride = w.stride_bytes();
  const std::byte* rows = w.data + static_cast<std::size_t>(tile.begin) * stride;
  const float* weights = as_floats(w.format, rows);
  if (weights == nullptr) {
    const DecodeRow decode = format_info(w.format).decode;
    for (std::int64_t i = 0; i < tile.count; ++i) {
      decode(rows + static_cast<std::size_t>(i) * stride, scratch + i * k, k);
    }
    weights = scratch;
  }
  const Matrix& out = tile.product->out;
  return gemm_f32_single(true, x.rows, tile.count, k, 1.0f, x.data, x.stride, weights, k,
                         out.data + tile.begin, out.stride);
}

}  // namespace

Status matmul(ConstMatrix x, std::span<const Product> products) {
  for (const Product& p : products) NARROW_TRY(check_product(x, p));
  if (x.rows == 0) return {};
  const std::int64_t k = x.cols;
  const bool single = x.rows == 1;
  const std::int64_t features = single ? single_token_features(k) : tile_features(k);
  const std::vector<Tile> tiles = cut_tiles(products, features);

  thread_local Scratch scratch;
  scratch.prepare(static_cast<std::size_t>(single ? k : features * k));
  Scratch& memory = scratch;  // of the calling thread, also inside the region

  std::mutex mutex;
  std::optional<Error> failure;
  parallel_for(static_cast<std::int64_t>(tiles.size()), [&](std::int64_t i, int thread) {
    const Tile& tile = tiles[static_cast<std::size_t>(i)];
    if (single) {
      single_token_tile(x.data, tile, memory.of(thread));
      return;
    }
    const Status status = many_tokens_tile(x, tile, memory.of(thread));
    if (status.ok()) return;
    const std::lock_guard lock(mutex);
    failure = status.error();
  });
  if (failure) return *failure;
  return {};
}

Status matmul(ConstMatrix x, const TensorView& weight, Matrix out) {
  const Product product{weight, out};
  return matmul(x, std::span<const Product>(&product, 1));
}

}  // namespace narrow::ops
