#include "train/prepare.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "formats/grid.h"
#include "kernels/dense_int8.h"
#include "model/int8_parts.h"
#include "train/nodes/activation.h"
#include "train/nodes/block_weight.h"
#include "train/nodes/cache.h"
#include "train/nodes/codebook_weight.h"
#include "train/nodes/int8_row_weight.h"
#include "train/nodes/outlier_columns.h"

namespace narrow::train {
namespace {

// `reference` with its rows and columns scaled to those of `values`, where that is what most of the
// difference is: channels of a file may have been scaled before it was quantized (pipeline/transform.h), and
// only weights of the same scale say where in its cell a latent weight belongs.
at::Tensor scaled_like(const at::Tensor& reference, const at::Tensor& values) {
  constexpr int kRounds = 3;
  constexpr double kMostLeft = 0.5;  // of the squared difference
  const auto fit = [&](const at::Tensor& x, std::int64_t dim) {
    return (values * x).sum(dim, true) / x.square().sum(dim, true).clamp_min(1e-30);
  };
  at::Tensor scaled = reference;
  for (int i = 0; i < kRounds; ++i) {
    scaled = scaled * fit(scaled, 1);
    scaled = scaled * fit(scaled, 0);
  }
  const double before = (values - reference).square().sum().item<double>();
  const double after = (values - scaled).square().sum().item<double>();
  return after < kMostLeft * before ? scaled : reference;
}

class Preparation {
 public:
  Preparation(Decoder& student, const model::ModelSource& start, const PrepareOptions& options)
      : student_(student), start_(start), o_(options), file_(start.path().string()) {}

  Result<std::vector<GraphRow>> run() {
    if (start_.is_gguf()) {
      NARROW_ASSIGN(const io::gguf::Metadata metadata, start_.gguf_metadata());
      NARROW_ASSIGN(int8_, model::int8_settings(metadata, file_));
    }
    for (std::size_t i = 0; i < start_.tensors().size(); ++i) NARROW_TRY(tensor(i));
    for (const auto& [name, w] : student_.weights()) {
      if (!start_.find(name)) {
        return make_error(ErrorCode::kInvalidArgument,
                          "{}: tensor '{}' of the reference is missing; is it the same model?", file_, name);
      }
    }
    NARROW_TRY(inputs());
    NARROW_TRY(caches());
    return std::move(graph_);
  }

 private:
  bool frozen(const std::string& name) const {
    return o_.is_frozen ? o_.is_frozen(name) : name == "token_embd.weight";
  }

  Status tensor(std::size_t i) {
    const TensorInfo& info = start_.tensors()[i];
    at::Tensor w = student_.weight(info.name);
    if (!w.defined()) return {};  // rope tables, parts of int8 weights
    if (w.sizes() != at::IntArrayRef(info.shape.dims())) {
      return make_error(ErrorCode::kInvalidArgument,
                        "{}: tensor '{}' is {}, but {} in the reference; is it the same model?", file_,
                        info.name, info.shape.text(), Shape(w.sizes().vec()).text());
    }
    GraphRow row{info.name, info.shape.text(), "", "", false};
    const bool is_matrix = model::is_quantizable(info);
    if (is_matrix && info.format == Format::kI8) {
      NARROW_TRY(int8_weight(i, info, w, row));
    } else if (is_matrix && formats::grid_codec(info.format) != nullptr) {
      NARROW_TRY(block_weight(i, info, w, row));
    } else if (is_matrix && CodebookWeight::supports(info.format) && o_.learn_scales &&
               o_.what != TrainWhat::kLora && !frozen(info.name)) {
      NARROW_TRY(codebook_weight(i, info, w, row));
    } else {
      NARROW_TRY(start_.read_f32(i, 0, info.shape.rows(), w.data_ptr<float>()));
      // Gains and biases are few and cost nothing; matrices in half precision follow what is asked for.
      row.trained = !frozen(info.name) && format_info(info.format).kind == FormatKind::kFloat &&
                    (!is_matrix || o_.what == TrainWhat::kAll);
      w.set_requires_grad(row.trained);
    }
    start_.drop(i);
    graph_.push_back(std::move(row));
    return {};
  }

