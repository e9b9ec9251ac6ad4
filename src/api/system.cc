#include "narrow/system.h"

#include "base/cpu_features.h"
#include "base/thread_team.h"
#include "kernels/dispatch.h"

namespace narrow {

void set_threads(int n) { set_thread_count(n); }
int threads() { return thread_count(); }
std::string isa_description() { return kernels::isa_description(); }
std::uint64_t peak_memory_bytes() { return peak_resident_bytes(); }

}  // namespace narrow
