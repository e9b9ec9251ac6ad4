#include "ops/matmul.h"

#include <algorithm>
#include <mutex>
#include <optional>
#include <vector>

#include "base/thread_team.h"
#include "kernels/dispatch.h"
#include "ops/gemm.h"
#include "ops/scratch.h"
#include "ops/simulate.h"

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

Status check_product(const Activations& x, const Product& p) {
  const Shape& shape = p.weight.stored.shape;
  const Shape given{x.rows(), x.cols()};
  if (shape.rank() != 2 || shape[1] != x.cols()) {
    return make_error(ErrorCode::kInvalidArgument,
                      "matmul: x {} does not fit the weight {}, which must be [n, {}]", given.text(),
                      shape.text(), x.cols());
  }
  if (p.out.rows != x.rows() || p.out.cols != shape[0]) {
    return make_error(ErrorCode::kInvalidArgument, "matmul: x {} * weight {}^T does not fit the output {}",
                      given.text(), shape.text(), p.out.shape().text());
  }
  const FormatInfo& format = format_info(p.weight.stored.format);
  if (format.decode == nullptr && p.weight.code_scales == nullptr) {
    return make_error(ErrorCode::kUnsupported,
                      "matmul: weight {} is stored as {}, which is not a number to multiply by", shape.text(),
                      format.name);
  }
  if (x.cols() % format.block_size != 0) {
    return make_error(ErrorCode::kInvalidArgument,
                      "matmul: rows of the weight {} are no multiple of {}'s block of {}", shape.text(),
                      format.name, format.block_size);
  }
  const bool prepared = p.weight.simulated != nullptr ? x.simulated().data != nullptr
                        : !p.weight.packed()          ? x.f32().data != nullptr
                        : p.weight.dense != nullptr   ? x.tokens().q != nullptr
                                                      : x.blocks().q != nullptr;
  if (x.rows() > 0 && !prepared) {
    return make_error(ErrorCode::kInvalidArgument, "matmul: x {} was not prepared for the weight {}",
                      given.text(), shape.text());
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
    if (p.weight.packed() || p.weight.simulated != nullptr) continue;
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
  const TensorView& w = tile.product->weight.stored;
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
  const TensorView& w = tile.product->weight.stored;
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

Status multiply_stored(ConstMatrix x, std::span<const Product> products) {
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

// Work is handed out as runs of panels over all products, large ones first: a thread that reads on and on is
// as fast as memory, and the small ones at the end let all threads finish together. An item takes this share
// of what is left per thread, and no less than the bytes. Results do not depend on it.
constexpr double kShareOfRest = 0.67;
constexpr std::size_t kMinItemBytes = 16 * 1024;

class PackedItems {
 public:
  explicit PackedItems(std::span<const Product> products) {
    std::size_t total = 0;
    for (const Product& p : products) {
      if (!p.weight.packed()) continue;
      Segment s{&p, p.weight.panel_rows(), p.weight.panel_bytes(), n_panels_, 0};
      s.count = (p.out.cols + s.panel_rows - 1) / s.panel_rows;
      n_panels_ += s.count;
      total += static_cast<std::size_t>(s.count) * s.panel_bytes;
      segments_.push_back(s);
    }
    const double panel_bytes = static_cast<double>(total) / static_cast<double>(n_panels_);
    const auto least = std::max<std::int64_t>(2, static_cast<std::int64_t>(kMinItemBytes / panel_bytes));
    for (std::int64_t at = 0; at < n_panels_;) {
      begins_.push_back(at);
      const double share = kShareOfRest * static_cast<double>(n_panels_ - at) / thread_count();
      // Kernels work on pairs of panels.
      at += std::max(least, static_cast<std::int64_t>(share)) / 2 * 2;
    }
  }
  std::int64_t count() const { return static_cast<std::int64_t>(begins_.size()); }

  // f(product, first panel, panels) for the parts of one item.
  template <class F>
  void for_each_part(std::int64_t item, F f) const {
    const auto i = static_cast<std::size_t>(item);
    const std::int64_t begin = begins_[i];
    const std::int64_t end = i + 1 < begins_.size() ? begins_[i + 1] : n_panels_;
    for (const Segment& s : segments_) {
      const std::int64_t from = std::max(begin, s.first), to = std::min(end, s.first + s.count);
      if (from < to) f(*s.product, s, from - s.first, to - from);
    }
  }

  struct Segment {
    const Product* product;
    std::int64_t panel_rows;
    std::size_t panel_bytes;
    std::int64_t first, count;  // panels, counted over all products
  };

 private:
  std::vector<Segment> segments_;
  std::vector<std::int64_t> begins_;
  std::int64_t n_panels_ = 0;
};

void multiply_packed(const Activations& x, std::span<const Product> products) {
  std::size_t scratch_bytes = 0;
  for (const Product& p : products) {
    if (p.weight.kernel == nullptr) continue;
    scratch_bytes = std::max(scratch_bytes, p.weight.kernel->scratch_bytes(x.cols(), x.rows()));
  }
  thread_local Scratch scratch;
  scratch.prepare(scratch_bytes / sizeof(float) + 1);
  Scratch& memory = scratch;  // of the calling thread, also inside the region

  const PackedItems items(products);
  parallel_for(items.count(), [&](std::int64_t item, int thread) {
    items.for_each_part(
        item, [&](const Product& p, const PackedItems::Segment& s, std::int64_t panel, std::int64_t count) {
          const std::int64_t begin = panel * s.panel_rows;
          const std::int64_t rows = std::min(count * s.panel_rows, p.out.cols - begin);
          const std::byte* panels = p.weight.panels + static_cast<std::size_t>(panel) * s.panel_bytes;
          if (p.weight.dense != nullptr) {
            p.weight.dense->multiply(panels, rows, x.tokens(), p.out.data + begin, p.out.stride);
          } else {
            p.weight.kernel->multiply(panels, rows, x.blocks(), p.out.data + begin, p.out.stride,
                                      reinterpret_cast<std::byte*>(memory.of(thread)));
          }
          add_outliers(x, p, begin, begin + rows);
        });
  });
}

}  // namespace

Status matmul(const Activations& x, std::span<const Product> products) {
  for (const Product& p : products) NARROW_TRY(check_product(x, p));
  if (x.rows() == 0) return {};
  bool packed = false, stored = false;
  for (const Product& p : products) {
    if (p.weight.simulated != nullptr) {
      multiply_simulated(x, p);
    } else {
      (p.weight.packed() ? packed : stored) = true;
    }
  }
  if (packed) multiply_packed(x, products);
  if (stored) return multiply_stored(x.f32(), products);
  return {};
}

Status matmul(const Activations& x, const Weight& weight, Matrix out) {
  const Product product{weight, out};
  return matmul(x, std::span<const Product>(&product, 1));
}

}  // namespace narrow::ops
