#include "kernels/avx512_vnni/table.h"

#include "kernels/avx2/table.h"
#include "kernels/avx512_vnni/attention.h"
#include "kernels/avx512_vnni/dense_int8.h"
#include "kernels/avx512_vnni/kernels.h"
#include "kernels/avx512_vnni/packed.h"

namespace narrow::kernels::avx512_vnni {
namespace {

KernelTable make_table() {
  KernelTable t = avx2::table();  // every such processor has AVX2 too
  t.name = "avx512_vnni";
  t.attention = &kAttention;
  t.dot_f32 = dot_f32;
  t.axpy_f32 = axpy_f32;
  t.add_f32 = add_f32;
  t.mul_f32 = mul_f32;
  t.rms_norm = rms_norm;
  t.softmax = softmax;
  t.softcap = softcap;
  t.silu = silu;
  t.gelu_tanh = gelu_tanh;
  t.gelu_erf = gelu_erf;
  t.silu_mul = silu_mul;
  t.gelu_tanh_mul = gelu_tanh_mul;
  t.layer_norm = layer_norm;
  t.quantize_row = quantize_row;
  t.rms_norm_quantize = rms_norm_quantize;
  t.rope_half = rope_half;
  t.rope_interleaved = rope_interleaved;
  t.panel_rows = 16;
  auto& packed = t.packed;
  NARROW_PACKED_FORMATS(NARROW_SET_PACKED)
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
