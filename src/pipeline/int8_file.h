// Files whose products run on int8 activations: `--type w8a8` and its like (docs/formats/int8.md).
#pragma once

#include <span>
#include <string_view>

#include "model/int8_parts.h"
#include "model/source.h"
#include "narrow/progress.h"
#include "narrow/quantize.h"

namespace narrow::pipeline {

// "w8a8", "w8a8-static", "w8a8-asymmetric", "w4a8", "w4a8-static"; any case.
bool is_int8_type(std::string_view type);

struct Int8Type {
  std::string_view name;
  model::Int8Settings settings;
  double typical_bpw = 0;  // on a Llama-shaped model, embeddings included
  std::string_view description;
};
std::span<const Int8Type> int8_types();

// kUnsupported for a file of these types: its codes are no weights to convert or to quantize again.
Status refuse_int8_file(const model::ModelSource& source);

// As plan_quantize() and run_quantize() for these types. The model is run on options.calibration.texts, or on
// random tokens where there are none, to choose outlier columns (options.outliers) and static scales. Options
// that need a mix of types, and methods other than rtn with its transforms rotate, smoothquant and equalize,
// for 4-bit weights gptq and autoround, and auto (with texts: equalize where scales are static, and error
// feedback for 4-bit weights) are kUnsupported.
Result<QuantizePlan> plan_int8(const QuantizeOptions& options);
Result<QuantizeReport> run_int8(const QuantizeOptions& options, ProgressSink& progress);

}  // namespace narrow::pipeline
