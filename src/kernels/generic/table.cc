#include "kernels/generic/table.h"

#include "formats/format.h"
#include "kernels/generic/attention.h"
#include "kernels/generic/dense_int8.h"
#include "kernels/generic/kernels.h"
#include "kernels/generic/packed.h"

namespace narrow::kernels::generic {
namespace {

constexpr auto packed_kernels() {
  std::array<const PackedKernel*, kVecDotSlots> kernels{};
  const auto set = [&kernels](Format f, const PackedKernel& kernel) {
    kernels[static_cast<std::size_t>(f)] = &kernel;
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
  return kernels;
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
