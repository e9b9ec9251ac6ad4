// Every option of training by name, once: the command line, recipe files and the record in output files all
// come from these lists.
#pragma once

#include <initializer_list>
#include <string_view>

#include "narrow/train.h"

namespace narrow {

// `visit(name, member, help)` and, for strings with fixed values, `visit(name, member, help, choices)`, per
// option.
using Choices = std::initializer_list<std::string_view>;

template <class Loop, class Visit>
void visit_loop(Loop& o, Visit&& visit) {
  visit("text", o.texts, "Texts to train on (.txt, or chats and documents as .jsonl); repeatable");
  visit("ctx", o.n_ctx, "Tokens of a window");
  visit("batch_tokens", o.batch_tokens, "Tokens of a step, rounded up to whole windows");
  visit("micro_batch", o.micro_batch, "Windows in memory at a time");
  visit("logits_every", o.logits_every,
        "Learn from every n-th position's logits only, from others in the next step");
  visit("validation_windows", o.validation_windows, "Windows held out to validate on, evenly spread");
  visit("steps", o.steps, "Updates to make");
  visit("minutes", o.max_minutes, "Time to train for, instead of --steps or as a limit to them");
  visit("lr", o.lr, "Learning rate at its peak");
  visit("warmup", o.warmup, "Share of the steps over which the learning rate rises");
  visit("schedule", o.schedule, "How it falls afterwards", Choices{"cosine", "linear", "constant"});
  visit("lr_floor", o.lr_floor, "Share of the peak that is left at the end");
  visit("weight_decay", o.weight_decay, "Of AdamW, on matrices");
  visit("beta1", o.beta1, "Of AdamW");
  visit("beta2", o.beta2, "Of AdamW");
  visit("clip", o.clip, "Largest norm of the gradient; 0: any");
  visit("dtype", o.dtype, "Of weights in training; bf16 with an fp32 master copy", Choices{"f32", "bf16"});
  visit("device", o.device, "cpu, cuda or cuda:N");
  visit("checkpointing", o.checkpointing, "Recompute layers in the backward pass: less memory, more time");
  visit("freeze", o.freeze, "Regular expression: tensors that stay as they are");
  visit("seed", o.seed, "Of the order of texts and of random starts");
  visit("validate_every", o.validate_every, "Steps; 0: at the beginning and the end");
  visit("checkpoint_every", o.checkpoint_every, "Steps; 0: at the end");
  visit("checkpoint", o.checkpoint, "Where the run is kept; default <output>.checkpoint");
  visit("resume", o.resume, "Go on from the checkpoint, if there is one");
  visit("metrics", o.metrics, "Write a JSON line per step to this file");
  visit("report", o.report, "Write an HTML page with the curve");
}

template <class Lora, class Visit>
void visit_lora(Lora& o, Visit&& visit) {
  visit("lora_rank", o.rank, "Rank of low-rank updates");
  visit("lora_alpha", o.alpha, "They are scaled by alpha / rank");
  visit("lora_match", o.match,
        "Regular expression: matrices that get one; default all but embedding and head");
}

template <class Visit>
void visit_fields(QatOptions& o, Visit&& visit) {
  visit("source", o.source, "The model in full precision: GGUF file or Hugging Face folder");
  visit("output", o.output, "GGUF file to write");
  visit("start", o.start, "Quantized file of the same model to improve; else one is made of --type");
  visit("type", o.type, "Type or mix to quantize to, e.g. q4_0");
  visit("method", o.method, "Algorithm for the start; narrow list methods shows them");
  visit("calib", o.calibration.texts, "Texts to calibrate the start on; default the training texts");
  visit("calib_tokens", o.calibration.max_tokens, "Tokens of them; 0: all");
  visit("train", o.train, "What is trained", Choices{"all", "scales", "lora", "blocks", "blocks+all"});
  visit("block_steps", o.block_steps, "Updates of each layer in training block by block");
  visit_lora(o.lora, visit);
  visit("learn_scales", o.learn_scales, "Scales by gradients (LSQ)");
  visit("lr_scales", o.lr_scales, "Learning rate of weights' scales, relative to their size");
  visit("lr_inputs", o.lr_inputs, "Learning rate of activations' static scales, relative to their size");
  visit("kl_weight", o.kl_weight, "Of KL divergence from the source");
  visit("ce_weight", o.ce_weight, "Of next-token cross-entropy");
  visit("temperature", o.temperature, "Of both distributions in the KL divergence");
  visit("hidden_weight", o.hidden_weight, "Of the squared distance from the source behind every layer");
  visit("teacher_cache", o.teacher_cache, "File of the source's likeliest tokens, made on first use");
  visit("teacher_top_k", o.teacher_top_k, "How many of them per position");
  visit("activations", o.activations,
        "Inputs of products as the file says, as floats, or int8 as the engine has them",
        Choices{"file", "none", "engine"});
  visit("cache_type_k", o.cache_type_k, "Simulated format of cached keys", Choices{"", "q8_0", "q4_0"});
  visit("cache_type_v", o.cache_type_v, "Simulated format of cached values", Choices{"", "q8_0", "q4_0"});
  visit("observe_steps", o.observe_steps, "Steps in which ranges are observed, and nothing is quantized");
  visit("freeze_step", o.freeze_step, "Step from which ranges stay as they are; -1: never");
  visit("hf_output", o.hf_output, "Also write a compressed-tensors folder (w8a8, w4a8)");
  visit_loop(o.loop, visit);
}

template <class Visit>
void visit_fields(FinetuneOptions& o, Visit&& visit) {
  visit("source", o.source, "GGUF file or Hugging Face folder");
  visit("output", o.output, "GGUF file or folder to write");
  visit("type", o.type, "Of the output; default as stored", Choices{"", "f32", "f16", "bf16"});
  visit("train", o.train, "What is trained", Choices{"all", "lora", "norms"});
  visit_lora(o.lora, visit);
  visit("teacher", o.teacher, "Model to distil from");
  visit("kl_weight", o.kl_weight, "Of KL divergence from the teacher");
  visit("ce_weight", o.ce_weight, "Of next-token cross-entropy");
  visit("temperature", o.temperature, "Of both distributions in the KL divergence");
  visit_loop(o.loop, visit);
}

template <class Visit>
void visit_fields(PretrainOptions& o, Visit&& visit) {
  visit("config", o.config, "Hugging Face config.json: architecture and sizes");
  visit("tokenizer", o.tokenizer, "Folder, GGUF, tokenizer.json or tokenizer.model");
  visit("output", o.output, "GGUF file or folder to write");
  visit("type", o.type, "Of the output", Choices{"f32", "f16", "bf16"});
  visit_loop(o.loop, visit);
}

}  // namespace narrow
