#pragma once

#include "kernels/kernel_table.h"

namespace narrow::kernels::neon {

const KernelTable& table();

}  // namespace narrow::kernels::neon
