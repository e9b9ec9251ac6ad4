#include "kernels/generic/table.h"

#include "formats/format.h"
#include "kernels/generic/attention.h"
#include "kernels/generic/dense_int8.h"
#include "kernels/generic/kernels.h"
#include "kernels/generic/packed.h"

namespace narrow::kernels::generic {
namespace {

constexpr auto packed_kernels() {
  std::array<const PackedKernel*, kVecDotSlots> packed{};
  NARROW_PACKED_FORMATS(NARROW_SET_PACKED)
  return packed;
}

}  // namespace

const KernelTable& table() {
  static constexpr KernelTable kTable = {
      .name = "generic",
      .dot_f32 = dot_f32,
      .axpy_f32 = axpy_f32,
      .add_f32 = add_f32,
      .mul_f32 = mul_f32,
      .vec_dot = {},
      .panel_rows = 16,
      .packed = packed_kernels(),
      .attention = &kAttention,
      .dense_int8 = &kDenseInt8,
      .quantize_row = quantize_row,
      .rms_norm_quantize = rms_norm_quantize,
      .rms_norm = rms_norm,
      .layer_norm = layer_norm,
      .rope_half = rope_half,
      .rope_interleaved = rope_interleaved,
      .softmax = softmax,
      .softcap = softcap,
      .silu = silu,
      .gelu_tanh = gelu_tanh,
      .gelu_erf = gelu_erf,
      .relu = relu,
      .silu_mul = silu_mul,
      .gelu_tanh_mul = gelu_tanh_mul,
      .int8_peak = int8_peak,
  };
  return kTable;
}

}  // namespace narrow::kernels::generic
