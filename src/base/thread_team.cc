#include "base/thread_team.h"

#include <omp.h>

#include <algorithm>
#include <atomic>

namespace narrow {
namespace {
std::atomic<int> g_threads{0};
}

void set_thread_count(int n) { g_threads = n > 0 ? n : 0; }

int thread_count() {
  const int n = g_threads;
  return n > 0 ? n : std::max(1, omp_get_num_procs());
}

void parallel_for(std::int64_t n, const std::function<void(std::int64_t, int)>& body) {
  const int threads = static_cast<int>(std::min<std::int64_t>(thread_count(), n));
  if (threads <= 1 || omp_in_parallel()) {
    for (std::int64_t i = 0; i < n; ++i) body(i, 0);
    return;
  }
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
  for (std::int64_t i = 0; i < n; ++i) body(i, omp_get_thread_num());
}

}  // namespace narrow
