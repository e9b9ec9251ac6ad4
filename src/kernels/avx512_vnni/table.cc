#include "kernels/avx512_vnni/table.h"

#include "kernels/avx2/table.h"
#include "kernels/avx512_vnni/attention.h"
#include "kernels/avx512_vnni/dense_int8.h"
#include "kernels/avx512_vnni/kernels.h"

namespace narrow::kernels::avx512_vnni {
namespace {

KernelTable make_table() {
  KernelTable t = avx2::table();  // every such processor has AVX2 too
  t.name = "avx512_vnni";
  t.attention = &kAttention;
  t.dot_f32 = dot_f32;
  t.axpy_f32 = axpy_f32;
  t.rms_norm = rms_norm;
  t.softmax = softmax;
  t.softcap = softcap;
  t.silu = silu;
  t.gelu_tanh = gelu_tanh;
  t.int8_peak = int8_peak;
  t.dense_int8 = &kDenseInt8;
  return t;
}

}  // namespace

const KernelTable& table() {
  static const KernelTable kTable = make_table();
  return kTable;
}

}  // namespace narrow::kernels::avx512_vnni
