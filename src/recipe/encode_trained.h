// The last of QAT's three steps, prepare -> train -> convert: what was trained, as the start file stores it.
#pragma once

#include <vector>

#include "base/result.h"
#include "model/source.h"
#include "pipeline/trained_file.h"
#include "train/decoder.h"

namespace narrow::recipe {

// The tensors of `start` that training may have changed, in its formats: weights through their nodes (they
// decode to the very values that the last forward pass used), gains and biases cast, and the parts of int8
// products (scales of weights and inputs, outlier columns) from the nodes that learned or observed them.
// LoRAs are merged before. kNumeric: NaN or infinity; kUnsupported: something was trained that the file has
// no place for.
Result<std::vector<pipeline::TrainedTensor>> encode_trained(train::Decoder& trained,
                                                            const model::ModelSource& start);

}  // namespace narrow::recipe
