// A model made up in memory.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "base/rng.h"
#include "model/source.h"
#include "testing/testing.h"

namespace narrow::runtime {

// A small llama in memory, whose tensors a test may change before it is loaded.
class ToySource final : public model::ModelSource {
 public:
  // All widths are `width` times 4; matrices are stored in `format`.
  explicit ToySource(std::int64_t width = 4, Format format = Format::kF32) {
    const std::int64_t n_embd = 4 * width, n_kv = 2 * width, n_ff = 6 * width;
    config_.arch = "llama";
    config_.n_vocab = 11;
    config_.n_ctx_train = 2000;
    config_.n_embd = n_embd;
    config_.n_layer = 2;
    config_.n_ff = n_ff;
    config_.n_head = 4;
    config_.n_head_kv = 2;
    config_.head_dim = width;
    config_.rope.dims = static_cast<int>(width);
    config_.tied_head = true;
    config_.layers.resize(2);
    add("token_embd.weight", {11, n_embd}, format);
    add("output_norm.weight", {n_embd});
    for (const std::string& p : {std::string("blk.0."), std::string("blk.1.")}) {
      add(p + "attn_norm.weight", {n_embd});
      add(p + "attn_q.weight", {n_embd, n_embd}, format);
      add(p + "attn_k.weight", {n_kv, n_embd}, format);
      add(p + "attn_v.weight", {n_kv, n_embd}, format);
      add(p + "attn_output.weight", {n_embd, n_embd}, format);
      add(p + "ffn_norm.weight", {n_embd});
      add(p + "ffn_gate.weight", {n_ff, n_embd}, format);
      add(p + "ffn_up.weight", {n_ff, n_embd}, format);
      add(p + "ffn_down.weight", {n_embd, n_ff}, format);
    }
  }
  void add(const std::string& name, Shape shape, Format format = Format::kF32) {
    Rng rng(infos_.size() + 1);
    const std::int64_t k = shape.row_length();
    std::vector<float> row(static_cast<std::size_t>(k));
    std::vector<std::byte>& bytes =
        data_.emplace_back(static_cast<std::size_t>(shape.rows()) * row_bytes(format, k));
    for (std::int64_t r = 0; r < shape.rows(); ++r) {
      for (float& v : row) v = 0.3f * rng.normal();
      EXPECT_OK(encode_row(format, row.data(),
                           bytes.data() + static_cast<std::size_t>(r) * row_bytes(format, k), k));
    }
    index_[name] = infos_.size();
    infos_.push_back({name, format, std::move(shape)});
  }
  void remove(const std::string& name) {
    const std::size_t i = *find(name);
    infos_.erase(infos_.begin() + static_cast<std::ptrdiff_t>(i));
    data_.erase(data_.begin() + static_cast<std::ptrdiff_t>(i));
    index_.clear();
    for (std::size_t j = 0; j < infos_.size(); ++j) index_[infos_[j].name] = j;
  }
  void reshape(const std::string& name, Shape shape) { infos_[*find(name)].shape = std::move(shape); }
  model::ModelConfig& settings() { return config_; }
  bool mapped = true;  // false: view() has nothing, as for a layout that must be made first

  const std::filesystem::path& path() const override { return path_; }
  bool is_gguf() const override { return true; }
  const model::ModelConfig& config() const override { return config_; }
  const std::vector<TensorInfo>& tensors() const override { return infos_; }
  TensorView view(std::size_t i) const override {
    if (!mapped) return {};
    return {infos_[i].format, infos_[i].shape, data_[i].data()};
  }
  Status read_raw(std::size_t i, std::int64_t begin, std::int64_t end, std::byte* out) const override {
    const std::size_t row = row_bytes(infos_[i].format, infos_[i].shape.row_length());
    std::copy(data_[i].data() + static_cast<std::size_t>(begin) * row,
              data_[i].data() + static_cast<std::size_t>(end) * row, out);
    return {};
  }
  Status read_f32(std::size_t i, std::int64_t begin, std::int64_t end, float* out) const override {
    const std::int64_t k = infos_[i].shape.row_length();
    const std::size_t row = row_bytes(infos_[i].format, k);
    for (std::int64_t r = begin; r < end; ++r, out += k) {
      NARROW_TRY(decode_row(infos_[i].format, data_[i].data() + static_cast<std::size_t>(r) * row, out, k));
    }
    return {};
  }
  void drop(std::size_t) const override {}
  Result<io::gguf::Metadata> gguf_metadata() const override { return io::gguf::Metadata(); }
  std::uint64_t file_bytes() const override { return 0; }
  Result<std::string> digest() const override { return std::string("none"); }
  model::TokenIds token_ids() const override { return {}; }

 private:
  std::filesystem::path path_ = "toy.gguf";
  model::ModelConfig config_;
  std::vector<TensorInfo> infos_;
  std::vector<std::vector<std::byte>> data_;
};

}  // namespace narrow::runtime
