#include "recipe/processes.h"

namespace narrow::recipe {

Result<Processes> Processes::join(at::Device device) {
  NARROW_ASSIGN(train::Rendezvous where, train::Rendezvous::from_environment());
  if (device.is_cuda() && !device.has_index() && where.world > 1) {
    device = at::Device(at::kCUDA, static_cast<at::DeviceIndex>(where.local_rank));
  }
  NARROW_ASSIGN(auto group, train::Distributed::connect(where, device));
  return Processes(std::move(where), device, std::move(group));
}

Status Processes::wait() const {
  if (!group_) return {};
  const at::Tensor nothing = at::zeros({1}, at::TensorOptions().dtype(at::kFloat).device(device_));
  return group_->sum(std::span(&nothing, 1));
}

}  // namespace narrow::recipe
