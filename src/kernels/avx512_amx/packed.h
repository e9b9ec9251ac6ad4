// AMX products of packed weights with many tokens; kernels/packed.h is their contract. Panels are
// avx512_vnni's.
#pragma once

#include "kernels/packed/formats.h"

namespace narrow::kernels::avx512_amx {

NARROW_PACKED_FORMATS(NARROW_DECLARE_PACKED)

}  // namespace narrow::kernels::avx512_amx
