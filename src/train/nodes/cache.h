// Keys and values as the KV cache stores them (kernels/attention.h).
#pragma once

#include "formats/format.h"
#include "train/nodes/node.h"

namespace narrow::train {

// x [.., head_dim], fp32: each head by itself in blocks of 32 with the store's own arithmetic, bit for bit
// what attention reads back. Gradients pass unchanged (the range follows the values); other dtypes go through
// fp32.
class CacheNode : public Node {
 public:
  // kUnsupported: formats other than f32, f16, q8_0, q4_0, and head sizes that do not fit. `rotate` (keys
  // only): stored after a Walsh-Hadamard transform, which is undone here as queries are turned alike there.
  static Result<std::shared_ptr<CacheNode>> create(Format format, std::int64_t head_dim, bool rotate = false);

  at::Tensor apply(const at::Tensor& x) override;
  std::string describe() const override;

 private:
  CacheNode(Format format, std::int64_t head_dim, std::int64_t rotation)
      : format_(format), head_dim_(head_dim), rotation_(rotation) {}
  Format format_;
  std::int64_t head_dim_, rotation_;  // elements per transform; 0: none
};

}  // namespace narrow::train
