// The process's one team of worker threads (docs/decisions/0012-thread-team.md).
//
// Workers start with the first call that needs them and stay. Between calls they spin for a short time, so
// that handing out work and joining costs a fraction of a microsecond while work keeps coming; then they
// sleep and cost nothing. The team serves one call at a time: a call from inside a body, or from another
// thread while the team is busy, runs on its own thread alone. Results must not depend on that.
#pragma once

#include <concepts>
#include <cstdint>
#include <memory>
#include <type_traits>

#include "base/cpu_cores.h"

namespace narrow {

// How many threads parallel_for may use; n <= 0 means all physical cores available to the process. Not to be
// called while another thread is between sizing scratch memory by thread_count() and its parallel_for.
void set_thread_count(int n);
int thread_count();

// Binds each thread of the team to a physical core of its own (with more threads than cores, to siblings,
// then in turn), and the thread that makes the next parallel_for to the first of them. Off at the start.
// Where the system refuses, threads stay unbound.
void set_thread_pinning(bool on);

// What parallel_for calls for an item: refers to a callable (item, thread) that outlives it.
class ItemBody {
 public:
  template <class F>
  requires(!std::same_as<std::remove_cvref_t<F>, ItemBody> && std::invocable<F&, std::int64_t, int>)
      ItemBody(F&& body)  // NOLINT: implicit, so that a lambda can be passed
      : object_(const_cast<void*>(static_cast<const void*>(std::addressof(body)))),
        call_([](void* object, std::int64_t item, int thread) {
          (*static_cast<std::remove_reference_t<F>*>(object))(item, thread);
        }) {}
  void operator()(std::int64_t item, int thread) const { call_(object_, item, thread); }

 private:
  void* object_;
  void (*call_)(void* object, std::int64_t item, int thread);
};

// Calls body(i, thread) once for each i in [0, n), on up to thread_count() threads, the caller among them;
// items are handed out one at a time in order, and all are done on return. Nothing is allocated once the
// workers run. A result must not depend on which thread runs an item: that is how outputs stay the same for
// any thread count. `thread` is in [0, thread_count()), for scratch memory; 0 where the call runs alone.
// body must not throw, and must not fork.
void parallel_for(std::int64_t n, ItemBody body);

}  // namespace narrow