  Status block_weight(std::size_t i, const TensorInfo& info, at::Tensor& w, GraphRow& row) {
    std::vector<std::byte> bytes(info.bytes());
    NARROW_TRY(start_.read_raw(i, 0, info.shape.rows(), bytes.data()));
    row.trained = !frozen(info.name);
    BlockWeightOptions options;
    options.scales = row.trained && o_.learn_scales ? BlockScales::kLearned : BlockScales::kFixed;
    options.scaled_gradient = false;  // Adam's steps do not depend on a gradient's size
    NARROW_ASSIGN(const std::shared_ptr<BlockWeight> node,
                  BlockWeight::create(info.format, std::move(bytes), info.shape[0], info.shape[1], options));
    {
      const at::NoGradGuard off;
      // Half of what error feedback rounded the other way would lie at the edge of its cell, where the first
      // steps, whose directions are mostly noise, turn thousands of well-chosen codes. From further inside
      // only what is pushed for long gets over.
      const at::Tensor centre = node->start_values();
      w.copy_(centre + o_.lean * (node->start_latent(target(w, centre, row)) - centre));
    }
    std::shared_ptr<WeightNode> outer = node;
    const std::string stem = stem_of(info.name);
    if (const auto stored = start_.find(stem + std::string(model::int8_part::kOutlierWeight))) {
      NARROW_ASSIGN(const std::vector<std::int32_t> columns,
                    part<std::int32_t>(stem, model::int8_part::kOutlierIndex));
      NARROW_ASSIGN(outer,
                    OutlierColumns::create(node, info.shape[1], columns, start_.tensors()[*stored].format));
      NARROW_TRY(take_outliers(*stored, columns, w));
    }
    attach(outer, w, row);
    return {};
  }

  Status codebook_weight(std::size_t i, const TensorInfo& info, at::Tensor& w, GraphRow& row) {
    std::vector<std::byte> bytes(info.bytes());
    NARROW_TRY(start_.read_raw(i, 0, info.shape.rows(), bytes.data()));
    NARROW_ASSIGN(const std::shared_ptr<CodebookWeight> node,
                  CodebookWeight::create(info.format, std::move(bytes), info.shape[0], info.shape[1]));
    row.trained = true;
    row.weight = node->describe();
    w.copy_(node->values());
    w.set_requires_grad(false);
    student_.attach_weight(row.name, node);
    return {};
  }

  // What latent weights lean to. Of those that stay where they start (embeddings are large) it does not
  // matter.
  static at::Tensor target(const at::Tensor& reference, const at::Tensor& values, const GraphRow& row) {
    return row.trained ? scaled_like(reference, values) : reference;
  }

  void attach(const std::shared_ptr<WeightNode>& node, at::Tensor& w, GraphRow& row) {
    row.weight = node->describe();
    w.set_requires_grad(row.trained && o_.what == TrainWhat::kAll);
    student_.attach_weight(row.name, node);
  }

  // A tensor of the int8 parts beside `stem`, empty where there is none.
  template <class T>
  Result<std::vector<T>> part(const std::string& stem, std::string_view suffix) const {
    const auto index = start_.find(stem + std::string(suffix));
    if (!index) return std::vector<T>();
    const TensorInfo& info = start_.tensors()[*index];
    std::vector<T> out(info.bytes() / sizeof(T));
    NARROW_TRY(start_.read_raw(*index, 0, info.shape.rows(), reinterpret_cast<std::byte*>(out.data())));
    return out;
  }

