// Process-wide settings and facts.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "narrow/result.h"

namespace narrow {

void set_threads(int n);  // n <= 0: all physical cores available to the process
int threads();
void set_thread_pinning(bool on);  // each thread on a core of its own; off at the start
std::string
isa_description();  // which kernels were chosen and why, e.g. "avx512_vnni (NARROW_ISA not set; cpu: ...)"
std::uint64_t peak_memory_bytes();  // of this process so far

// Writes a file whole, through a temporary one: it appears under its name complete, or not at all.
Status write_text_file(const std::filesystem::path& path, std::string_view text);

}  // namespace narrow
