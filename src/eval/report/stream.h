// How far two models' residual streams are apart after each layer.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/session.h"

namespace narrow::eval::report {

// Give `model_tap` to the session that is fed first and `reference_tap` to the one that is then fed the same
// tokens in the same pieces, as eval::evaluate does. The taps refer to this object.
class StreamComparison {
 public:
  StreamComparison(std::int64_t n_layer, std::int64_t n_embd);
  runtime::LayerTap model_tap();
  runtime::LayerTap reference_tap();
  // Per layer: root mean square over positions of |x - x_ref| / |x_ref|. Each position counts alike: the few
  // with enormous activations (a text's first token) do not hide the others.
  std::vector<double> relative_error() const;

 private:
  struct Layer {
    std::vector<float> pending;  // rows of the model that the reference has not come to yet
    std::size_t compared = 0;    // of them, floats
    double sum = 0;
    std::int64_t positions = 0;
  };
  void keep(Layer& layer, std::span<const float> x) const;
  void compare(Layer& layer, std::span<const float> x) const;
  std::size_t n_embd_, stride_;  // every stride-th row of a run is looked at
  std::vector<Layer> layers_;
};

}  // namespace narrow::eval::report
