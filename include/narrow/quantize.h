// Post-training quantization of a whole model.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "narrow/progress.h"
#include "narrow/result.h"

namespace narrow {

struct TensorRule {
  std::string pattern;  // ECMAScript-like regular expression (PCRE2), searched in the canonical tensor name
  std::string type;
};

// Texts that a model is run on, or statistics of earlier runs.
struct CalibrationOptions {
  std::vector<std::filesystem::path> texts;  // UTF-8 text, or .jsonl with chats for the model's own template
  std::filesystem::path stats;               // what `narrow calibrate` or llama-imatrix wrote
  std::int64_t n_ctx = 512;                  // tokens of a window
  std::int64_t max_tokens = 32768;           // of all texts together, spread over them; 0: all
  bool empty() const { return texts.empty() && stats.empty(); }
};

struct QuantizeOptions {
  std::filesystem::path source;  // GGUF file or Hugging Face folder
  std::filesystem::path output;  // GGUF file
  std::string type;              // a type or a mix: "q8_0", "q4_k_m"; any case
  // One algorithm, or several joined by '+': transforms of the model ("rotate", "awq", "smoothquant"), at
  // most one encoder ("rtn", "gptq", "hqq", "autoround"), corrections at the end ("norms"). "auto": what
  // measured best, per tensor.
  std::string method = "rtn";
  CalibrationOptions calibration;
  // What `narrow gradients` wrote of this model: errors in outputs that the model's answers depend on most
  // are made up for by others. For gptq, autoround and auto, without rotate; empty: all outputs count alike.
  std::filesystem::path gradients;
  double damping = 0;      // of gptq, as a share of each diagonal entry; 0: chosen by held-out error
  bool sequential = true;  // calibrate each layer on the outputs of the quantized ones before it
  std::uint64_t seed = 0;
  // One of these four instead of `type`: types are chosen tensor by tensor.
  std::uint64_t target_bytes = 0;  // of the whole file
  double target_bpw = 0, target_kl = 0;
  std::int64_t fit_context = 0;  // fit this machine's free memory together with a cache of this many tokens
  std::filesystem::path plan;    // a plan to run, as JSON
  std::filesystem::path save_plan;  // where to write the one made
  bool resume = false;  // go on with the unfinished output of an earlier run with the same options
  // Redo only tensors whose names match, in the existing `output`.
  std::string only;
  bool pure = false;  // every quantizable tensor in the type itself, no mix
  std::vector<TensorRule>
      rules;                   // first match wins; a rule that matches nothing or is not applied is an error
  std::string embedding_type;  // empty: as the mix says
  std::string output_type;     // type of the output head
  bool strict = false;         // refuse fallbacks for rows that a format cannot hold
  bool allow_requantize = false;
  bool overwrite = true;              // an existing output is replaced (atomically)
  std::uint64_t split_max_bytes = 0;  // 0: one file
  // Of w8a8, w4a8 and their like: input columns of each product that stay fp32, at most; -1: as many as pay.
  std::int64_t outliers = -1;
  bool search = true;  // scale search; false: textbook absmax / min-max scales
  // Also measures what each calibrated matrix loses of its output, and what rounding to nearest would; for
  // methods with Hessians (gptq, autoround, auto).
  bool compare_rounding = false;
};

struct PlannedTensor {
  std::string name;
  std::vector<std::int64_t> shape;
  std::string from_type, to_type;
  std::string reason;  // "mix", "rule 'regex'", "--pure", "embedding", "kept: norm", "fallback: 576 is no
                       // multiple of 256"
  bool fallback = false;
  std::uint64_t from_bytes = 0, to_bytes = 0;
};

struct RuleReport {
  std::string pattern, type;
  int matched = 0, applied = 0;
};

struct QuantizePlan {
  std::vector<PlannedTensor> tensors;
  std::vector<RuleReport> rules;
  int fallbacks = 0;
  double bpw = 0;  // stored bytes of all tensors * 8 / weights
  std::uint64_t parameters = 0, source_bytes = 0, output_bytes = 0;
  std::uint64_t peak_memory_bytes = 0;  // upper estimate; 0: none, as the model is run on texts
  std::uint64_t free_disk_bytes = 0;
  std::string file_type_name;
};

struct TensorLoss {  // weight-space error of one written tensor
  std::string name;
  double relative_rms = 0, sqnr_db = 0;
  // With compare_rounding, over the calibration tokens: E|(W - Q) x|^2 / E|W x|^2, and the same with W
  // rounded to nearest, scales searched by E[x^2]; with gradients of the outputs, both weighted by them.
  std::optional<double> output_error = {}, rounded_output_error = {};
};

struct QuantizeReport {
  QuantizePlan plan;
  std::vector<std::filesystem::path> files;
  std::vector<TensorLoss> losses;
  // Of types chosen for a target: mean KL from the source as it was estimated before, and as the finished
  // file has it, both on windows of the calibration texts that were kept apart.
  std::optional<double> predicted_kl, measured_kl;
  double seconds = 0;
  std::uint64_t peak_memory_bytes = 0;  // measured
};

// What quantize() would do. Reads headers only.
Result<QuantizePlan> plan_quantization(const QuantizeOptions& options);
Result<QuantizeReport> quantize(const QuantizeOptions& options, ProgressSink& progress = null_progress());

}  // namespace narrow
