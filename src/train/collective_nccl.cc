#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include "train/collective_store.h"

namespace narrow::train {

Result<std::unique_ptr<Collective>> nccl_collective(const Rendezvous& where) {
  using Nccl = c10d::ProcessGroupNCCL;
  auto options = Nccl::Options::create();
  options->timeout = timeout_of(where);
  auto group = c10::make_intrusive<Nccl>(open_store(where), static_cast<int>(where.rank),
                                         static_cast<int>(where.world), options);
  return std::unique_ptr<Collective>(std::make_unique<C10dCollective<Nccl>>(std::move(group)));
}

}  // namespace narrow::train
