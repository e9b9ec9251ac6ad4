#include "kernels/avx2/table.h"

#include "formats/format.h"
#include "kernels/avx2/attention.h"
#include "kernels/avx2/dense_int8.h"
#include "kernels/avx2/kernels.h"
#include "kernels/avx2/packed.h"
#include "kernels/avx2/vec_dot.h"
#include "kernels/generic/table.h"

namespace narrow::kernels::avx2 {
namespace {

KernelTable make_table() {
  KernelTable t = generic::table();  // what is not listed below the compiler vectorises well enough
  t.name = "avx2";
  t.attention = &kAttention;
  t.dot_f32 = dot_f32;
  t.axpy_f32 = axpy_f32;
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
  const auto set = [&t](Format f, VecDot vec_dot) { t.vec_dot[static_cast<std::size_t>(f)] = vec_dot; };
  set(Format::kF16, vec_dot_f16_f32);
  set(Format::kBF16, vec_dot_bf16_f32);
  t.panel_rows = 8;
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

}  // namespace narrow::kernels::avx2
