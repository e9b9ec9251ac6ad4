#pragma once

#include "kernels/kernel_table.h"

namespace narrow::kernels::generic {

const KernelTable& table();

}  // namespace narrow::kernels::generic
