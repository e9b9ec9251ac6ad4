#include "base/cpu_cores.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <thread>

namespace narrow {
namespace {

namespace fs = std::filesystem;

std::string first_line(const fs::path& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

// The lowest processor of the core: "0,64" and "0-1" start with it. Unreadable: the processor itself.
int core_of(int cpu, const fs::path& root) {
  const fs::path topology = root / "sys/devices/system/cpu" / ("cpu" + std::to_string(cpu)) / "topology";
  std::istringstream siblings(first_line(topology / "thread_siblings_list"));
  int lowest = 0;
  return siblings >> lowest ? lowest : cpu;
}

// Whole processors of a quota in microseconds per period, at least one; INT_MAX: no quota. Rounded down: a
// thread more than the quota pays for would be throttled in the middle of a spin.
int whole_cpus(double quota, double period) {
  if (!(quota > 0) || !(period > 0) || quota / period > 1e6) return 1 << 20;
  return std::max(1, static_cast<int>(quota / period));
}

// cpu.max of version 2 ("max 100000", "150000 100000"), or the two files of version 1.
int quota_of_folder(const fs::path& folder) {
  std::istringstream v2(first_line(folder / "cpu.max"));
  double quota = 0, period = 0;
  if (v2 >> quota >> period) return whole_cpus(quota, period);
  std::istringstream v1_quota(first_line(folder / "cpu.cfs_quota_us"));
  std::istringstream v1_period(first_line(folder / "cpu.cfs_period_us"));
  if (v1_quota >> quota && v1_period >> period) return whole_cpus(quota, period);
  return whole_cpus(0, 0);
}

// The tightest quota from this process's group up to the root.
int cgroup_cpus(const fs::path& root) {
  int cpus = 1 << 20;
  std::ifstream groups(root / "proc/self/cgroup");
  std::string line;
  while (std::getline(groups, line)) {  // "0::/user.slice/a", "4:cpu,cpuacct:/docker/b"
    const std::size_t first = line.find(':');
    const std::size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    if (controllers != ",," && controllers.find(",cpu,") == std::string::npos) continue;
    const fs::path top = root / "sys/fs/cgroup" / (controllers == ",," ? "" : "cpu");
    fs::path group = fs::path(line.substr(second + 1)).relative_path();
    for (;; group = group.parent_path()) {
      cpus = std::min(cpus, quota_of_folder(top / group));
      if (group.empty()) break;
    }
  }
  return cpus;
}

std::vector<int> allowed_processors() {
  std::vector<int> allowed;
#if defined(__linux__)
  // Machines may have more processors than a plain cpu_set_t holds.
  for (int limit = 1024; limit <= 1 << 16; limit *= 4) {
    cpu_set_t* set = CPU_ALLOC(static_cast<std::size_t>(limit));
    if (set == nullptr) break;
    const std::size_t bytes = CPU_ALLOC_SIZE(static_cast<std::size_t>(limit));
    const bool read = sched_getaffinity(getpid(), bytes, set) == 0;
    for (int cpu = 0; read && cpu < limit; ++cpu) {
      if (CPU_ISSET_S(static_cast<std::size_t>(cpu), bytes, set)) allowed.push_back(cpu);
    }
    CPU_FREE(set);
    if (read) break;
  }
#endif
  if (allowed.empty()) {
    const int n = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
    for (int cpu = 0; cpu < n; ++cpu) allowed.push_back(cpu);
  }
  return allowed;
}

}  // namespace

CpuCores read_cpu_cores(const std::vector<int>& allowed, const fs::path& root) {
  CpuCores cores;
  std::set<int> seen;
  std::vector<int> siblings;
  for (const int cpu : allowed) {
    (seen.insert(core_of(cpu, root)).second ? cores.order : siblings).push_back(cpu);
  }
  cores.physical = std::max(1, std::min(static_cast<int>(cores.order.size()), cgroup_cpus(root)));
  cores.order.insert(cores.order.end(), siblings.begin(), siblings.end());
  return cores;
}

const CpuCores& cpu_cores() {
  // Never destroyed: workers may ask until the process has ended.
  static const CpuCores& cores = *new CpuCores(read_cpu_cores(allowed_processors(), "/"));
  return cores;
}

int physical_cores() { return cpu_cores().physical; }

}  // namespace narrow
