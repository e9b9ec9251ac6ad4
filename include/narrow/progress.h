// How long work reports itself. The library calls; the caller draws.
#pragma once

#include <cstdint>
#include <string_view>

namespace narrow {

// Called from one thread at a time. `done` and `total` are in `unit`s ("tensors", "MB", "tokens");
// total 0 means unknown.
class ProgressSink {
 public:
  virtual ~ProgressSink() = default;
  virtual void begin(std::string_view task, std::uint64_t total, std::string_view unit) = 0;
  virtual void update(std::uint64_t done, std::string_view detail) = 0;  // detail: e.g. a tensor's name
  virtual void end() = 0;
  // A line for the reader that is neither progress nor an error, e.g. a fallback that was taken.
  virtual void note(std::string_view line) = 0;
  // Asked between pieces of work; true ends the call with kCancelled.
  virtual bool cancelled() const { return false; }
};

// A sink that ignores everything.
ProgressSink& null_progress();

}  // namespace narrow