  // The columns that the file keeps apart, as it has them.
  Status take_outliers(std::size_t stored, const std::vector<std::int32_t>& columns, at::Tensor& w) const {
    const TensorInfo& info = start_.tensors()[stored];
    if (info.shape.rows() != w.size(0) ||
        info.shape.row_length() != static_cast<std::int64_t>(columns.size())) {
      return make_error(ErrorCode::kCorrupt, "{}: tensor '{}' is {}, for {} columns", file_, info.name,
                        info.shape.text(), columns.size());
    }
    const at::Tensor values = at::empty({w.size(0), info.shape.row_length()});
    NARROW_TRY(start_.read_f32(stored, 0, info.shape.rows(), values.data_ptr<float>()));
    const at::NoGradGuard off;
    for (std::size_t i = 0; i < columns.size(); ++i) {
      w.select(1, columns[i]).copy_(values.select(1, static_cast<std::int64_t>(i)));
    }
    return {};
  }

  static std::string stem_of(const std::string& weight) { return weight.substr(0, weight.rfind(".weight")); }

  Status int8_weight(std::size_t i, const TensorInfo& info, at::Tensor& w, GraphRow& row) {
    const std::string stem = stem_of(info.name);
    std::vector<std::int8_t> codes(info.bytes());
    NARROW_TRY(start_.read_raw(i, 0, info.shape.rows(), reinterpret_cast<std::byte*>(codes.data())));
    NARROW_ASSIGN(const std::vector<float> scales, part<float>(stem, model::int8_part::kWeightScale));
    row.trained = !frozen(info.name);
    Int8RowOptions options;
    options.learned = row.trained && o_.learn_scales;
    options.scaled_gradient = false;
    NARROW_ASSIGN(options.outliers, part<std::int32_t>(stem, model::int8_part::kOutlierIndex));
    const auto stored = start_.find(stem + std::string(model::int8_part::kOutlierWeight));
    if (stored) options.outlier_format = start_.tensors()[*stored].format;
    NARROW_ASSIGN(const auto node,
                  Int8RowWeight::create(codes, scales, info.shape[0], info.shape[1], options));
    {
      const at::NoGradGuard off;
      w.copy_(node->start_latent(target(w, node->start_values(), row)));
    }
    if (stored) NARROW_TRY(take_outliers(*stored, options.outliers, w));
    attach(node, w, row);
    return {};
  }

  // The head of a file of 8-bit weights is made of the embedding when the file is loaded (ops/weight.cc).
  Status int8_head() {
    const at::Tensor embedding = student_.effective("token_embd.weight");
    if (embedding.requires_grad()) {
      return make_error(
          ErrorCode::kUnsupported,
          "{}: its head is rounded from the embedding anew whenever it is loaded; freeze token_embd.weight",
          file_);
    }
    NARROW_ASSIGN(const std::vector<std::int32_t> outliers,
                  part<std::int32_t>("output", model::int8_part::kOutlierIndex));
    const at::NoGradGuard off;
    at::Tensor inner = embedding.clone();
    for (const std::int32_t c : outliers) inner.select(1, c).zero_();
    const at::Tensor largest = inner.abs().amax(1).contiguous();
    std::vector<float> scales(static_cast<std::size_t>(largest.numel()));
    for (std::size_t r = 0; r < scales.size(); ++r) {
      scales[r] = kernels::dense_int8_scale(largest.data_ptr<float>()[r] / 127.0f);
    }
    Int8RowOptions options;
    options.outliers = outliers;
    options.outlier_format = Format::kF32;
    const std::vector<std::int8_t> codes(static_cast<std::size_t>(embedding.numel()));  // not started from
    NARROW_ASSIGN(const auto node,
                  Int8RowWeight::create(codes, scales, embedding.size(0), embedding.size(1), options));
    student_.weights()["output.weight"] = node->apply(embedding);
    return {};
  }

  Result<std::shared_ptr<Int8Activation>> input_node(const std::string& stem, std::int64_t k) const {
    ActivationOptions a;
    a.asymmetric = int8_->asymmetric;
    a.scaled_gradient = false;
    if (int8_->static_scales) {
      NARROW_ASSIGN(const std::vector<float> scale, part<float>(stem, model::int8_part::kInputScale));
      NARROW_ASSIGN(const std::vector<std::int32_t> zero,
                    part<std::int32_t>(stem, model::int8_part::kInputZero));
      if (scale.size() != 1) {
        return make_error(ErrorCode::kCorrupt, "{}: tensor '{}{}' f32 [1] is missing, and scales are static",
                          file_, stem, model::int8_part::kInputScale);
      }
      a.range = o_.observe_ranges ? ActivationRange::kObserved
                : o_.learn_scales ? ActivationRange::kLearned
                                  : ActivationRange::kFixed;
      a.scale = scale[0];
      a.zero = zero.empty() ? 0 : zero[0];
    }
    NARROW_ASSIGN(a.outliers, part<std::int32_t>(stem, model::int8_part::kOutlierIndex));
    return Int8Activation::create(k, a);
  }

