#include "pipeline/int8_layout.h"

#include <algorithm>

#include "calib/collect.h"
#include "model/int8_parts.h"
#include "pipeline/mixes.h"
#include "pipeline/plan.h"

namespace narrow::pipeline {
namespace {

namespace part = model::int8_part;

class Planner {
 public:
  Planner(const model::ModelSource& source, const QuantizeOptions& options, const Int8Type& type)
      : source_(source), options_(options), type_(type) {}

  // Without `inputs` what the widest choice of outlier columns would take.
  Result<Int8Layout> plan(const std::map<std::string, Int8Input>* inputs) {
    inputs_ = inputs;
    const std::vector<std::size_t> products = calib::calibrated_tensors(source_);
    for (std::size_t i = 0; i < source_.tensors().size(); ++i) {
      const TensorInfo& t = source_.tensors()[i];
      const bool product = std::find(products.begin(), products.end(), i) != products.end();
      const bool embedding = tensor_role(t.name) == Role::kEmbedding;
      if (product && !embedding) {
        NARROW_TRY(add_product(i));
      } else {
        NARROW_TRY(add_stored(i, product));
      }
    }
    std::uint64_t bytes = 0;
    for (const TensorInfo& t : layout_.tensors) bytes += t.bytes();
    layout_.report.bpw = 8.0 * static_cast<double>(bytes) / static_cast<double>(layout_.report.parameters);
    layout_.report.source_bytes = source_.file_bytes();
    layout_.report.file_type_name = std::string(type_.name);
    return std::move(layout_);
  }

 private:
  std::int64_t outliers_of(const std::string& stem, std::int64_t k, Int8Input& input) const {
    if (inputs_ == nullptr) return options_.outliers >= 0 ? std::min(options_.outliers, k) : k / 32;
    if (const auto it = inputs_->find(stem); it != inputs_->end()) input = it->second;
    return static_cast<std::int64_t>(input.outliers.size());
  }

  Status check_requantize(const TensorInfo& t, Format to) const {
    const bool quantized = format_info(t.format).kind == FormatKind::kQuantized;
    if (!quantized || to == t.format || options_.allow_requantize) return {};
    return requantize_error(source_.path().string(), t.format);
  }

  Status add_product(std::size_t i) {
    const TensorInfo& t = source_.tensors()[i];
    Int8Piece piece;
    piece.source = i;
    piece.stem = t.name.substr(0, t.name.size() - std::string_view(".weight").size());
    const std::int64_t k = t.shape.row_length();
    const std::int64_t count = outliers_of(piece.stem, k, piece.input);
    Format to = Format::kI8;
    if (type_.settings.weight_bits == 4) {
      const bool head = tensor_role(t.name) == Role::kHead;
      to = fitting_format(head ? Format::kQ8_0 : Format::kQ4_0, k);
    }
    NARROW_TRY(check_requantize(t, to));
    const bool integer = format_info(to).kind != FormatKind::kFloat;
    piece.kind = to == Format::kI8 ? Int8Kind::kCodes : integer ? Int8Kind::kBlocks : Int8Kind::kStored;
    add_piece(std::move(piece), {t.name, to, t.shape},
              integer ? std::string(type_.name) : "fallback: rows of no whole blocks", integer ? count : 0);
    return {};
  }

  // Embeddings take q8_0; a tied one is also the head, whose input has parts of its own.
  Status add_stored(std::size_t i, bool head) {
    const TensorInfo& t = source_.tensors()[i];
    Int8Piece piece;
    piece.source = i;
    Format to = format_info(t.format).kind == FormatKind::kInteger ? t.format : Format::kF32;
    std::string reason = "kept";
    std::int64_t count = 0;
    if (model::is_quantizable(t)) {
      to = fitting_format(Format::kQ8_0, t.shape.row_length());
      NARROW_TRY(check_requantize(t, to));
      reason = "embedding";
    }
    if (head && (type_.settings.weight_bits == 8 || format_info(to).kind == FormatKind::kQuantized)) {
      piece.stem = "output";
      piece.input_only = true;
      count = outliers_of(piece.stem, t.shape.row_length(), piece.input);
    }
    add_piece(std::move(piece), {t.name, to, t.shape}, reason, count);
    return {};
  }

  void add_piece(Int8Piece piece, TensorInfo weight, const std::string& reason, std::int64_t outliers) {
    const TensorInfo& from = source_.tensors()[piece.source];
    std::vector<std::int64_t> dims = from.shape.dims();
    const auto add = [&](TensorInfo t, std::string_view from_type, std::uint64_t from_bytes) {
      layout_.report.tensors.push_back({t.name, t.shape.dims(), std::string(from_type),
                                        std::string(format_info(t.format).name), reason, false, from_bytes,
                                        t.bytes()});
      layout_.tensors.push_back(std::move(t));
    };
    layout_.first.push_back(layout_.tensors.size());
    layout_.report.parameters += static_cast<std::uint64_t>(from.shape.elements());
    add(std::move(weight), format_info(from.format).name, from.bytes());
    dims.pop_back();
    const std::string& stem = piece.stem;
    if (piece.kind == Int8Kind::kCodes)
      add({stem + std::string(part::kWeightScale), Format::kF32, Shape(dims)}, "", 0);
    if (!stem.empty() && (piece.kind != Int8Kind::kStored || piece.input_only)) {
      if (type_.settings.static_scales)
        add({stem + std::string(part::kInputScale), Format::kF32, {1}}, "", 0);
      if (outliers > 0) add({stem + std::string(part::kOutlierIndex), Format::kI32, {outliers}}, "", 0);
      if (outliers > 0 && !piece.input_only) {
        dims.push_back(outliers);
        add({stem + std::string(part::kOutlierWeight), Format::kF16, Shape(dims)}, "", 0);
      }
    }
    layout_.pieces.push_back(std::move(piece));
  }

  const model::ModelSource& source_;
  const QuantizeOptions& options_;
  const Int8Type& type_;
  const std::map<std::string, Int8Input>* inputs_ = nullptr;
  Int8Layout layout_;
};

}  // namespace

Result<Int8Layout> plan_int8_layout(const model::ModelSource& source, const QuantizeOptions& options,
                                    const Int8Type& type, const std::map<std::string, Int8Input>* inputs) {
  return Planner(source, options, type).plan(inputs);
}

std::optional<std::size_t> part_of(const Int8Layout& layout, std::size_t piece, std::string_view suffix) {
  const std::size_t end = piece + 1 < layout.first.size() ? layout.first[piece + 1] : layout.tensors.size();
  for (std::size_t i = layout.first[piece] + 1; i < end; ++i) {
    if (layout.tensors[i].name.ends_with(suffix)) return i;
  }
  return std::nullopt;
}

}  // namespace narrow::pipeline
