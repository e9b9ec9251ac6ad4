// `--method`: names joined by '+'.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "quant/quantizer.h"

namespace narrow::pipeline {

struct MethodSpec {
  std::vector<std::string> transforms;     // of the model, in order
  const quant::Method* encoder = nullptr;  // rtn where none is named
  bool norms = false;                      // norm gains and biases are corrected after each layer

  // Whether token windows are needed; statistics alone are not enough then.
  bool needs_windows() const { return norms || encoder->needs == quant::Needs::kHessian; }
  bool needs_statistics() const;
  bool has_transform(std::string_view name) const;
};

// kInvalidArgument names the unknown part and the known ones, or says what cannot be joined.
Result<MethodSpec> parse_method(std::string_view text);

}  // namespace narrow::pipeline
