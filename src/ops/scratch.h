// Per-thread work memory that is set up before a parallel region, so that nothing is allocated inside it.
#pragma once

#include <vector>

#include "base/aligned_buffer.h"
#include "base/thread_team.h"

namespace narrow::ops {

// Grows to the largest request and stays; one per calling thread and use (thread_local at the caller).
class Scratch {
 public:
  void prepare(std::size_t floats_per_thread) {
    const std::size_t threads = static_cast<std::size_t>(thread_count());
    if (buffers_.size() < threads) buffers_.resize(threads);
    for (AlignedBuffer<float>& b : buffers_) b.reserve_at_least(floats_per_thread);
  }
  float* of(int thread) { return buffers_[static_cast<std::size_t>(thread)].data(); }

 private:
  std::vector<AlignedBuffer<float>> buffers_;
};

}  // namespace narrow::ops