  // Nodes on what products take in: one for all weights that share an input.
  Status inputs() {
    const bool as_file = o_.activations == Activations::kAsFile && int8_.has_value();
    if (!as_file && o_.activations != Activations::kEngine) return {};
    if (as_file && int8_->weight_bits == 8 && student_.head_name() == "token_embd.weight")
      NARROW_TRY(int8_head());
    const auto attach = [&](const std::string& stem, const std::vector<std::string>& names) -> Status {
      const at::Tensor w = student_.weight(names.front());
      if (!w.defined()) return {};
      // Only products with integer weights have integers on the other side: rows of no whole blocks are
      // stored as floats.
      const bool made_head = as_file && names.front() == "output.weight" && !start_.find("output.weight");
      const bool integers = student_.weight_nodes().contains(names.front()) || made_head;
      if (!integers) return {};
      std::shared_ptr<Node> node;
      if (as_file) {
        NARROW_ASSIGN(node, input_node(stem, w.size(1)));
      } else {
        ActivationOptions a;
        a.range = ActivationRange::kBlock;
        NARROW_ASSIGN(node, Int8Activation::create(w.size(1), a));
      }
      for (const std::string& name : names) {
        if (name != "output.weight" && !student_.weight(name).defined()) continue;
        student_.attach_input(name, node);
        for (GraphRow& row : graph_) {
          if (row.name == name) row.input = node->describe();
        }
      }
      return {};
    };
    for (std::int64_t i = 0; i < student_.config().n_layer; ++i) {
      const std::string p = fmt::format("blk.{}.", i);
      NARROW_TRY(attach(p + "attn_q", {p + "attn_q.weight", p + "attn_k.weight", p + "attn_v.weight"}));
      NARROW_TRY(attach(p + "attn_qkv", {p + "attn_qkv.weight"}));
      NARROW_TRY(attach(p + "attn_output", {p + "attn_output.weight"}));
      NARROW_TRY(attach(p + "ffn_up", {p + "ffn_up.weight", p + "ffn_gate.weight"}));
      NARROW_TRY(attach(p + "ffn_down", {p + "ffn_down.weight"}));
    }
    return attach("output", {student_.head_name(), "output.weight"});
  }

  Status caches() {
    if (o_.cache_keys == Format::kF32 && o_.cache_values == Format::kF32) return {};
    for (std::int64_t i = 0; i < student_.config().n_layer; ++i) {
      std::shared_ptr<Node> keys, values;
      if (o_.cache_keys != Format::kF32) {
        NARROW_ASSIGN(keys, CacheNode::create(o_.cache_keys, student_.config().head_dim));
      }
      if (o_.cache_values != Format::kF32) {
        NARROW_ASSIGN(values, CacheNode::create(o_.cache_values, student_.config().head_dim));
      }
      student_.attach_cache(i, keys, values);
    }
    return {};
  }

  Decoder& student_;
  const model::ModelSource& start_;
  const PrepareOptions& o_;
  std::string file_;
  std::optional<model::Int8Settings> int8_;
  std::vector<GraphRow> graph_;
};

}  // namespace

Result<std::vector<GraphRow>> prepare(Decoder& student, const model::ModelSource& start,
                                      const PrepareOptions& options) {
  return Preparation(student, start, options).run();
}

void train_weights(Decoder& student, const std::function<bool(const std::string&)>& is_frozen) {
  for (auto& [name, w] : student.weights()) w.set_requires_grad(!is_frozen || !is_frozen(name));
}

}  // namespace narrow::train
