// Which processors this process may use, and which of them are one physical core.
#pragma once

#include <filesystem>
#include <vector>

namespace narrow {

struct CpuCores {
  int physical = 1;        // cores with at least one allowed processor, cut by the cgroup's quota; >= 1
  std::vector<int> order;  // allowed processors: one of each core first, then their siblings
};

// Of this process, read once: its affinity mask at that time, the topology in /sys, the cgroup's CPU quota.
const CpuCores& cpu_cores();

// cpu_cores().physical: threads that do not share execution units with one another.
int physical_cores();

// The same from files under root ("/" on a real system); what cannot be read does not limit.
CpuCores read_cpu_cores(const std::vector<int>& allowed, const std::filesystem::path& root);

}  // namespace narrow
