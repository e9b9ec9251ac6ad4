// Process-wide settings and facts.
#pragma once

#include <cstdint>
#include <string>

namespace narrow {

void set_threads(int n);  // n <= 0: all cores
int threads();
std::string
isa_description();  // which kernels were chosen and why, e.g. "avx512_vnni (NARROW_ISA not set; cpu: ...)"
std::uint64_t peak_memory_bytes();  // of this process so far

}  // namespace narrow
