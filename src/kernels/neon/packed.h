// Products of packed weights with the dot product instructions; kernels/packed.h is their contract.
#pragma once

#include "kernels/packed/formats.h"

namespace narrow::kernels::neon {

NARROW_PACKED_FORMATS(NARROW_DECLARE_PACKED)

}  // namespace narrow::kernels::neon
