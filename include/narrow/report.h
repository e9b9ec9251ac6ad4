// One page about what quantization cost: files made from one model compared with it and with each other, down
// to layers, tensors and tokens. docs/report.md describes page and JSON.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "narrow/engine.h"
#include "narrow/progress.h"
#include "narrow/result.h"

namespace narrow {

struct ReportOptions {
  std::filesystem::path reference;            // usually the unquantized model
  std::vector<std::filesystem::path> models;  // at least one, made from it
  std::filesystem::path text;                 // UTF-8, to measure on
  // What the inputs of the matrices look like (an importance matrix of the reference, as `narrow calibrate`
  // or llama-imatrix writes it); may be empty. With it, errors of weights count by the inputs that meet them.
  std::filesystem::path statistics;
  std::int64_t n_ctx = 512;  // llama-perplexity's protocol
  std::int64_t windows = 0;  // 0: all
  int worst_tokens = 20;     // positions listed per file
  // Tensors whose values are shown as histograms; empty: the three most damaged of each file.
  std::vector<std::string> tensors;
  EngineOptions engine;  // of the models; the reference runs with the defaults
};

struct ReportedModel {
  std::string name;  // as on the page
  std::uint64_t file_bytes = 0;
  double bpw = 0, perplexity = 0;
  double kl_mean = 0, kl_se = 0;  // KL(reference || model), nats
  double top1_agreement = 0;
  bool on_front = false;  // no other file is both smaller and nearer to the reference
};

class Report {
 public:
  Report(std::vector<ReportedModel> models, std::string json)
      : models_(std::move(models)), json_(std::move(json)) {}
  const std::vector<ReportedModel>& models() const { return models_; }  // in the order of the options
  const std::string& to_json() const { return json_; }
  std::string to_html() const;  // one page, complete without a network

 private:
  std::vector<ReportedModel> models_;
  std::string json_;
};

// kInvalidArgument where a model does not belong to the reference (architecture, vocabulary, shapes), before
// anything is measured.
Result<Report> make_report(const ReportOptions& options, ProgressSink& progress = null_progress());

}  // namespace narrow
