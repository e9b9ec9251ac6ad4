#include "eval/report/stream.h"

#include <algorithm>
#include <cmath>

namespace narrow::eval::report {
namespace {

// The streams of one run of this many rows at most are kept in this many bytes, by leaving rows out.
constexpr std::int64_t kRunRows = 512, kKeptBytes = std::int64_t{256} << 20;

}  // namespace

StreamComparison::StreamComparison(std::int64_t n_layer, std::int64_t n_embd)
    : n_embd_(static_cast<std::size_t>(n_embd)),
      stride_(static_cast<std::size_t>(1 + kRunRows * n_embd * n_layer * 4 / kKeptBytes)),
      layers_(static_cast<std::size_t>(n_layer)) {}

runtime::LayerTap StreamComparison::model_tap() {
  return [this](std::int64_t layer, std::span<const float> x) {
    keep(layers_[static_cast<std::size_t>(layer)], x);
  };
}

runtime::LayerTap StreamComparison::reference_tap() {
  return [this](std::int64_t layer, std::span<const float> x) {
    compare(layers_[static_cast<std::size_t>(layer)], x);
  };
}

void StreamComparison::keep(Layer& layer, std::span<const float> x) const {
  for (std::size_t at = 0; at < x.size(); at += stride_ * n_embd_) {
    const auto row = x.subspan(at, n_embd_);
    layer.pending.insert(layer.pending.end(), row.begin(), row.end());
  }
}

void StreamComparison::compare(Layer& layer, std::span<const float> x) const {
  for (std::size_t at = 0; at < x.size() && layer.compared < layer.pending.size(); at += stride_ * n_embd_) {
    const float* mine = layer.pending.data() + layer.compared;
    double difference = 0, size = 0;
    for (std::size_t i = 0; i < n_embd_; ++i) {
      const double r = x[at + i], d = static_cast<double>(mine[i]) - r;
      difference += d * d;
      size += r * r;
    }
    layer.compared += n_embd_;
    if (size == 0) continue;
    layer.sum += difference / size;
    ++layer.positions;
  }
  if (layer.compared == layer.pending.size()) {
    layer.pending.clear();
    layer.compared = 0;
  }
}

std::vector<double> StreamComparison::relative_error() const {
  std::vector<double> out;
  for (const Layer& l : layers_) {
    out.push_back(l.positions > 0 ? std::sqrt(l.sum / static_cast<double>(l.positions)) : 0.0);
  }
  return out;
}

}  // namespace narrow::eval::report
