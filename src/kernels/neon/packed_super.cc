// Formats with super-blocks of 256.
#include "kernels/neon/packed.h"
#include "kernels/neon/packed_vector.h"
#include "kernels/packed/multiply.h"

namespace narrow::kernels::neon {

template <Format kFormat>
using Kernel = packed::Kernel<PackedVector, kFormat>;

const PackedKernel packed_q2_k = Kernel<Format::kQ2_K>::kKernel;
const PackedKernel packed_q3_k = Kernel<Format::kQ3_K>::kKernel;
const PackedKernel packed_q4_k = Kernel<Format::kQ4_K>::kKernel;
const PackedKernel packed_q5_k = Kernel<Format::kQ5_K>::kKernel;
const PackedKernel packed_q6_k = Kernel<Format::kQ6_K>::kKernel;
const PackedKernel packed_iq4_xs = Kernel<Format::kIQ4_XS>::kKernel;
const PackedKernel packed_tq1_0 = Kernel<Format::kTQ1_0>::kKernel;
const PackedKernel packed_tq2_0 = Kernel<Format::kTQ2_0>::kKernel;

}  // namespace narrow::kernels::neon
