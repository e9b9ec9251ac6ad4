#include "api/loaded.h"

namespace narrow::api {

Result<OpenedModel> open_model(const std::filesystem::path& path, const runtime::LoadOptions& options) {
  OpenedModel m;
  NARROW_ASSIGN(m.source, model::ModelSource::open(path));
  NARROW_ASSIGN(m.weights, runtime::LoadedModel::load(m.source, options));
  return m;
}

double bits_per_weight(const model::ModelSource& source) {
  double bits = 0, weights = 0;
  for (const TensorInfo& t : source.tensors()) {
    bits += 8.0 * static_cast<double>(t.bytes());
    weights += static_cast<double>(t.shape.elements());
  }
  return weights > 0 ? bits / weights : 0;
}

}  // namespace narrow::api
