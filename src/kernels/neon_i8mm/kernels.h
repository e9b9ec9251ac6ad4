// ARMv8.2 kernels with the int8 matrix instructions; kernel_table.h says what each computes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace narrow::kernels::neon_i8mm {

std::int64_t int8_peak(std::int64_t rounds);

}  // namespace narrow::kernels::neon_i8mm
