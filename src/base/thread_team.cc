#include "base/thread_team.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace narrow {
namespace {

using Clock = std::chrono::steady_clock;

// Decode leaves gaps of a few microseconds between regions, and some tens around a token: those are spun
// through. Then the core is offered to whoever else wants it, and after a while given up.
constexpr auto kSpin = std::chrono::microseconds(50);
constexpr auto kYield = std::chrono::microseconds(200);  // from the start of the wait
// A join that lasts longer waits for an item of milliseconds: polling seldom costs nothing then.
constexpr auto kLongJoin = std::chrono::milliseconds(2);
constexpr auto kJoinPoll = std::chrono::microseconds(50);

// Team::state_: the call's number above, kNoItems + items not handed out below. Threads that ask at the same
// moment may take the count below kNoItems, each at most once per call; kMaxThreads keeps it positive.
constexpr std::uint64_t kCallShift = 32;
constexpr std::uint64_t kLowMask = (std::uint64_t{1} << kCallShift) - 1;
constexpr std::uint64_t kNoItems = 1 << 16;
constexpr std::int64_t kMaxItems = std::int64_t{1} << 31;
constexpr int kMaxThreads = 1024;

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ __volatile__("isb");  // yield is a no-op on most cores
#endif
}

void bind_this_thread(const std::vector<int>& cpus) {
#if defined(__linux__)
  if (cpus.empty()) return;
  const auto limit = static_cast<std::size_t>(*std::max_element(cpus.begin(), cpus.end()) + 1);
  cpu_set_t* set = CPU_ALLOC(limit);
  if (set == nullptr) return;
  CPU_ZERO_S(CPU_ALLOC_SIZE(limit), set);
  for (const int cpu : cpus) CPU_SET_S(static_cast<std::size_t>(cpu), CPU_ALLOC_SIZE(limit), set);
  pthread_setaffinity_np(pthread_self(), CPU_ALLOC_SIZE(limit), set);
  CPU_FREE(set);
#else
  static_cast<void>(cpus);
#endif
}

// Binds the calling thread, which is number `thread` of a team.
void pin(int thread) {
  const std::vector<int>& order = cpu_cores().order;
  bind_this_thread({order[static_cast<std::size_t>(thread) % order.size()]});
}

int this_cpu() {
#if defined(__linux__)
  return sched_getcpu();
#else
  return -1;
#endif
}

void unpin() { bind_this_thread(cpu_cores().order); }

// The stages of a wait: spin, then offer the core at every step. Steps are about a microsecond or less.
class Wait {
 public:
  // With more threads than cores the one waited for may need this very core: no spinning then.
  explicit Wait(bool crowded) : crowded_(crowded) {}
  // Returns the time since the first step, to a few microseconds.
  Clock::duration step() {
    pause();
    if (++steps_ % kStepsPerLook != 0) return waited_;
    const Clock::time_point now = Clock::now();
    if (start_ == Clock::time_point{}) start_ = now;
    waited_ = now - start_;
    if (crowded_ || waited_ > kSpin) sched_yield();
    return waited_;
  }

 private:
  static constexpr unsigned kStepsPerLook = 16;
  bool crowded_;
  unsigned steps_ = 0;
  Clock::time_point start_{};
  Clock::duration waited_{0};
};

class alignas(64) Team {
 public:
  explicit Team(Team* before) : before_(before) {}

  // False: the team is busy, nothing was done.
  bool run(std::int64_t n, const ItemBody& body, int threads, bool pinned) {
    if (busy_.load(std::memory_order_relaxed) || busy_.exchange(true, std::memory_order_acquire))
      return false;
    caller_cpu_.store(this_cpu(), std::memory_order_relaxed);
    if (threads != threads_ || pinned != pinned_) rebuild(threads, pinned);
    for (std::int64_t begin = 0; begin < n; begin += kMaxItems) {
      run_items(begin, std::min(n, begin + kMaxItems), body);
    }
    busy_.store(false, std::memory_order_release);
    return true;
  }

  // At the end of the process, for good: later calls find the team busy. When it is busy already, the process
  // ends inside a call of another thread, and the workers end with it.
  void shut_down() {
    if (!busy_.exchange(true, std::memory_order_acquire)) stop();
  }

 private:
  static bool has_items(std::uint64_t state) { return (state & kLowMask) > kNoItems; }

  // Who owns an item keeps its call from returning, so whatever call the item turns out to belong to, job
  // fields may be read after it was taken, not before. For the same reason all items of one visit are of
  // one call.
  std::int64_t take_items(int thread) {
    std::int64_t done = 0;
    while (has_items(state_.load(std::memory_order_relaxed))) {
      const std::uint64_t left = (state_.fetch_sub(1, std::memory_order_acquire) & kLowMask) - kNoItems;
      if (left - 1 >= static_cast<std::uint64_t>(kMaxItems))
        break;  // others took the last one in between: 0 or below
      (*body_)(end_ - static_cast<std::int64_t>(left), thread);
      ++done;
    }
    return done;
  }

  void run_items(std::int64_t begin, std::int64_t end, const ItemBody& body) {
    body_ = &body;
    end_ = end;
    const std::uint64_t call = (state_.load(std::memory_order_relaxed) >> kCallShift) + 1;
    // Both in the one total order: either this thread sees the sleeper or the sleeper sees the new call.
    state_.store(call << kCallShift | (kNoItems + static_cast<std::uint64_t>(end - begin)),
                 std::memory_order_seq_cst);
    if (sleepers_.load(std::memory_order_seq_cst) > 0) {
      const std::lock_guard lock(mutex_);
      sleepers_.store(0, std::memory_order_seq_cst);
      wake_.notify_all();
    }
    const std::int64_t done = take_items(0);
    // Only items that a worker took are waited for, never a worker that has not come yet.
    taken_by_workers_ += end - begin - done;
    Wait wait(crowded_);
    while (done_by_workers_.load(std::memory_order_acquire) != taken_by_workers_) {
      if (wait.step() > kLongJoin) std::this_thread::sleep_for(kJoinPoll);
    }
  }

