// AMX products of packed weights with many tokens; kernels/packed.h is their contract. Panels are
// avx512_vnni's.
#pragma once

#include "kernels/packed.h"

namespace narrow::kernels::avx512_amx {

extern const PackedKernel packed_q4_0, packed_q4_1, packed_q5_0, packed_q5_1, packed_q8_0, packed_q2_k,
    packed_q3_k, packed_q4_k, packed_q5_k, packed_q6_k, packed_iq4_nl, packed_iq4_xs, packed_mxfp4,
    packed_tq1_0, packed_tq2_0;

}  // namespace narrow::kernels::avx512_amx
