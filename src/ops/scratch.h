// Per-thread work memory that is set up before a parallel region, so that nothing is allocated inside it.
#pragma once

#include <algorithm>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/thread_team.h"

namespace narrow::ops {

// Grows to the largest request and stays; one per calling thread and use (thread_local at the caller). New
// memory starts with kZeroed zeros, where kernels note what they have prepared.
class Scratch {
 public:
  static constexpr std::size_t kZeroed = 16;  // 64 bytes

  void prepare(std::size_t floats_per_thread) {
    const std::size_t threads = static_cast<std::size_t>(thread_count());
    if (buffers_.size() < threads) buffers_.resize(threads);
    for (AlignedBuffer<float>& b : buffers_) {
      if (b.size() >= floats_per_thread) continue;
      b.resize(floats_per_thread);
      std::fill_n(b.data(), std::min(floats_per_thread, kZeroed), 0.0f);
    }
  }
  float* of(int thread) { return buffers_[static_cast<std::size_t>(thread)].data(); }

 private:
  std::vector<AlignedBuffer<float>> buffers_;
};

}  // namespace narrow::ops
