// What errors in the outputs of a model's matrices cost: second moments of the gradients of the model's loss
// by these outputs. With the inputs' second moments they are the two factors of the loss's curvature by a
// matrix (K-FAC, Martens and Grosse 2015, https://arxiv.org/abs/1503.05671), as YAQA (Tseng et al. 2025,
// https://arxiv.org/abs/2505.22988) rounds by.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "base/result.h"
#include "io/gguf/reader.h"
#include "model/source.h"

namespace narrow::calib {

struct OutputGradients {
  // By matrix: [n, n] sum over tokens of g g^T, each token's gradient g [n] weighted.
  std::map<std::string, std::vector<float>> matrices;
  std::int64_t tokens = 0;
};

// Matrices whose outputs enter the residual stream (attn_output, ffn_down; none of experts). Errors in other
// outputs cost what their token makes of them, which a mean over tokens does not tell: rounding gates by such
// means took more than it gave.
bool has_output_gradients(const std::string& name);

// A GGUF: general.type "gradients", per matrix <name>.out_grad2 [n, n] in f32. It appears whole or not at
// all.
Status write_output_gradients(const OutputGradients& gradients, const std::filesystem::path& path);

// Such a file, matrices read as they are wanted.
class GradientFile {
 public:
  // kInvalidArgument: another kind of file, or of another model (no name in common, another number of
  // outputs); kCorrupt: no square matrix of f32. Names file and matrix.
  static Result<GradientFile> open(const std::filesystem::path& path, const model::ModelSource& source);
  // [n, n], or empty where the file has none of this matrix. kNumeric: a value that is not finite, or a
  // negative one on the diagonal.
  Result<std::vector<float>> of(const std::string& name) const;

 private:
  GradientFile(io::gguf::Reader reader, std::string file)
      : reader_(std::move(reader)), file_(std::move(file)) {}
  io::gguf::Reader reader_;
  std::string file_;
};

}  // namespace narrow::calib