  // On a loaded machine the system may wake a worker on the caller's own processor, where it would run only
  // while the caller does not, call after call. It is sent elsewhere once; from there it is free again.
  void leave_callers_cpu() {
    const int here = this_cpu();
    std::vector<int> cpus = cpu_cores().order;
    if (pinned_ || here < 0 || here != caller_cpu_.load(std::memory_order_relaxed) ||
        threads_ > static_cast<int>(cpus.size())) {
      return;
    }
    std::erase(cpus, here);
    bind_this_thread(cpus);
    unpin();
  }

  void work(int thread) {
    leave_callers_cpu();
    for (;;) {
      Wait wait(crowded_);
      while (!has_items(state_.load(std::memory_order_relaxed))) {
        if (stop_.load(std::memory_order_acquire)) return;
        if (wait.step() <= kYield) continue;
        sleep();
        leave_callers_cpu();
        wait = Wait(crowded_);
      }
      const std::int64_t done = take_items(thread);
      if (done > 0) done_by_workers_.fetch_add(done, std::memory_order_release);
    }
  }

  void sleep() {
    std::unique_lock lock(mutex_);
    const std::uint64_t call = state_.load(std::memory_order_relaxed) >> kCallShift;
    // Reset by who wakes; one too many only wakes nobody once.
    sleepers_.fetch_add(1, std::memory_order_seq_cst);
    wake_.wait(lock, [this, call] {
      const std::uint64_t state = state_.load(std::memory_order_seq_cst);
      return state >> kCallShift != call || has_items(state) || stop_.load(std::memory_order_relaxed);
    });
  }

  void rebuild(int threads, bool pinned) {
    static thread_local bool this_thread_pinned = false;
    stop();
    const bool release = pinned_ && !pinned;
    threads_ = threads;
    pinned_ = pinned;
    crowded_ = threads > physical_cores();
    if (this_thread_pinned && !pinned) unpin();
    this_thread_pinned = pinned;
    try {
      workers_.reserve(static_cast<std::size_t>(threads - 1));
      for (int t = 1; t < threads; ++t) {
        workers_.emplace_back([this, t, pinned, release] {
          if (pinned) pin(t);
          if (release) unpin();  // what the creating thread handed on
          work(t);
        });
      }
    } catch (const std::system_error&) {  // the system's limit: whoever did start shares the work
    } catch (const std::bad_alloc&) {
    }
    if (pinned) pin(0);
  }

  void stop() {
    {
      const std::lock_guard lock(mutex_);
      stop_.store(true, std::memory_order_release);
      wake_.notify_all();
    }
    for (std::thread& w : workers_) w.join();
    workers_.clear();
    stop_.store(false, std::memory_order_relaxed);
    sleepers_.store(0, std::memory_order_relaxed);
  }

  // One line for what a call hands out, so that it travels to a worker once.
  alignas(64) std::atomic<std::uint64_t> state_{kNoItems};
  const ItemBody* body_ = nullptr;
  std::int64_t end_ = 0;

  alignas(64) std::atomic<std::int64_t> done_by_workers_{0};

  // Written in every call by the caller alone, so away from what waiting workers read.
  alignas(64) std::atomic<bool> busy_{false};
  bool pinned_ = false;
  int threads_ = 1;
  std::atomic<int> caller_cpu_{-1};
  std::int64_t taken_by_workers_ = 0;

  alignas(64) std::atomic<int> sleepers_{0};  // changed under mutex_
  std::atomic<bool> stop_{false};
  bool crowded_ = false;  // more threads than cores
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::thread> workers_;
  [[maybe_unused]] Team* before_;  // of the parent process: stays reachable
};

std::atomic<int> g_threads{0};
std::atomic<bool> g_pinned{false};
std::atomic<Team*> g_team{nullptr};
Team* g_parents_team = nullptr;

// The workers of a process do not exist in its child, which starts its own when it needs them. The parent's
// team stays as it was, reachable through before_: its locks may be in any state.
void after_fork_in_child() {
  if (Team* team = g_team.exchange(nullptr)) g_parents_team = team;
}

Team& make_team() {
  static const int registered = pthread_atfork(nullptr, nullptr, after_fork_in_child);
  static_cast<void>(registered);
  struct AtExit {
    ~AtExit() {
      if (Team* team = g_team.load()) team->shut_down();
    }
  };
  static const AtExit at_exit;
  auto fresh = std::make_unique<Team>(g_parents_team);
  Team* current = nullptr;
  // Never deleted: calls may still come while the process ends.
  if (g_team.compare_exchange_strong(current, fresh.get())) return *fresh.release();
  return *current;
}

}  // namespace

void set_thread_count(int n) { g_threads = std::clamp(n, 0, kMaxThreads); }

int thread_count() {
  const int n = g_threads.load(std::memory_order_relaxed);
  return n > 0 ? n : std::min(physical_cores(), kMaxThreads);
}

void set_thread_pinning(bool on) { g_pinned = on; }

void parallel_for(std::int64_t n, ItemBody body) {
  const int threads = thread_count();
  if (threads > 1 && n > 1) {
    Team* team = g_team.load(std::memory_order_acquire);
    if (team == nullptr) team = &make_team();
    if (team->run(n, body, threads, g_pinned.load(std::memory_order_relaxed))) return;
  }
  for (std::int64_t i = 0; i < n; ++i) body(i, 0);
}

}  // namespace narrow
