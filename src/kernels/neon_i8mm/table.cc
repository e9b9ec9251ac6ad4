#include "kernels/neon_i8mm/table.h"

#include "kernels/neon/table.h"
#include "kernels/neon_i8mm/dense_int8.h"
#include "kernels/neon_i8mm/kernels.h"
#include "kernels/neon_i8mm/packed.h"

namespace narrow::kernels::neon_i8mm {
namespace {

KernelTable make_table() {
  KernelTable t = neon::table();  // every such processor has the dot product instructions too
  t.name = "neon_i8mm";
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

}  // namespace narrow::kernels::neon_i8mm
