#pragma once

#include "kernels/kernel_table.h"

namespace narrow::kernels::avx512_amx {

const KernelTable& table();

}  // namespace narrow::kernels::avx512_amx
