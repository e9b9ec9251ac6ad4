#include "kernels/neon_i8mm/table.h"

#include "formats/format.h"
#include "kernels/neon/table.h"
#include "kernels/neon_i8mm/dense_int8.h"
#include "kernels/neon_i8mm/kernels.h"
#include "kernels/neon_i8mm/packed.h"

namespace narrow::kernels::neon_i8mm {
namespace {

KernelTable make_table() {
  KernelTable t = neon::table();  // every such processor has the dot product instructions too
  t.name = "neon_i8mm";
  const auto set_packed = [&t](Format f, const PackedKernel& kernel) {
    t.packed[static_cast<std::size_t>(f)] = &kernel;
  };
  set_packed(Format::kQ4_0, packed_q4_0);
  set_packed(Format::kQ4_1, packed_q4_1);
  set_packed(Format::kQ5_0, packed_q5_0);
  set_packed(Format::kQ5_1, packed_q5_1);
  set_packed(Format::kQ8_0, packed_q8_0);
  set_packed(Format::kQ2_K, packed_q2_k);
  set_packed(Format::kQ3_K, packed_q3_k);
  set_packed(Format::kQ4_K, packed_q4_k);
  set_packed(Format::kQ5_K, packed_q5_k);
  set_packed(Format::kQ6_K, packed_q6_k);
  set_packed(Format::kIQ4_NL, packed_iq4_nl);
  set_packed(Format::kIQ4_XS, packed_iq4_xs);
  set_packed(Format::kMXFP4, packed_mxfp4);
  set_packed(Format::kTQ1_0, packed_tq1_0);
  set_packed(Format::kTQ2_0, packed_tq2_0);
  t.dense_int8 = &kDenseInt8;
  t.int8_peak = int8_peak;
  return t;
}

}  // namespace

const KernelTable& table() {
  static const KernelTable kTable = make_table();
  return kTable;
}

}  // namespace narrow::kernels::neon_i8mm
