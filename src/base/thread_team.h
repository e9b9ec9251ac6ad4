// The process's one team of worker threads (OpenMP underneath).
#pragma once

#include <cstdint>
#include <functional>

namespace narrow {

// How many threads parallel_for may use; n <= 0 means all cores of the machine.
void set_thread_count(int n);
int thread_count();

// Calls body(i) once for each i in [0, n), on all threads; items are handed out one at a time in order.
// A result must not depend on which thread runs an item: that is how outputs stay the same for any
// thread count. `thread` is in [0, thread_count()), for scratch memory. Nested calls run serially.
void parallel_for(std::int64_t n, const std::function<void(std::int64_t i, int thread)>& body);

}  // namespace narrow
