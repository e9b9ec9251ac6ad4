#pragma once

#include <cstdint>

namespace narrow::kernels::avx512_amx {

// KernelTable::int8_peak.
std::int64_t int8_peak(std::int64_t rounds);

}  // namespace narrow::kernels::avx512_amx
