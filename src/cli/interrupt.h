// Ctrl-C while a file is being written.
#pragma once

namespace narrow::cli {

// While one is alive, the first SIGINT or SIGTERM only raises a flag, so that the job can end in order:
// without a partial file, or with one that --resume goes on with. The second one ends the process at once.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;
};

bool interrupted();

}  // namespace narrow::cli
