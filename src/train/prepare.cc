#include "train/prepare.h"

#include <optional>

#include "formats/grid.h"
#include "model/int8_parts.h"
#include "train/nodes/block_weight.h"

namespace narrow::train {
namespace {

class Preparation {
 public:
  Preparation(Decoder& student, const model::ModelSource& start, const PrepareOptions& options)
      : student_(student), start_(start), o_(options), file_(start.path().string()) {}

  Result<std::vector<GraphRow>> run() {
    for (std::size_t i = 0; i < start_.tensors().size(); ++i) NARROW_TRY(tensor(i));
    for (const auto& [name, w] : student_.weights()) {
      if (!start_.find(name)) {
        return make_error(ErrorCode::kInvalidArgument,
                          "{}: tensor '{}' of the reference is missing; is it the same model?", file_, name);
      }
    }
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
    if (is_matrix && formats::grid_codec(info.format) != nullptr) {
      NARROW_TRY(block_weight(i, info, w, row));
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
      w.copy_(node->start_latent(w));
    }
    row.weight = node->describe();
    w.set_requires_grad(row.trained && o_.what == TrainWhat::kAll);
    student_.attach_weight(info.name, node);
    return {};
  }

  Decoder& student_;
  const model::ModelSource& start_;
  const PrepareOptions& o_;
  std::string file_;
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
