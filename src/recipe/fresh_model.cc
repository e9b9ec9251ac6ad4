#include "recipe/fresh_model.h"

#include <algorithm>
#include <cstring>

#include "base/digest.h"
#include "io/hf_config/hf_folder.h"
#include "io/tokenizer/tokenizer_files.h"
#include "model/arch/registry.h"
#include "pipeline/tokenizer.h"

namespace narrow::recipe {
namespace {

namespace fs = std::filesystem;

class FreshSource final : public model::ModelSource {
 public:
  FreshSource(fs::path path, model::ModelConfig config, const text::TokenizerSpec& spec)
      : path_(std::move(path)), config_(std::move(config)) {
    for (model::TensorRule& rule : model::tensor_map(config_)) {
      index_.emplace(rule.name, tensors_.size());
      tensors_.push_back({rule.name, Format::kF32, rule.shape});
      values_.push_back(std::move(rule.values));
    }
    ids_.bos = spec.bos;
    ids_.pad = spec.pad;
    if (spec.eos) ids_.eos = {*spec.eos};
  }

  Status describe(const text::TokenizerSpec& spec) {
    metadata_.set_string("general.architecture", config_.arch);
    metadata_.set_string("general.type", "model");
    metadata_.set_string("general.name", config_.name);
    model::config_to_gguf(config_, metadata_);
    return io::tokenizer_spec_to_gguf(spec, config_.n_vocab, metadata_);
  }

  const fs::path& path() const override { return path_; }
  bool is_gguf() const override { return true; }
  const model::ModelConfig& config() const override { return config_; }
  const std::vector<TensorInfo>& tensors() const override { return tensors_; }
  TensorView view(std::size_t) const override { return {}; }
  Status read_raw(std::size_t index, std::int64_t begin, std::int64_t end, std::byte* out) const override {
    const std::size_t row = row_bytes(Format::kF32, tensors_[index].shape.row_length());
    const auto first = static_cast<std::size_t>(begin) * row,
               bytes = static_cast<std::size_t>(end - begin) * row;
    if (values_[index].empty()) {
      std::memset(out, 0, bytes);
    } else {
      std::memcpy(out, reinterpret_cast<const std::byte*>(values_[index].data()) + first, bytes);
    }
    return {};
  }
  Status read_f32(std::size_t index, std::int64_t begin, std::int64_t end, float* out) const override {
    return read_raw(index, begin, end, reinterpret_cast<std::byte*>(out));
  }
  void drop(std::size_t) const override {}
  Result<io::gguf::Metadata> gguf_metadata() const override { return metadata_; }
  std::uint64_t file_bytes() const override { return 0; }
  Result<std::string> digest() const override {
    NARROW_ASSIGN(const std::string sum, file_sha256(path_));
    return "sha256:" + sum;
  }
  model::TokenIds token_ids() const override { return ids_; }

 private:
  fs::path path_;  // config.json: all that there is
  model::ModelConfig config_;
  std::vector<TensorInfo> tensors_;
  std::vector<std::vector<float>> values_;  // of what is no weight: rope factors
  io::gguf::Metadata metadata_;
  model::TokenIds ids_;
};

}  // namespace

Result<FreshModel> fresh_model(const fs::path& config, const fs::path& tokenizer) {
  std::error_code ec;
  const fs::path file = fs::is_directory(config, ec) ? config / "config.json" : config;
  NARROW_ASSIGN(const io::Json json, io::read_json(file));
  NARROW_ASSIGN(model::ModelConfig c, model::config_from_hf(json, file.string()));
  const fs::path folder = file.has_parent_path() ? file.parent_path() : fs::path(".");
  c.name = fs::absolute(folder, ec).lexically_normal().filename().string();
  FreshModel out;
  NARROW_ASSIGN(out.tokenizer, pipeline::open_tokenizer(tokenizer.empty() ? folder : tokenizer, c.n_vocab));
  auto source = std::make_shared<FreshSource>(file, std::move(c), out.tokenizer->spec());
  NARROW_TRY(source->describe(out.tokenizer->spec()));
  out.source = std::move(source);
  return out;
}

}  // namespace narrow::recipe
