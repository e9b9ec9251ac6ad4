// Formats with super-blocks of 256.
#include "kernels/avx512_amx/packed.h"
#include "kernels/avx512_amx/packed_kernel.h"
#include "kernels/avx512_vnni/packed.h"

namespace narrow::kernels::avx512_amx {

const PackedKernel packed_q2_k = Kernel<Format::kQ2_K, &avx512_vnni::packed_q2_k>::kKernel;
const PackedKernel packed_q3_k = Kernel<Format::kQ3_K, &avx512_vnni::packed_q3_k>::kKernel;
const PackedKernel packed_q4_k = Kernel<Format::kQ4_K, &avx512_vnni::packed_q4_k>::kKernel;
const PackedKernel packed_q5_k = Kernel<Format::kQ5_K, &avx512_vnni::packed_q5_k>::kKernel;
const PackedKernel packed_q6_k = Kernel<Format::kQ6_K, &avx512_vnni::packed_q6_k>::kKernel;
const PackedKernel packed_iq4_xs = Kernel<Format::kIQ4_XS, &avx512_vnni::packed_iq4_xs>::kKernel;
const PackedKernel packed_tq1_0 = Kernel<Format::kTQ1_0, &avx512_vnni::packed_tq1_0>::kKernel;
const PackedKernel packed_tq2_0 = Kernel<Format::kTQ2_0, &avx512_vnni::packed_tq2_0>::kKernel;

}  // namespace narrow::kernels::avx512_amx
