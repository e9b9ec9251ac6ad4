#include "train/distributed.h"

namespace narrow::train {

Result<std::unique_ptr<Collective>> nccl_collective(const Rendezvous&) {
  return make_error(ErrorCode::kUnsupported,
                    "this build trains on one GPU only: its libtorch has no CUDA, or nccl.h was missing; use "
                    "--device cpu, or unset WORLD_SIZE");
}

}  // namespace narrow::train
