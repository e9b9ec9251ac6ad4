// What a report is made of: everything measured of a reference and of the files made from it.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "eval/summary.h"
#include "tensor/tensor.h"

namespace narrow::eval::report {

// Of one weight matrix against the reference's of the same canonical name.
struct TensorDamage {
  std::string name, kind;  // "blk.3.ffn_down.weight", "ffn_down"
  int layer = -1;          // -1: outside of the layers
  Format type = Format::kF32, reference_type = Format::kF32;
  Shape shape;
  double relative_rms = 0;  // sqrt(sum dW^2 / sum W^2)
  double max_abs_error = 0;
  // The error of the layer's output for inputs of the calibration's second moments, relative:
  // sqrt(sum dW^2 E[x^2] / sum W^2 E[x^2]). NaN without statistics of the tensor's inputs.
  double output_error = 0;
  double kl_share = 0;  // estimated part in the model's KL divergence; all tensors' sum to 1
};

// A tensor in the next larger type.
struct Advice {
  std::string tensor;
  Format from = Format::kF32, to = Format::kF32;
  std::int64_t more_bytes = 0;
  double error_now = 0, error_then = 0;  // as kl_share was computed from, on the same sample of rows
  double kl_change = 0;                  // of the whole model, relative and at most 0: -0.18 is -18 %
};

struct Histogram {
  double low = 0, high = 0;           // of all bins; values outside are counted in the first and last
  std::vector<std::uint64_t> counts;  // equal widths
};

// The values of one tensor.
struct CloseUp {
  std::string tensor;
  Format type = Format::kF32;
  Histogram reference, stored;  // weights, in the same bins
  // Where the format's scales can be read. real = S * (level - offset) - M:
  Histogram in_levels;  // the reference's weights as (w + M) / S + offset: rounding goes to whole levels
  std::vector<double> levels;  // that the format can store, ascending
  std::vector<std::uint64_t> level_counts;
  Histogram scales;  // |S|, as log10
  // Quantiles over the input channels, from the smallest to the largest; empty without statistics.
  std::vector<double> input_rms, input_absmax;
};

struct Prediction {
  std::int32_t token = 0;
  double p = 0;
};
struct WorstToken {
  std::int64_t position = 0;  // in the text, in tokens
  std::int32_t token = 0;     // the true one
  double kl = 0, p = 0, reference_p = 0;
  std::vector<Prediction> predicted, reference_predicted;  // the most likely first
  // Texts, with bytes that are no UTF-8 as \xNN.
  std::string before, text, after;
  std::vector<std::string> predicted_text, reference_predicted_text;
};

struct ModelMeasurements {
  std::string name, path;  // name: short, unique among the files
  std::uint64_t file_bytes = 0;
  double bpw = 0;
  std::vector<std::pair<Format, std::int64_t>> types;  // of the weight matrices, the most common first
  ScoreSummary scores;
  bool on_front = false;  // no other file is both smaller and nearer to the reference
  std::vector<TensorDamage> tensors;
  // After each layer: root mean square over positions of |x - x_ref| / |x_ref| of the residual stream.
  std::vector<double> stream_error;
  std::vector<WorstToken> worst;
  std::vector<Advice> advice;
  std::vector<CloseUp> close_ups;
};

struct Measurements {
  std::string title;  // the model's name
  std::string reference_path, architecture, text_path, statistics_path, protocol;
  std::uint64_t reference_bytes = 0;
  double reference_bpw = 0;
  std::int64_t windows = 0, scored_tokens = 0;
  std::vector<ModelMeasurements> models;  // at least one
};

// Sets on_front of every model.
void find_front(std::vector<ModelMeasurements>& models);

// "blk.3.ffn_down.weight" -> {3, "ffn_down"}; "token_embd.weight" -> {-1, "token_embd"}.
std::pair<int, std::string> layer_and_kind(const std::string& tensor);

// Bytes as text: valid UTF-8 as it is, other bytes and control characters as \xNN; line breaks as a sign.
std::string visible_text(const std::string& bytes);

std::string to_json(const Measurements& m);

}  // namespace narrow::eval::report
