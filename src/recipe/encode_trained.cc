#include "recipe/encode_trained.h"

#include <cstring>
#include <optional>

#include "formats/cast.h"
#include "model/int8_parts.h"
#include "train/nodes/activation.h"
#include "train/nodes/int8_row_weight.h"

namespace narrow::recipe {
namespace {

namespace part = model::int8_part;
using pipeline::TrainedTensor;
using Bytes = std::vector<std::byte>;

template <class T>
Bytes bytes_of(const T* values, std::size_t n) {
  Bytes out(n * sizeof(T));
  std::memcpy(out.data(), values, out.size());
  return out;
}

class Encoder {
 public:
  Encoder(train::Decoder& trained, const model::ModelSource& start) : trained_(trained), start_(start) {}

  Result<std::vector<TrainedTensor>> run() {
    for (const TensorInfo& info : start_.tensors()) {
      auto bytes = tensor(info);
      if (!bytes.ok()) {
        return with_context(bytes.error(), fmt::format("{}: tensor '{}'", start_.path().string(), info.name));
      }
      if (*bytes) out_.push_back({info.name, std::move(**bytes)});
    }
    return std::move(out_);
  }

 private:
  // nullopt: as in the start file.
  Result<std::optional<Bytes>> tensor(const TensorInfo& info) {
    if (const std::optional<std::string> stem = model::int8_stem(info.name)) return int8_part(info, *stem);
    const at::Tensor w = trained_.weight(info.name);
    if (!w.defined()) return std::optional<Bytes>();
    if (train::WeightNode* node = weight_node(info.name)) {
      NARROW_ASSIGN(Bytes bytes, node->encode(w.detach().cpu().to(at::kFloat).contiguous()));
      return std::optional<Bytes>(std::move(bytes));
    }
    // Without a node the weight is what the file decodes to, unless it was trained or a LoRA went into it.
    NARROW_ASSIGN(const bool same, is_start(info, w));
    if (same) return std::optional<Bytes>();
    return cast(info, w);
  }

  Result<bool> is_start(const TensorInfo& info, const at::Tensor& w) const {
    const at::Tensor x = w.detach().cpu().to(at::kFloat).contiguous();
    std::vector<float> stored(static_cast<std::size_t>(info.shape.elements()));
    NARROW_TRY(start_.read_f32(*start_.find(info.name), 0, info.shape.rows(), stored.data()));
    return x.numel() == info.shape.elements() &&
           std::memcmp(stored.data(), x.data_ptr<float>(), stored.size() * sizeof(float)) == 0;
  }

  static Result<std::optional<Bytes>> cast(const TensorInfo& info, const at::Tensor& w) {
    const at::Tensor x = w.detach().cpu().to(at::kFloat).contiguous();
    if (format_info(info.format).kind != FormatKind::kFloat) {
      return make_error(ErrorCode::kUnsupported, "was trained as a float and cannot be stored as {}",
                        format_info(info.format).name);
    }
    if (const std::int64_t bad = find_non_finite(x.data_ptr<float>(), x.numel()); bad >= 0) {
      return make_error(ErrorCode::kNumeric, "element {} is {} after training", bad,
                        x.data_ptr<float>()[bad]);
    }
    Bytes out(info.bytes());
    NARROW_ASSIGN(const auto lost, cast_from_f32(info.format, x.data_ptr<float>(), out.data(), x.numel()));
    if (lost.overflowed > 0) {
      return make_error(ErrorCode::kNumeric, "{} trained values are too large for {}", lost.overflowed,
                        format_info(info.format).name);
    }
    return std::optional<Bytes>(std::move(out));
  }

  Result<std::optional<Bytes>> int8_part(const TensorInfo& info, const std::string& stem) {
    const std::string weight = stem + ".weight";
    const at::Tensor w = trained_.weight(weight);
    if (info.name.ends_with(part::kOutlierWeight)) {
      const train::WeightNode* node = weight_node(weight);
      const at::Tensor outliers = node != nullptr && w.defined() ? node->stored_outliers(w) : at::Tensor();
      return outliers.defined() ? cast_part(info, outliers)
                                : Result<std::optional<Bytes>>(std::optional<Bytes>());
    }
    if (info.name.ends_with(part::kWeightScale)) {
      auto* node = dynamic_cast<train::Int8RowWeight*>(weight_node(weight));
      if (node == nullptr || !w.defined()) return std::optional<Bytes>();
      return cast_part(info, node->stored_scales());
    }
    const bool zero = info.name.ends_with(part::kInputZero);
    if (!zero && !info.name.ends_with(part::kInputScale)) return std::optional<Bytes>();
    const auto* node = dynamic_cast<const train::Int8Activation*>(input_node(stem));
    if (node == nullptr || node->options().range < train::ActivationRange::kFixed) {
      return std::optional<Bytes>();
    }
    const kernels::DenseInt8Scheme scheme = node->scheme();
    if (!(scheme.scale > 0)) return std::optional<Bytes>();  // never ran
    if (zero) return std::optional<Bytes>(bytes_of(&scheme.zero, 1));
    if (scheme.zero != 0 && !start_.find(stem + std::string(part::kInputZero))) {
      return make_error(ErrorCode::kUnsupported, "a zero point of {} was trained, and the file has none",
                        scheme.zero);
    }
    return std::optional<Bytes>(bytes_of(&scheme.scale, 1));
  }

  static Result<std::optional<Bytes>> cast_part(const TensorInfo& info, const at::Tensor& values) {
    if (values.numel() != info.shape.elements()) {
      return make_error(ErrorCode::kUnsupported, "{} values were trained, and the file has {}",
                        values.numel(), info.shape.elements());
    }
    return cast(info, values);
  }

  train::WeightNode* weight_node(const std::string& name) const {
    const auto it = trained_.weight_nodes().find(name);
    return it == trained_.weight_nodes().end() ? nullptr : it->second.get();
  }

  const train::Node* input_node(const std::string& stem) const {
    const auto& nodes = trained_.input_nodes();
    auto it = nodes.find(stem + ".weight");
    // A tied head's input has parts called "output", its weights are the embedding's.
    if (it == nodes.end() && stem == "output") it = nodes.find(trained_.head_name());
    return it == nodes.end() ? nullptr : it->second.get();
  }

  train::Decoder& trained_;
  const model::ModelSource& start_;
  std::vector<TrainedTensor> out_;
};

}  // namespace

Result<std::vector<TrainedTensor>> encode_trained(train::Decoder& trained, const model::ModelSource& start) {
  const at::NoGradGuard off;
  return Encoder(trained, start).run();
}

}  // namespace narrow::recipe
