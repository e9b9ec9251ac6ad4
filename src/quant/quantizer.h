// Post-training quantization of one matrix: (matrix, LayerStats, spec) -> stored rows. Knows no model and no
// file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/result.h"
#include "formats/format.h"

namespace narrow::quant {

// What calibration knows about the inputs of a layer. Every member may be absent; each has one value per
// input feature, over tokens.
struct LayerStats {
  std::span<const float> mean_square = {};  // [k] E[x^2]
  std::span<const float> mean = {};         // [k] E[x]
  std::span<const float> abs_max = {};      // [k]
  std::span<const float> hessian = {};      // [k, k] E[x x^T]
  std::span<const float> held_out = {};     // [k, k] the same over other tokens, to judge by
  // [n, n] E[g g^T] of the loss's gradients by the outputs, in any unit: what errors in them cost together.
  // Methods then pass errors on from row to row.
  std::span<const float> output = {};
};

struct QuantizeSpec {
  Format format = Format::kQ8_0;
  bool search = true;  // search for scales; false: textbook absmax / min-max
  // Of the Hessian's diagonal entries, each increased by this share of itself; 0: the method chooses, by the
  // error on `held_out` where there is one.
  float damping = 0;
};

// What a quantized matrix lost, in weight space.
struct WeightError {
  double sum_squared_error = 0, sum_squared_weight = 0;
  float max_abs_error = 0;
  // tr(D H D^T) for D = what was lost, for D = what rounding to nearest loses, and for D = W; 0 where not
  // asked for.
  double output_error = 0, rounded_output_error = 0, output_energy = 0;
  double relative_rms() const;  // sqrt(sse / ssw); 0 for an all-zero matrix
  double sqnr_db() const;       // 10 log10(ssw / sse)
  void add(const WeightError& o);
  void add_values(const float* exact, const float* stored, std::int64_t n);
};

// What a method cannot do without.
enum class Needs : std::uint8_t { kNothing, kHessian };

// One algorithm. Algorithms are looked up by name; registry.cc has one row for each.
struct Method {
  std::string_view name;         // "rtn"
  std::string_view description;  // one line for `narrow list`
  Needs needs;
  // w [n, k] -> out, n rows of row_bytes(spec.format, k). Threaded over rows; the same bytes for any thread
  // count. kNumeric names the first row and column with a NaN or infinity. `error` may be null.
  Status (*quantize)(const float* w, std::int64_t n, std::int64_t k, const LayerStats& stats,
                     const QuantizeSpec& spec, std::byte* out, WeightError* error);
  // A row's bytes depend on that row (and `stats`) alone, so a large matrix may be fed in blocks of rows.
  bool row_independent = true;
  // Worth the time of calibrating the parts of a layer one after the other, each on what those before it have
  // become.
  bool stepwise = false;
  // Chooses by LayerStats::held_out; for the others all tokens are better used to quantize by.
  bool judges = false;
};

std::span<const Method> all_methods();
const Method* find_method(std::string_view name);

}  // namespace narrow::quant
