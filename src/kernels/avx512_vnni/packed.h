// AVX-512 VNNI products of packed weights; kernels/packed.h is their contract.
#pragma once

#include "kernels/packed/formats.h"

namespace narrow::kernels::avx512_vnni {

NARROW_PACKED_FORMATS(NARROW_DECLARE_PACKED)

}  // namespace narrow::kernels::avx512_vnni
