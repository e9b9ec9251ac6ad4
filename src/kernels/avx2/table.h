#pragma once

#include "kernels/kernel_table.h"

namespace narrow::kernels::avx2 {

const KernelTable& table();

}  // namespace narrow::kernels::avx2
