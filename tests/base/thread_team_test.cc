#include "base/thread_team.h"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "testing/testing.h"

namespace narrow {
namespace {

using namespace std::chrono_literals;

class ThreadTeam : public ::testing::Test {
 protected:
  void TearDown() override {
    set_thread_count(0);
    set_thread_pinning(false);
  }
};

// How often each item ran; not atomic, so that a second run at the same time is a race that TSan sees.
std::vector<int> counts_of(std::int64_t n) {
  std::vector<int> counts(static_cast<std::size_t>(n), 0);
  std::atomic<bool> thread_in_range{true};
  const int threads = thread_count();
  parallel_for(n, [&](std::int64_t i, int thread) {
    ++counts[static_cast<std::size_t>(i)];
    if (thread < 0 || thread >= threads) thread_in_range = false;
  });
  EXPECT_TRUE(thread_in_range);
  return counts;
}

void expect_each_once(std::int64_t n) {
  EXPECT_EQ(counts_of(n), std::vector<int>(static_cast<std::size_t>(n), 1)) << thread_count() << " threads";
}

double cpu_seconds() {
  rusage use{};
  getrusage(RUSAGE_SELF, &use);
  return static_cast<double>(use.ru_utime.tv_sec + use.ru_stime.tv_sec) +
         1e-6 * static_cast<double>(use.ru_utime.tv_usec + use.ru_stime.tv_usec);
}

TEST_F(ThreadTeam, EachItemOnceForAnyCounts) {
  for (int threads = 1; threads <= 5; ++threads) {
    set_thread_count(threads);
    for (std::int64_t n = 0; n <= 1000; n += n < 40 ? 1 : 37) expect_each_once(n);
  }
}

TEST_F(ThreadTeam, ResizesBetweenCalls) {
  for (int i = 0; i < 60; ++i) {
    set_thread_count(1 + i * 7 % 5);
    expect_each_once(i);
    expect_each_once(100);
  }
}

// Short calls in a row: a worker that is late for one must not touch the next.
TEST_F(ThreadTeam, ManyShortCalls) {
  for (const int threads : {2, 4}) {
    set_thread_count(threads);
    std::int64_t want = 0;
    std::atomic<std::int64_t> sum{0};
    for (std::int64_t call = 0; call < 20000; ++call) {
      const std::int64_t n = 2 + call % 5;
      parallel_for(n, [&](std::int64_t i, int) { sum.fetch_add(call * (i + 1), std::memory_order_relaxed); });
      want += call * n * (n + 1) / 2;
      ASSERT_EQ(sum.load(), want) << call;  // all done on return
    }
  }
}

TEST_F(ThreadTeam, ItemsStartInOrderAndSeveralThreadsTakePart) {
  set_thread_count(3);
  std::set<std::thread::id> ids;
  std::set<int> numbers;
  std::mutex mutex;
  for (int attempt = 0; attempt < 200 && numbers.size() < 3; ++attempt) {
    parallel_for(30, [&](std::int64_t, int thread) {
      std::this_thread::sleep_for(100us);
      const std::lock_guard lock(mutex);
      ids.insert(std::this_thread::get_id());
      numbers.insert(thread);
    });
  }
  EXPECT_EQ(numbers, (std::set<int>{0, 1, 2}));
  EXPECT_EQ(ids.size(), 3u);  // the same threads in every call
  std::vector<std::int64_t> order;
  set_thread_count(1);
  parallel_for(50, [&](std::int64_t i, int) { order.push_back(i); });
  for (std::int64_t i = 0; i < 50; ++i) EXPECT_EQ(order[static_cast<std::size_t>(i)], i);
}

TEST_F(ThreadTeam, NestedCallsRunOnTheirOwnThread) {
  set_thread_count(4);
  for (int round = 0; round < 50; ++round) {
    std::vector<std::vector<int>> seen(16, std::vector<int>(20, 0));
    std::atomic<bool> same_thread{true};
    parallel_for(16, [&](std::int64_t outer, int) {
      const auto id = std::this_thread::get_id();
      parallel_for(20, [&](std::int64_t inner, int thread) {
        ++seen[static_cast<std::size_t>(outer)][static_cast<std::size_t>(inner)];
        if (std::this_thread::get_id() != id || thread != 0) same_thread = false;
      });
    });
    EXPECT_TRUE(same_thread);
    EXPECT_EQ(seen, std::vector<std::vector<int>>(16, std::vector<int>(20, 1)));
  }
}

TEST_F(ThreadTeam, CallersFromSeveralThreads) {
  set_thread_count(3);
  std::vector<std::thread> callers;
  std::atomic<int> wrong{0};
  for (int c = 0; c < 5; ++c) {
    callers.emplace_back([&wrong] {
      for (std::int64_t call = 0; call < 1000; ++call) {
        std::vector<int> counts(static_cast<std::size_t>(call % 17), 0);
        parallel_for(call % 17, [&](std::int64_t i, int) { ++counts[static_cast<std::size_t>(i)]; });
        for (const int count : counts) wrong += count != 1;
      }
    });
  }
  for (std::thread& t : callers) t.join();
  EXPECT_EQ(wrong, 0);
}

TEST_F(ThreadTeam, SleepsWithoutWorkAndWakesAgain) {
  set_thread_count(4);
  for (int round = 0; round < 5; ++round) {
    expect_each_once(100);
    const auto spin_us = 300 * round;  // around the moment of falling asleep, and after it
    std::this_thread::sleep_for(std::chrono::microseconds(spin_us));
  }
  std::this_thread::sleep_for(20ms);
  const double before = cpu_seconds();
  std::this_thread::sleep_for(200ms);
  EXPECT_LT(cpu_seconds() - before, 0.02);  // three spinning workers would take up to 0.6
  expect_each_once(1000);
}

TEST_F(ThreadTeam, PinningChangesNoResult) {
  set_thread_pinning(true);
  for (const int threads : {2, 5}) {
    set_thread_count(threads);
    expect_each_once(300);
  }
  set_thread_pinning(false);
  expect_each_once(300);
}

TEST_F(ThreadTeam, ChildOfAForkStartsItsOwn) {
#if defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "ThreadSanitizer does not support threads in the child of a threaded process";
#endif
  set_thread_count(3);
  expect_each_once(100);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    std::atomic<int> sum{0};
    for (int i = 0; i < 100; ++i) parallel_for(50, [&](std::int64_t, int) { ++sum; });
    _exit(sum == 5000 ? 0 : 1);
  }
  int status = 0;
  for (int i = 0; i < 1000 && waitpid(child, &status, WNOHANG) == 0; ++i) std::this_thread::sleep_for(10ms);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  expect_each_once(100);
}

TEST_F(ThreadTeam, DefaultIsPhysicalCores) {
  set_thread_count(-3);
  EXPECT_EQ(thread_count(), physical_cores());
  EXPECT_GE(physical_cores(), 1);
  EXPECT_LE(physical_cores(), static_cast<int>(cpu_cores().order.size()));
  set_thread_count(7);
  EXPECT_EQ(thread_count(), 7);
}

// A system's files in a folder of their own.
class CpuCoresTest : public ::testing::Test {
 protected:
  void write(const std::string& path, const std::string& text) {
    const std::filesystem::path file = dir_.path() / path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text << "\n";
  }
  CpuCores read(const std::vector<int>& allowed) { return read_cpu_cores(allowed, dir_.path()); }
  testing::TempDir dir_;
};

TEST_F(CpuCoresTest, NothingReadable) {
  const CpuCores cores = read({0, 1, 2});
  EXPECT_EQ(cores.physical, 3);
  EXPECT_EQ(cores.order, (std::vector<int>{0, 1, 2}));
}

TEST_F(CpuCoresTest, SiblingsComeLast) {
  for (const auto& [cpu, list] : {std::pair{0, "0,4"}, {1, "1,5"}, {4, "0,4"}, {5, "1,5"}, {6, "6-7"}}) {
    write("sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list", list);
  }
  CpuCores cores = read({0, 1, 4, 5, 6});
  EXPECT_EQ(cores.physical, 3);
  EXPECT_EQ(cores.order, (std::vector<int>{0, 1, 6, 4, 5}));
  cores = read({4, 5});  // the siblings alone are cores too
  EXPECT_EQ(cores.physical, 2);
}

TEST_F(CpuCoresTest, TightestQuotaOfTheGroupsAbove) {
  const std::vector<int> eight = {0, 1, 2, 3, 4, 5, 6, 7};
  write("proc/self/cgroup", "0::/a/b");
  write("sys/fs/cgroup/a/b/cpu.max", "max 100000");
  EXPECT_EQ(read(eight).physical, 8);
  write("sys/fs/cgroup/a/cpu.max", "350000 100000");
  EXPECT_EQ(read(eight).physical, 3);
  write("sys/fs/cgroup/a/b/cpu.max", "50000 100000");
  EXPECT_EQ(read(eight).physical, 1);
  EXPECT_EQ(read(eight).order.size(), 8u);
}

TEST_F(CpuCoresTest, QuotaOfVersionOne) {
  write("proc/self/cgroup", "7:memory:/x\n4:cpu,cpuacct:/docker/c");
  write("sys/fs/cgroup/cpu/docker/c/cpu.cfs_quota_us", "200000");
  write("sys/fs/cgroup/cpu/docker/c/cpu.cfs_period_us", "100000");
  EXPECT_EQ(read({0, 1, 2, 3}).physical, 2);
  write("sys/fs/cgroup/cpu/docker/c/cpu.cfs_quota_us", "-1");
  EXPECT_EQ(read({0, 1, 2, 3}).physical, 4);
}

}  // namespace
}  // namespace narrow
