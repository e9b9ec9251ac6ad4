// A model on disk under GGUF's canonical tensor names and layout, whichever files it comes from. A Hugging
// Face folder is seen through its arch file's name map: permuted, split, stacked or transposed as it is read,
// so that quantize, convert and the runtime share one view and nothing needs the whole model in memory.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "io/gguf/metadata.h"
#include "model/config.h"
#include "tensor/tensor.h"

namespace narrow::model {

// Special token ids as config.json or tokenizer.ggml.* give them; for config.json of an exported folder.
struct TokenIds {
  std::optional<std::int64_t> bos, pad;
  std::vector<std::int64_t> eos;
};

class ModelSource {
 public:
  // A GGUF file (any part of a split one) or a Hugging Face folder. kUnsupported names the architecture.
  static Result<std::shared_ptr<const ModelSource>> open(const std::filesystem::path& path);
  virtual ~ModelSource() = default;

  virtual const std::filesystem::path& path() const = 0;
  virtual bool is_gguf() const = 0;
  virtual const ModelConfig& config() const = 0;
  // Canonical names, shapes row-major ([n_out, n_in]; experts [n_expert, n_out, n_in]), in GGUF's usual
  // order.
  virtual const std::vector<TensorInfo>& tensors() const = 0;
  std::optional<std::size_t> find(std::string_view name) const;

  // The stored bytes when they lie in one piece in a mapped file in canonical layout; empty view otherwise
  // (then use read_raw).
  virtual TensorView view(std::size_t index) const = 0;
  // Rows [row_begin, row_end) of rows() in the stored format / decoded to fp32. Thread-safe.
  virtual Status read_raw(std::size_t index, std::int64_t row_begin, std::int64_t row_end,
                          std::byte* out) const = 0;
  virtual Status read_f32(std::size_t index, std::int64_t row_begin, std::int64_t row_end,
                          float* out) const = 0;
  // Pages behind this tensor are not needed again soon.
  virtual void drop(std::size_t index) const = 0;

  // Metadata for a GGUF of this model: general.* and the architecture's keys; for a GGUF source the file's
  // own, with its tokenizer.* keys (for a folder, pipeline/ adds those: model/ knows nothing of text).
  // Without general.file_type and general.quantization_version, which the writer sets.
  virtual Result<io::gguf::Metadata> gguf_metadata() const = 0;

  virtual std::uint64_t file_bytes() const = 0;  // of the weight files
  // SHA-256 over the weight files in order ("sha256:..."): the provenance of what is made from them.
  virtual Result<std::string> digest() const = 0;
  virtual TokenIds token_ids() const = 0;

 protected:
  std::map<std::string, std::size_t, std::less<>> index_;  // tensors() by name
};

// True for a 2-D or stacked-expert weight matrix that takes part in a product (what quantization applies to);
// false for norms, biases, rope factors, routers (ffn_gate_inp) and learned positions, which stay f32.
bool is_quantizable(const TensorInfo& t);

// Writes a Hugging Face folder's config.json for this config (the inverse of the arch file's reader), and the
// names and layout of its tensors: for every HF tensor, which canonical tensor and rows it comes from.
class HfExport {
 public:
  // Which rows of which canonical tensor the rows of a Hugging Face tensor are; `rows` is empty where it is
  // stored transposed, which no rows are.
  struct Origin {
    std::size_t canonical = 0;
    std::vector<std::int64_t> rows;
  };
  static Result<std::unique_ptr<HfExport>> create(std::shared_ptr<const ModelSource> source);
  virtual ~HfExport() = default;
  virtual const std::vector<TensorInfo>& tensors() const = 0;                     // HF names and shapes
  virtual Status read_f32(std::size_t index, std::vector<float>& out) const = 0;  // whole tensor, HF layout
  virtual Origin origin(std::size_t index) const = 0;                             // of rank 2
  virtual std::string config_json(
      std::string_view dtype) const = 0;  // dtype: "float32", "float16", "bfloat16"
};

}  // namespace narrow::model
