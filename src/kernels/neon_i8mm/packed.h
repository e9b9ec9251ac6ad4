// Products of packed weights with the int8 matrix instructions; kernels/packed.h is their contract.
#pragma once

#include "kernels/packed/formats.h"

namespace narrow::kernels::neon_i8mm {

NARROW_PACKED_FORMATS(NARROW_DECLARE_PACKED)

}  // namespace narrow::kernels::neon_i8mm
