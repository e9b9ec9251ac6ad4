// What lies beside the weights in a file of int8 products (docs/formats/int8.md), bound to them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/result.h"
#include "model/int8_parts.h"
#include "model/source.h"
#include "ops/weight.h"

namespace narrow::runtime {

class Int8Parts {
 public:
  static Result<Int8Parts> create(const model::ModelSource& source);

  // The file is one of int8 products.
  bool present() const { return settings_.has_value(); }
  const model::Int8Settings& settings() const { return *settings_; }

  // Sets the members of `w`, the weight "<stem>.weight" or its expert `expert` of `n_expert` (0 of 1), that
  // say how it meets its input. kNotFound or kCorrupt names the tensor that is missing or wrong.
  Status attach(const std::string& stem, std::int64_t expert, std::int64_t n_expert, ops::Weight& w);

  // Tensors that attach() read, and the memory behind what it set.
  const std::vector<std::size_t>& used() const { return used_; }
  std::vector<AlignedBuffer<std::byte>> take_storage() { return std::move(storage_); }

 private:
  explicit Int8Parts(const model::ModelSource& source) : source_(&source) {}
  std::string file() const { return source_->path().string(); }
  // Null where the file has no such tensor. Read once.
  Result<const std::byte*> part(const std::string& name, const std::vector<Format>& formats,
                                const Shape& shape, Format* format);
  Status attach_codes(const std::string& stem, std::int64_t expert, std::int64_t n_expert, ops::Weight& w);
  Status attach_scheme(const std::string& stem, ops::Weight& w);
  Status attach_outliers(const std::string& stem, std::int64_t expert, std::int64_t n_expert, ops::Weight& w);

  const model::ModelSource* source_;
  std::optional<model::Int8Settings> settings_;
  std::vector<std::size_t> used_;
  std::vector<const std::byte*> data_;  // of used_
  std::vector<AlignedBuffer<std::byte>> storage_;
};

// kCorrupt names the two stems when their weights, which share an input, do not agree on how it becomes int8.
Status check_same_input(const std::string& file, const std::string& stem_a, const ops::Weight& a,
                        const std::string& stem_b, const ops::Weight& b);

}  // namespace narrow::runtime
