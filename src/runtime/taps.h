// Watching a model from within: what enters its matrix products.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/result.h"
#include "ops/matrix.h"

namespace narrow::runtime {

// Where in a layer. Products that share an input share a tap.
enum class Tap : std::uint8_t {
  kAttention,    // into q, k, v (or qkv), after the norm
  kAttnOutput,   // the heads' outputs, into attn_output
  kFeedForward,  // into gate and up, or into the router and the experts, after the norm
  kFfnDown,      // into down
  kExpert,       // the rows that chose one expert, into its gate and up
  kExpertDown,   // into its down
  kHead,         // into the output head, after the final norm; layer is n_layer
};

// What of a layer is run: up to the sum behind attention, from there on, or both. With a parallel residual
// there is no sum between them: both.
enum class Half : std::uint8_t { kBoth, kAttention, kFeedForward };

// Called from one thread, for every product in the order in which the layer computes them. `expert` is -1
// outside experts. x [m, k] is valid during the call. An error ends the run with it.
class TapSink {
 public:
  virtual ~TapSink() = default;
  virtual Status take(std::int64_t layer, Tap tap, std::int64_t expert, ops::ConstMatrix x) = 0;
};

// The tap at which a canonical tensor's input is seen ("blk.3.attn_q.weight"); kHead for what belongs to no
// layer.
Tap tap_of(std::string_view canonical_name);

}  // namespace narrow::runtime
