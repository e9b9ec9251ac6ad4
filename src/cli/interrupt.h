// Ctrl-C while a file is being written.
#pragma once

namespace narrow::cli {

// While one is alive, the first SIGINT or SIGTERM only raises a flag, so that the job can end without leaving
// a partial file; the second one ends the process at once.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;
};

bool interrupted();

}  // namespace narrow::cli
