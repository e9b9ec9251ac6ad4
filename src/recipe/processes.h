// The processes that train together, as torchrun starts them; usually there is one.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include "base/result.h"
#include "train/distributed.h"

namespace narrow::recipe {

class Processes {
 public:
  // By the environment (train/distributed.h). Waits until all are there. With CUDA each takes the GPU of its
  // LOCAL_RANK: device().
  static Result<Processes> join(at::Device device = at::kCPU);

  std::int64_t rank() const { return where_.rank; }
  std::int64_t world() const { return where_.world; }
  bool leads() const { return where_.rank == 0; }  // writes files, and reports
  at::Device device() const { return device_; }
  train::Group* group() const { return group_.get(); }  // null when alone
  // Until all processes are here, e.g. for a file that the leading one makes.
  Status wait() const;

 private:
  Processes(train::Rendezvous where, at::Device device, std::unique_ptr<train::Distributed> group)
      : where_(std::move(where)), device_(device), group_(std::move(group)) {}
  train::Rendezvous where_;
  at::Device device_;
  std::unique_ptr<train::Distributed> group_;
};

}  // namespace narrow::recipe
