// A model made from another: all but its tensors is the base's.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "model/source.h"

namespace narrow::model {

// Holds the base and its own list of tensors, whose formats the class derived from this may change.
class DerivedSource : public ModelSource {
 public:
  const std::shared_ptr<const ModelSource>& base() const { return base_; }

  const std::filesystem::path& path() const override { return base_->path(); }
  bool is_gguf() const override { return base_->is_gguf(); }
  const ModelConfig& config() const override { return base_->config(); }
  const std::vector<TensorInfo>& tensors() const override { return tensors_; }
  Result<io::gguf::Metadata> gguf_metadata() const override { return base_->gguf_metadata(); }
  std::uint64_t file_bytes() const override { return base_->file_bytes(); }
  Result<std::string> digest() const override { return base_->digest(); }
  TokenIds token_ids() const override { return base_->token_ids(); }

 protected:
  explicit DerivedSource(std::shared_ptr<const ModelSource> base)
      : base_(std::move(base)), tensors_(base_->tensors()) {
    for (std::size_t i = 0; i < tensors_.size(); ++i) index_[tensors_[i].name] = i;
  }

  std::shared_ptr<const ModelSource> base_;
  std::vector<TensorInfo> tensors_;
};

}  // namespace narrow::model
