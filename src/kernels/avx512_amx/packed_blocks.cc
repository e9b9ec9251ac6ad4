// Formats with blocks of 32.
#include "kernels/avx512_amx/packed.h"
#include "kernels/avx512_amx/packed_kernel.h"
#include "kernels/avx512_vnni/packed.h"

namespace narrow::kernels::avx512_amx {

const PackedKernel packed_q4_0 = Kernel<Format::kQ4_0, &avx512_vnni::packed_q4_0>::kKernel;
const PackedKernel packed_q4_1 = Kernel<Format::kQ4_1, &avx512_vnni::packed_q4_1>::kKernel;
const PackedKernel packed_q5_0 = Kernel<Format::kQ5_0, &avx512_vnni::packed_q5_0>::kKernel;
const PackedKernel packed_q5_1 = Kernel<Format::kQ5_1, &avx512_vnni::packed_q5_1>::kKernel;
const PackedKernel packed_q8_0 = Kernel<Format::kQ8_0, &avx512_vnni::packed_q8_0>::kKernel;
const PackedKernel packed_iq4_nl = Kernel<Format::kIQ4_NL, &avx512_vnni::packed_iq4_nl>::kKernel;
const PackedKernel packed_mxfp4 = Kernel<Format::kMXFP4, &avx512_vnni::packed_mxfp4>::kKernel;

}  // namespace narrow::kernels::avx512_amx
