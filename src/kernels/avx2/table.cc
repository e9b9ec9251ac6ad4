#include "kernels/avx2/table.h"

#include "kernels/avx2/kernels.h"
#include "kernels/generic/table.h"

namespace narrow::kernels::avx2 {
namespace {

KernelTable make_table() {
  KernelTable t = generic::table();  // what is not listed below the compiler vectorises well enough
  t.name = "avx2";
  t.dot_f32 = dot_f32;
  t.axpy_f32 = axpy_f32;
  t.rms_norm = rms_norm;
  t.softmax = softmax;
  t.softcap = softcap;
  t.silu = silu;
  t.gelu_tanh = gelu_tanh;
  return t;
}

}  // namespace

const KernelTable& table() {
  static const KernelTable kTable = make_table();
  return kTable;
}

}  // namespace narrow::kernels::avx2
