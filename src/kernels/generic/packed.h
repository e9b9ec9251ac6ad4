// Scalar products of packed weights; kernels/packed.h is their contract, packed.cc its readable form.
#pragma once

#include "kernels/packed/formats.h"

namespace narrow::kernels::generic {

NARROW_PACKED_FORMATS(NARROW_DECLARE_PACKED)

}  // namespace narrow::kernels::generic
