#include "train/distributed.h"

namespace narrow::train {

Result<std::unique_ptr<Collective>> gloo_collective(const Rendezvous&) {
  return make_error(
      ErrorCode::kUnsupported,
      "this build trains in one process only: Gloo's headers were missing (Debian: `apt install "
      "libgloo-dev`; other libtorch: -DNARROW_GLOO_INCLUDE_DIR=...), or unset WORLD_SIZE");
}

}  // namespace narrow::train
