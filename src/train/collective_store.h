// Where the processes of a group meet: shared by the backends' files.
#pragma once

#include <chrono>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "train/distributed.h"

namespace narrow::train {

inline std::chrono::milliseconds timeout_of(const Rendezvous& where) {
  return std::chrono::milliseconds(static_cast<std::int64_t>(where.timeout_s * 1000));
}

inline c10::intrusive_ptr<c10d::Store> open_store(const Rendezvous& where) {
  c10d::TCPStoreOptions options;
  options.port = where.port;
  options.isServer = where.rank == 0;
  options.waitWorkers = false;  // the first operation waits for them, with a clearer message
  options.timeout = timeout_of(where);
  const auto store = c10::make_intrusive<c10d::TCPStore>(where.host, options);
  store->setTimeout(options.timeout);
  return c10::make_intrusive<c10d::PrefixStore>("narrow", store);
}

// A process group's two operations.
template <class Backend>
class C10dCollective final : public Collective {
 public:
  explicit C10dCollective(c10::intrusive_ptr<Backend> backend) : backend_(std::move(backend)) {}
  void all_reduce(at::Tensor& tensor) override {
    std::vector<at::Tensor> list = {tensor};
    backend_->allreduce(list, c10d::AllreduceOptions())->wait();
  }
  void broadcast(at::Tensor& tensor) override {
    std::vector<at::Tensor> list = {tensor};
    backend_->broadcast(list, c10d::BroadcastOptions())->wait();
  }

 private:
  c10::intrusive_ptr<Backend> backend_;
};

}  // namespace narrow::train
