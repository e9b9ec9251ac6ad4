#include "ops/weight.h"

#include <algorithm>

#include "base/thread_team.h"
#include "kernels/dispatch.h"

namespace narrow::ops {
namespace {

std::int64_t panel_count(const Weight& w) {
  const std::int64_t rows = kernels::kernels().panel_rows;
  return (w.n() + rows - 1) / rows;
}

}  // namespace

const kernels::PackedKernel* packed_kernel(Format format) {
  const auto id = static_cast<std::size_t>(format);
  return id < kernels::kVecDotSlots ? kernels::kernels().packed[id] : nullptr;
}

std::vector<std::size_t> PackedWeights::reserve(const std::vector<Weight*>& weights) {
  std::vector<std::size_t> offsets;
  std::size_t total = 0;
  for (const Weight* w : weights) {
    offsets.push_back(total);
    const kernels::PackedKernel* kernel = packed_kernel(w->stored.format);
    if (kernel != nullptr) total += static_cast<std::size_t>(panel_count(*w)) * kernel->panel_bytes(w->k());
  }
  panels_ = HugeBuffer(total);
  return offsets;
}

bool PackedWeights::pack_one(Weight& weight, std::size_t offset) {
  const kernels::PackedKernel* kernel = packed_kernel(weight.stored.format);
  if (kernel == nullptr) return false;
  const std::int64_t panel_rows = kernels::kernels().panel_rows, k = weight.k();
  const std::size_t panel_bytes = kernel->panel_bytes(k), stride = weight.stored.stride_bytes();
  std::byte* panels = panels_.data() + offset;
  parallel_for(panel_count(weight), [&](std::int64_t p, int) {
    const std::int64_t begin = p * panel_rows;
    kernel->pack(weight.stored.row(begin), stride, std::min(panel_rows, weight.n() - begin), k,
                 panels + static_cast<std::size_t>(p) * panel_bytes);
  });
  weight.kernel = kernel;
  weight.panels = panels;
  return true;
}

}  // namespace narrow::ops
