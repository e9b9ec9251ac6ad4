#include "kernels/avx512_amx/table.h"

#include "formats/format.h"
#include "kernels/avx512_amx/dense_int8.h"
#include "kernels/avx512_amx/packed.h"
#include "kernels/avx512_amx/peak.h"
#include "kernels/avx512_vnni/table.h"

namespace narrow::kernels::avx512_amx {
namespace {

KernelTable make_table() {
  KernelTable t = avx512_vnni::table();  // every processor with AMX has AVX-512 VNNI too
  t.name = "avx512_amx";
  const auto set = [&t](Format f, const PackedKernel& kernel) {
    t.packed[static_cast<std::size_t>(f)] = &kernel;
  };
  set(Format::kQ4_0, packed_q4_0);
  set(Format::kQ4_1, packed_q4_1);
  set(Format::kQ5_0, packed_q5_0);
  set(Format::kQ5_1, packed_q5_1);
  set(Format::kQ8_0, packed_q8_0);
  set(Format::kQ2_K, packed_q2_k);
  set(Format::kQ3_K, packed_q3_k);
  set(Format::kQ4_K, packed_q4_k);
  set(Format::kQ5_K, packed_q5_k);
  set(Format::kQ6_K, packed_q6_k);
  set(Format::kIQ4_NL, packed_iq4_nl);
  set(Format::kIQ4_XS, packed_iq4_xs);
  set(Format::kMXFP4, packed_mxfp4);
  set(Format::kTQ1_0, packed_tq1_0);
  set(Format::kTQ2_0, packed_tq2_0);
  t.dense_int8 = &kDenseInt8;
  t.int8_peak = int8_peak;
  return t;
}

}  // namespace

const KernelTable& table() {
  static const KernelTable kTable = make_table();
  return kTable;
}

}  // namespace narrow::kernels::avx512_amx
