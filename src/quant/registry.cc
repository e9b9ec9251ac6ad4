#include "quant/auto.h"
#include "quant/autoround.h"
#include "quant/gptq.h"
#include "quant/hqq.h"
#include "quant/quantizer.h"
#include "quant/rtn.h"

namespace narrow::quant {

namespace {

constexpr Method kMethods[] = {
    {"auto", "gptq with the damping, or rtn, that loses least on tokens not used", Needs::kHessian,
     quantize_auto, true, true, true},
    {"autoround", "signed gradient descent on rounding and block scales, by layer output error",
     Needs::kHessian, quantize_autoround},
    {"gptq", "error feedback column by column, then descent over codes and scales", Needs::kHessian,
     quantize_gptq, true, true},
    {"hqq", "half-quadratic fit of scales that tolerates outliers; no data", Needs::kNothing, quantize_hqq},
    {"rtn", "round to nearest with a search for each block's scales", Needs::kNothing, quantize_rtn},
};

}  // namespace

std::span<const Method> all_methods() { return kMethods; }

const Method* find_method(std::string_view name) {
  for (const Method& m : kMethods) {
    if (m.name == name) return &m;
  }
  return nullptr;
}

}  // namespace narrow::quant
