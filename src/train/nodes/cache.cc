#include "train/nodes/cache.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "kernels/attention.h"
#include "kernels/dispatch.h"
#include "train/nodes/round_to_grid.h"

namespace narrow::train {
namespace {

// y = H x / sqrt(block), in the order of kernels/attention.h.
void hadamard(float* x, std::int64_t n, std::int64_t block) {
  const float norm = 1.0f / std::sqrt(static_cast<float>(block));
  for (std::int64_t half = 1; half < block; half *= 2) {
    for (std::int64_t i = 0; i < n; i += 2 * half) {
      for (std::int64_t j = i; j < i + half; ++j) {
        const float a = x[j], b = x[j + half];
        x[j] = a + b;
        x[j + half] = a - b;
      }
    }
  }
  for (std::int64_t i = 0; i < n; ++i) x[i] *= norm;
}

}  // namespace

Result<std::shared_ptr<CacheNode>> CacheNode::create(Format format, std::int64_t head_dim, bool rotate) {
  NARROW_ASSIGN(const kernels::HeadLayout layout, kernels::head_layout(format, format, head_dim, rotate));
  return std::shared_ptr<CacheNode>(
      new CacheNode(format, head_dim, layout.rotation > 1 ? layout.rotation : 0));
}

// Values are stored as rows of the format, and with the arithmetic of keys: the store's value side serves
// both.
at::Tensor CacheNode::apply(const at::Tensor& x) {
  if (phase() == Phase::kOff || phase() == Phase::kObserve) return x;
  TORCH_CHECK(x.dim() >= 1 && x.size(-1) == head_dim_, "KV cache of heads of ", head_dim_, " gets heads of ",
              x.size(-1));
  if (x.scalar_type() != at::kFloat) return apply(x.to(at::kFloat)).to(x.scalar_type());
  const at::Tensor rows = x.reshape({-1, head_dim_}).contiguous(), plain = rows.detach();
  at::Tensor out = at::empty_like(plain);
  const auto layout = kernels::head_layout(Format::kF32, format_, head_dim_, false);
  const kernels::HeadLayout& head = *layout;
  over_rows(plain.size(0), 8 * head_dim_, [&](std::int64_t begin, std::int64_t end) {
    std::vector<std::byte> page(head.bytes + 64);
    void* start = page.data();
    std::size_t room = page.size();
    auto* memory = static_cast<std::byte*>(std::align(64, head.bytes, start, room));
    std::vector<float> row(static_cast<std::size_t>(head.padded_dim));
    for (std::int64_t r = begin; r < end; ++r) {
      const float* from = plain.data_ptr<float>() + r * head_dim_;
      std::copy(from, from + head_dim_, row.begin());
      if (rotation_ > 0) hadamard(row.data(), head_dim_, rotation_);
      kernels::kernels().attention->store(head, row.data(), row.data(), 0, memory);
      format_info(format_).decode(memory + head.values_offset, row.data(), head_dim_);
      if (rotation_ > 0) hadamard(row.data(), head_dim_, rotation_);
      std::copy(row.begin(), row.begin() + head_dim_, out.data_ptr<float>() + r * head_dim_);
    }
  });
  return straight_through(rows, out).view(x.sizes());
}

std::string CacheNode::describe() const {
  return fmt::format("{}{}", format_info(format_).name, rotation_ > 0 ? ", rotated" : "");
}

}  // namespace narrow::train
