// Which tensors a file of int8 products holds (docs/formats/int8.md).
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "pipeline/int8_file.h"
#include "pipeline/int8_inputs.h"

namespace narrow::pipeline {

// What becomes of one source tensor.
enum class Int8Kind : std::uint8_t {
  kStored,  // in a type of its own: norms, embeddings
  kCodes,   // int8 with a scale per row
  kBlocks,  // a block format, its outlier columns apart
};
struct Int8Piece {
  std::size_t source = 0;
  Int8Kind kind = Int8Kind::kStored;
  std::string stem;
  Int8Input input;
  bool input_only = false;  // the tied head: only what concerns its input; the weights are the embedding's
};

// The output's tensors: each piece's weight, then its parts.
struct Int8Layout {
  std::vector<Int8Piece> pieces;
  std::vector<TensorInfo> tensors;
  std::vector<std::size_t> first;  // of each piece
  QuantizePlan report;
};

// Without `inputs` what the widest choice of outlier columns would take. kRefused: a quantized source.
Result<Int8Layout> plan_int8_layout(const model::ModelSource& source, const QuantizeOptions& options,
                                    const Int8Type& type, const std::map<std::string, Int8Input>* inputs);

// The index among the output's tensors of one of the piece's parts; nullopt where it has none.
std::optional<std::size_t> part_of(const Int8Layout& layout, std::size_t piece, std::string_view suffix);

}  // namespace narrow::pipeline
