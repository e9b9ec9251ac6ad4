// The formats with integer kernels, listed once for all instruction sets. Macros, because each instruction
// set has objects of its own under the same names, and no function may be shared between their folders.
#pragma once

#include <cstddef>

#include "formats/format.h"
#include "kernels/packed.h"

// f(id, name) for each: Format::k<id>, and packed_<name> in the namespace of an instruction set.
#define NARROW_PACKED_FORMATS(f)                                                                    \
  f(Q4_0, q4_0) f(Q4_1, q4_1) f(Q5_0, q5_0) f(Q5_1, q5_1) f(Q8_0, q8_0) f(Q2_K, q2_k) f(Q3_K, q3_k) \
      f(Q4_K, q4_k) f(Q5_K, q5_k) f(Q6_K, q6_k) f(IQ4_NL, iq4_nl) f(IQ4_XS, iq4_xs) f(MXFP4, mxfp4) \
          f(TQ1_0, tq1_0) f(TQ2_0, tq2_0)

#define NARROW_DECLARE_PACKED(id, name) extern const PackedKernel packed_##name;
// Into an array `packed` by format id.
#define NARROW_SET_PACKED(id, name) packed[static_cast<std::size_t>(Format::k##id)] = &packed_##name;
