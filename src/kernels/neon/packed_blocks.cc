// Formats with blocks of 32.
#include "kernels/neon/packed.h"
#include "kernels/neon/packed_vector.h"
#include "kernels/packed/multiply.h"

namespace narrow::kernels::neon {

template <Format kFormat>
using Kernel = packed::Kernel<PackedVector, kFormat>;

const PackedKernel packed_q4_0 = Kernel<Format::kQ4_0>::kKernel;
const PackedKernel packed_q4_1 = Kernel<Format::kQ4_1>::kKernel;
const PackedKernel packed_q5_0 = Kernel<Format::kQ5_0>::kKernel;
const PackedKernel packed_q5_1 = Kernel<Format::kQ5_1>::kKernel;
const PackedKernel packed_q8_0 = Kernel<Format::kQ8_0>::kKernel;
const PackedKernel packed_iq4_nl = Kernel<Format::kIQ4_NL>::kKernel;
const PackedKernel packed_mxfp4 = Kernel<Format::kMXFP4>::kKernel;

}  // namespace narrow::kernels::neon
