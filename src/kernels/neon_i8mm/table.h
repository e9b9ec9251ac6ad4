#pragma once

#include "kernels/kernel_table.h"

namespace narrow::kernels::neon_i8mm {

const KernelTable& table();

}  // namespace narrow::kernels::neon_i8mm
