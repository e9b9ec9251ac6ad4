// What the processor under us can do.
#pragma once

#include <cstdint>
#include <string>

namespace narrow {

struct CpuFeatures {
  bool avx2 = false, fma = false, f16c = false;
  bool avx512 = false;  // F, BW, DQ, VL
  bool avx512_vnni = false;
  bool avx512_bf16 = false;
  bool avx_vnni = false;
  bool amx_int8 = false, amx_bf16 = false;
  bool neon = false, dotprod = false, i8mm = false;
};

const CpuFeatures& cpu_features();
std::string cpu_features_text();  // "avx2 fma f16c avx512 avx512_vnni"

// Peak resident set of this process so far, in bytes (VmHWM); 0 where the system does not tell.
std::uint64_t peak_resident_bytes();

}  // namespace narrow
