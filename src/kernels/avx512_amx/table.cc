#include "kernels/avx512_amx/table.h"

#include "kernels/avx512_amx/dense_int8.h"
#include "kernels/avx512_amx/packed.h"
#include "kernels/avx512_amx/peak.h"
#include "kernels/avx512_vnni/table.h"

namespace narrow::kernels::avx512_amx {
namespace {

KernelTable make_table() {
  KernelTable t = avx512_vnni::table();  // every processor with AMX has AVX-512 VNNI too
  t.name = "avx512_amx";
  auto& packed = t.packed;
  NARROW_PACKED_FORMATS(NARROW_SET_PACKED)
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
