#pragma once

#include "kernels/kernel_table.h"

namespace narrow::kernels::avx512_vnni {

const KernelTable& table();

}  // namespace narrow::kernels::avx512_vnni
