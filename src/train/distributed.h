// Data-parallel training over torch.distributed's process groups: each process takes its part of every batch,
// and gradients are summed. Processes find each other as torchrun's do.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "base/result.h"
#include "train/torch.h"
#include "train/trainer.h"

namespace narrow::train {

// Where processes meet, and which of them this one is.
struct Rendezvous {
  std::int64_t rank = 0, world = 1;
  std::int64_t local_rank = 0;  // on its machine: which GPU it takes
  std::string host = "127.0.0.1";
  std::uint16_t port = 29500;
  double timeout_s = 1800;  // of a meeting and of every operation

  // RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT. Without WORLD_SIZE, or with 1, this process is
  // alone. Rank 0 opens the store, one port higher where torchrun's agent holds MASTER_PORT itself
  // (TORCHELASTIC_USE_AGENT_STORE): stores of two versions of PyTorch do not understand each other, and
  // torchrun need not be of the version that narrow is built with. kInvalidArgument names a variable that is
  // missing or no number.
  static Result<Rendezvous> from_environment();
};

// What c10d does for us; one implementation per backend. Throws what c10d throws.
class Collective {
 public:
  virtual ~Collective() = default;
  virtual void all_reduce(at::Tensor& tensor) = 0;  // sums, in place
  virtual void broadcast(at::Tensor& tensor) = 0;   // of rank 0, in place
};
// kUnsupported where the build has no such backend.
Result<std::unique_ptr<Collective>> gloo_collective(const Rendezvous& where);  // CPU
Result<std::unique_ptr<Collective>> nccl_collective(const Rendezvous& where);  // CUDA

class Distributed final : public Group {
 public:
  // Returns when all processes are there. Null when this process is alone. kIo when they cannot be reached in
  // time.
  static Result<std::unique_ptr<Distributed>> connect(const Rendezvous& where, at::Device device = at::kCPU);

  // All processes call these with tensors of the same shapes and dtypes in the same order; contiguous ones
  // change in place. Small tensors travel together. Every process gets the same bits.
  Status sum(std::span<const at::Tensor> tensors) override;
  Status broadcast(std::span<const at::Tensor> tensors);  // rank 0's become everyone's

  std::int64_t rank() const { return where_.rank; }
  std::int64_t world() const { return where_.world; }

 private:
  using Operation = void (Collective::*)(at::Tensor&);
  Distributed(const Rendezvous& where, at::Device device, std::unique_ptr<Collective> collective)
      : where_(where), device_(device), collective_(std::move(collective)) {}
  Status run(std::span<const at::Tensor> tensors, Operation operation, const char* what);

  Rendezvous where_;
  at::Device device_;
  std::unique_ptr<Collective> collective_;
};

}  // namespace narrow::train
