// Training: quantization-aware (to quantized files), fine-tuning, and from scratch. Implemented only in
// builds with libtorch (the program narrow-train); train_fields.h lists every option by name.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "narrow/progress.h"
#include "narrow/quantize.h"
#include "narrow/result.h"

namespace narrow {

// What all three share.
struct TrainLoop {
  // UTF-8 text, or .jsonl with {"messages": [...]} (only the assistant's tokens are learned) or {"text":
  // ...}.
  std::vector<std::filesystem::path> texts;
  std::int64_t n_ctx = 512;          // tokens of a window
  std::int64_t batch_tokens = 1024;  // of a step, of all processes together; rounded up to whole windows
  std::int64_t micro_batch = 1;      // windows in memory at a time
  // Only the logits of every n-th position are computed and learned from, others in the next step.
  std::int64_t logits_every = 1;
  std::int64_t validation_windows = 16;  // held out, evenly spread over the texts
  // How long: steps; or minutes, after which it ends with the step that it is in (the schedule is stretched
  // to what a measurement of the first steps expects). Both: whichever comes first.
  std::int64_t steps = 0;
  double max_minutes = 0;
  double lr = 1e-4;                 // at its peak
  double warmup = 0.05;             // share of the steps over which it rises
  std::string schedule = "cosine";  // then: "cosine", "linear", "constant"
  double lr_floor = 0.1;            // share of the peak that is left at the end
  double weight_decay = 0;          // AdamW's, of matrices
  double beta1 = 0.9, beta2 = 0.999;
  double clip = 1;             // norm of the whole gradient; 0: none
  std::string dtype = "f32";   // of weights while they are trained: "f32", or "bf16" with an fp32 master copy
  std::string device = "cpu";  // "cpu", "cuda", "cuda:1"
  bool checkpointing = false;  // recompute layers in the backward pass: less memory, a third more time
  std::string freeze;          // regular expression: tensors that stay as they are
  std::uint64_t seed = 0;
  std::int64_t validate_every = 50;    // steps; 0: at the beginning and the end only
  std::int64_t checkpoint_every = 50;  // steps; 0: at the end only
  std::filesystem::path checkpoint;    // empty: "<output>.checkpoint"; removed when the output is whole
  bool resume = false;  // go on from the checkpoint where there is one; other options must be the same
  std::filesystem::path metrics;  // JSON lines, one per step
  std::filesystem::path report;   // HTML page with the curve
};

// Low-rank updates instead of whole matrices (LoRA, Hu et al. 2021), merged at the end.
struct LoraOptions {
  std::int64_t rank = 16;
  double alpha = 32;  // updates are scaled by alpha / rank
  std::string match;  // regular expression: matrices that get one; empty: all but embedding and head
};

struct QatOptions {
  std::filesystem::path
      source;  // the model in full precision, which is the teacher too: GGUF file or HF folder
  std::filesystem::path output;  // GGUF file
  // What is improved: an existing quantized file of the same model, or (empty) one that is made first, of
  // `type` by `method` with `calibration`, as narrow quantize does.
  std::filesystem::path start;
  std::string type, method = "auto";
  CalibrationOptions calibration;
  // "all": weights, scales, gains. "scales": scales and gains, codes stay. "lora": low-rank updates.
  // "blocks": each layer to its full-precision output (EfficientQAT's first phase). "blocks+all": that, then
  // all.
  std::string train = "all";
  std::int64_t block_steps = 100;  // of each layer
  LoraOptions lora;
  bool learn_scales = true;  // by gradients (LSQ, Esser et al. 2020); false: scales stay as they are
  double lr_scales = 1e-3;   // of weights' scales, relative to their size
  double lr_inputs = 2e-2;   // of activations' static scales, relative to their size
  // Mean KL(teacher || student) of the next token (Hinton et al. 2015) and next-token cross-entropy.
  double kl_weight = 1, ce_weight = 0, temperature = 1;
  // Of the squared distance from the source's residual stream behind each layer, relative to its energy:
  // nearer to every layer than the answer alone is, so that few tokens teach more.
  double hidden_weight = 0;
  // The teacher's likeliest tokens, stored on first use and read after that, instead of a teacher that runs
  // beside.
  std::filesystem::path teacher_cache;
  std::int64_t teacher_top_k = 64;
  // Of the products' inputs: "file" (int8 files: as they say, static or per token), "none", or "engine" (int8
  // per block, as narrow and llama.cpp multiply the file's blocks).
  std::string activations = "file";
  std::string cache_type_k, cache_type_v;  // simulated KV cache: "q8_0", "q4_0", or empty
  std::int64_t observe_steps = 0,
               freeze_step = -1;  // ranges are only observed before, and no more moved after
  TrainLoop loop;
  std::filesystem::path hf_output;  // also as a Hugging Face compressed-tensors folder (w8a8, w4a8)
};

struct FinetuneOptions {
  std::filesystem::path source;  // GGUF file or HF folder
  std::filesystem::path output;  // GGUF file, or a folder
  std::string type;              // "f32", "f16", "bf16"; empty: as stored
  std::string train = "all";     // "all", "lora", "norms"
  LoraOptions lora;
  std::filesystem::path teacher;  // model to distil from; empty: none
  double kl_weight = 0, ce_weight = 1, temperature = 1;
  TrainLoop loop;
};

struct PretrainOptions {
  std::filesystem::path config;     // Hugging Face config.json: architecture and sizes
  std::filesystem::path tokenizer;  // folder, GGUF, tokenizer.json or tokenizer.model
  std::filesystem::path output;     // GGUF file, or a folder
  std::string type = "bf16";        // "f32", "f16", "bf16"
  TrainLoop loop;
};

// Gradients of a model's own loss, for QuantizeOptions::gradients.
struct GradientOptions {
  std::filesystem::path source;              // the model in full precision: GGUF file or Hugging Face folder
  std::filesystem::path output;              // GGUF file
  std::vector<std::filesystem::path> texts;  // UTF-8 text, or .jsonl with chats
  std::int64_t n_ctx = 512;                  // tokens of a window
  std::int64_t max_tokens = 16384;           // of all texts together, spread over them; 0: all
  std::uint64_t seed = 0;                    // of the model's answers
  std::string device = "cpu";                // "cpu", "cuda", "cuda:1"
};
struct GradientReport {
  std::int64_t tokens = 0;
  int matrices = 0;
  double seconds = 0;
  std::uint64_t peak_memory_bytes = 0;
};

struct TrainStep {
  std::int64_t step = 0;  // updates done
  double loss = 0, kl = 0, ce = 0, lr = 0, gradient_norm = 0;
};
struct TrainValidation {  // means over held-out windows
  std::int64_t step = 0;
  double kl = 0, ce = 0;  // nats a token; kl 0 without a teacher
};

struct TrainReport {
  std::vector<std::filesystem::path> files;
  std::vector<TrainStep> steps;
  std::vector<TrainValidation> validations;  // the first before any update, the last of the result
  std::int64_t tokens = 0;                   // of this run
  double seconds = 0, tokens_per_s = 0;      // of this run; tokens_per_s of training steps alone
  std::uint64_t peak_memory_bytes = 0;
  std::string json;  // all of it with the recipe, for --json and bench/results
};

// A weight and what fake-quantizes it and its input.
struct TrainNode {
  std::string name, shape;
  std::string weight, input;  // "q4_0, learned scales", "int8 per token"; empty: nothing
  bool trained = false;
};
std::string graph_text(const std::vector<TrainNode>& nodes);  // a table

struct QatReport : TrainReport {
  std::vector<TrainNode> nodes;
};

// What qat() would train, and how. Makes the start file where there is none, beside the output.
Result<std::vector<TrainNode>> qat_graph(const QatOptions& options, ProgressSink& progress = null_progress());

// Errors: kInvalidArgument (options; empty or too short text), kCorrupt (another model's vocabulary),
// kNumeric (the loss or a gradient is no number: says at which step, and which checkpoint is kept), kNoSpace,
// kCancelled (keeps a checkpoint). Under torchrun (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT) the processes
// share each batch, and the first one writes.
Result<QatReport> qat(const QatOptions& options, ProgressSink& progress = null_progress());
Result<TrainReport> finetune(const FinetuneOptions& options, ProgressSink& progress = null_progress());
Result<TrainReport> pretrain(const PretrainOptions& options, ProgressSink& progress = null_progress());

// One forward and one backward pass over the texts. Errors: kInvalidArgument (options, texts), kUnsupported
// (experts), kNumeric (a loss that is no number), kCancelled (nothing is written).
Result<GradientReport> gradients(const GradientOptions& options, ProgressSink& progress = null_progress());

// Sets the options that a recipe (a JSON object of option names) has; the others stay. kInvalidArgument: an
// unknown option (with the nearest known ones), a value of another type or out of its choices; kNotFound,
// kCorrupt: the file.
Status read_recipe(const std::filesystem::path& file, QatOptions& options);
Status read_recipe(const std::filesystem::path& file, FinetuneOptions& options);
Status read_recipe(const std::filesystem::path& file, PretrainOptions& options);

}  // namespace narrow
