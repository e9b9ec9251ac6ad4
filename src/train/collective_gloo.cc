#include <cstdlib>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include "train/collective_store.h"

namespace narrow::train {

Result<std::unique_ptr<Collective>> gloo_collective(const Rendezvous& where) {
  using Gloo = c10d::ProcessGroupGloo;
  auto options = Gloo::Options::create(timeout_of(where));
  const char* interface = std::getenv("GLOO_SOCKET_IFNAME");
  if (interface != nullptr && *interface != '\0') {
    options->devices.push_back(Gloo::createDeviceForInterface(interface));
  } else if (where.host == "localhost" || where.host == "127.0.0.1") {
    // All on this machine: no need for its name to have an address.
    options->devices.push_back(Gloo::createDeviceForHostname("127.0.0.1"));
  } else {
    options->devices.push_back(Gloo::createDefaultDevice());
  }
  options->threads = 1;
  auto group = c10::make_intrusive<Gloo>(open_store(where), static_cast<int>(where.rank),
                                         static_cast<int>(where.world), options);
  return std::unique_ptr<Collective>(std::make_unique<C10dCollective<Gloo>>(std::move(group)));
}

}  // namespace narrow::train
