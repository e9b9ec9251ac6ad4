// A model some of whose tensors are others, held in memory: scaled, rotated or quantized on the way.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/aligned_buffer.h"
#include "model/source.h"

namespace narrow::model {

// Names, shapes and settings are the base's; replaced tensors may be in another format. Replace before the
// overlay is shared between threads.
class OverlaySource final : public ModelSource {
 public:
  explicit OverlaySource(std::shared_ptr<const ModelSource> base);

  // `data` holds every row of tensor `index` in `format`. kInvalidArgument when the sizes do not match.
  Status replace(std::size_t index, Format format, AlignedBuffer<std::byte> data);
  Status replace(std::size_t index, const std::vector<float>& values);  // as f32
  // The base's tensor again.
  void restore(std::size_t index);
  bool replaced(std::size_t index) const { return own_.contains(index); }
  const std::shared_ptr<const ModelSource>& base() const { return base_; }

  const std::filesystem::path& path() const override { return base_->path(); }
  bool is_gguf() const override { return base_->is_gguf(); }
  const ModelConfig& config() const override { return base_->config(); }
  const std::vector<TensorInfo>& tensors() const override { return tensors_; }
  TensorView view(std::size_t index) const override;
  Status read_raw(std::size_t index, std::int64_t row_begin, std::int64_t row_end,
                  std::byte* out) const override;
  Status read_f32(std::size_t index, std::int64_t row_begin, std::int64_t row_end, float* out) const override;
  void drop(std::size_t index) const override;
  Result<io::gguf::Metadata> gguf_metadata() const override { return base_->gguf_metadata(); }
  std::uint64_t file_bytes() const override { return base_->file_bytes(); }
  Result<std::string> digest() const override { return base_->digest(); }
  TokenIds token_ids() const override { return base_->token_ids(); }

 private:
  std::shared_ptr<const ModelSource> base_;
  std::vector<TensorInfo> tensors_;
  std::map<std::size_t, AlignedBuffer<std::byte>> own_;
};

}  // namespace narrow::model
