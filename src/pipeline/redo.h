// `--only`: some tensors of an existing quantized file are made again, all others are copied from it.
#pragma once

#include <string>
#include <vector>

#include "io/gguf/reader.h"
#include "model/source.h"
#include "narrow/progress.h"
#include "narrow/quantize.h"
#include "pipeline/job.h"
#include "pipeline/plan.h"

namespace narrow::pipeline {

class Redo {
 public:
  // The file `options.output` and the tensors that match `options.only`. kInvalidArgument: a bad pattern, one
  // that matches nothing, a file of another model, split output, or a file or method whose tensors depend on
  // one another (folded scales, rotations).
  static Result<Redo> open(const model::ModelSource& source, const QuantizeOptions& options);

  bool redone(std::size_t index) const { return redone_[index]; }  // of the source's tensors
  // The plan's types and sizes where tensors are kept; the report's output_bytes is left alone.
  void keep_types(Plan& plan) const;
  const io::gguf::Metadata& metadata() const { return reader_.metadata(); }  // the existing file's
  // `recipe` with the one that the existing file, with this digest, was made by, as its "base".
  std::string recipe_with_base(const std::string& recipe, const std::string& digest) const;
  Result<std::string> digest() const;  // of the existing file; reads all of it
  // Fills the job's kept tensors. kCancelled when the sink says so.
  Status copy_kept(QuantizeJob& job, ProgressSink& progress) const;

 private:
  Redo(io::gguf::Reader reader, const QuantizeOptions& o) : reader_(std::move(reader)), path_(o.output) {}
  const io::gguf::StoredTensor& stored(std::size_t index) const { return reader_.tensors()[place_[index]]; }

  io::gguf::Reader reader_;
  std::filesystem::path path_;
  std::vector<bool> redone_;
  std::vector<std::size_t> place_;  // of the source's tensors in the existing file
};

}  // namespace narrow::pipeline
