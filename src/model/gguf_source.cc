// A GGUF file already has canonical names and layout: what is left is to check that nothing is missing or
// extra.
#include <cmath>
#include <cstring>
#include <utility>

#include "io/gguf/reader.h"
#include "model/arch/registry.h"
#include "model/int8_parts.h"
#include "model/sources.h"

namespace narrow::model {
namespace {

class GgufSource : public ModelSource {
 public:
  GgufSource(io::gguf::Reader reader, std::filesystem::path path)
      : reader_(std::move(reader)), path_(std::move(path)) {}

  Status load() {
    NARROW_ASSIGN(config_, config_from_gguf(reader_.metadata(), path_.string()));
    NARROW_ASSIGN(const auto int8, int8_settings(reader_.metadata(), path_.string()));
    int8_ = int8.has_value();
    for (const auto& t : reader_.tensors()) {
      index_.emplace(t.info.name, infos_.size());
      infos_.push_back(t.info);
    }
    TensorFacts facts;
    facts.has = [&](const std::string& name) { return index_.contains(name); };
    facts.values = [&](const std::string& name) {
      const std::size_t i = index_.at(name);
      std::vector<float> v;
      if (infos_[i].shape.rank() != 1 || infos_[i].shape.elements() > kMaxHeadDim) return v;
      v.resize(static_cast<std::size_t>(infos_[i].shape.elements()));
      if (!read_f32(i, 0, 1, v.data()).ok()) v.clear();
      return v;
    };
    if (const auto e = find("token_embd.weight"); e && infos_[*e].shape.rank() == 2) {
      facts.embedding_rows = infos_[*e].shape[0];
    }
    refine_from_tensors(config_, facts);
    NARROW_TRY(check_rope_factors());
    return check_tensors();
  }

  const std::filesystem::path& path() const override { return path_; }
  bool is_gguf() const override { return true; }
  const ModelConfig& config() const override { return config_; }
  const std::vector<TensorInfo>& tensors() const override { return infos_; }
  TensorView view(std::size_t index) const override { return reader_.view(reader_.tensors()[index]); }

  Status read_raw(std::size_t index, std::int64_t row_begin, std::int64_t row_end,
                  std::byte* out) const override {
    NARROW_TRY(check_rows(infos_[index], row_begin, row_end));
    const TensorView v = view(index);
    const std::size_t n = static_cast<std::size_t>(row_end - row_begin) * v.stride_bytes();
    if (n > 0) std::memcpy(out, v.row(row_begin), n);
    return {};
  }

  Status read_f32(std::size_t index, std::int64_t row_begin, std::int64_t row_end,
                  float* out) const override {
    NARROW_TRY(check_rows(infos_[index], row_begin, row_end));
    const TensorView v = view(index);
    const std::int64_t k = v.shape.row_length();
    for (std::int64_t r = row_begin; r < row_end; ++r) {
      if (Status s = decode_row(v.format, v.row(r), out + (r - row_begin) * k, k); !s.ok()) {
        return with_context(s.error(), fmt::format("{}: tensor '{}'", path_.string(), infos_[index].name));
      }
    }
    return {};
  }

  void drop(std::size_t index) const override { reader_.drop(reader_.tensors()[index]); }

  Result<io::gguf::Metadata> gguf_metadata() const override {
    io::gguf::Metadata m = reader_.metadata();
    // The writer's own.
    for (const char* key : {"general.file_type", "general.quantization_version", "general.alignment"})
      m.erase(key);
    return m;
  }

  std::uint64_t file_bytes() const override { return reader_.file_bytes(); }
  Result<std::string> digest() const override { return digest_of(reader_.parts()); }

  TokenIds token_ids() const override {
    const io::gguf::Metadata& m = reader_.metadata();
    TokenIds ids;
    ids.bos = m.get_int("tokenizer.ggml.bos_token_id");
    ids.pad = m.get_int("tokenizer.ggml.padding_token_id");
    if (const auto eos = m.get_int("tokenizer.ggml.eos_token_id")) ids.eos.push_back(*eos);
    if (const auto eot = m.get_int("tokenizer.ggml.eot_token_id");
        eot && (ids.eos.empty() || *eot != ids.eos[0])) {
      ids.eos.push_back(*eot);
    }
    return ids;
  }

 private:
  Status check_rope_factors() const {
    const RopeConfig& r = config_.rope;
    const std::pair<const char*, const std::vector<float>*> lists[] = {
        {"rope_freqs.weight", &r.factors},
        {"rope_factors_long.weight", &r.factors_long},
        {"rope_factors_short.weight", &r.factors_short}};
    for (const auto& [name, list] : lists) {
      const bool needed = r.scaling == RopeScaling::kLongRope && list != &r.factors;
      if (list->empty() && !needed) continue;
      if (list->size() != static_cast<std::size_t>(r.dims / 2)) {
        return make_error(ErrorCode::kCorrupt, "{}: tensor '{}' has {} factors; {} rotary dimensions need {}",
                          path_.string(), name, list->size(), r.dims, r.dims / 2);
      }
      for (float x : *list) {
        if (!(x > 0.0f) || !std::isfinite(x)) {
          return make_error(ErrorCode::kCorrupt, "{}: tensor '{}' holds {}; factors are above 0",
                            path_.string(), name, x);
        }
      }
    }
    return {};
  }

  Status check_tensors() const {
    std::size_t matched = 0;
    std::map<std::string, bool, std::less<>> expected;
    for (const TensorRule& rule : tensor_map(config_)) {
      const auto i = find(rule.name);
      if (!i) {
        return make_error(ErrorCode::kCorrupt, "{}: tensor '{}' {} is missing", path_.string(), rule.name,
                          rule.shape.text());
      }
      if (infos_[*i].shape != rule.shape) {
        return make_error(ErrorCode::kCorrupt, "{}: tensor '{}' is {}, but its metadata asks for {}",
                          path_.string(), rule.name, infos_[*i].shape.text(), rule.shape.text());
      }
      const bool codes = int8_ && infos_[*i].format == Format::kI8;
      if (!codes && format_info(infos_[*i].format).kind == FormatKind::kInteger) {
        return make_error(ErrorCode::kUnsupported, "{}: tensor '{}' holds {} integers; a weight is needed",
                          path_.string(), rule.name, format_info(infos_[*i].format).name);
      }
      expected.emplace(rule.name, true);
      ++matched;
    }
    if (matched == infos_.size()) return {};
    for (const TensorInfo& t : infos_) {
      const auto stem = int8_ ? int8_stem(t.name) : std::nullopt;
      // A tied head has parts of its own.
      if (stem && (expected.contains(*stem + ".weight") || *stem == "output")) continue;
      if (!expected.contains(t.name)) {
        return make_error(ErrorCode::kUnsupported, "{}: tensor '{}' {} has no place in architecture '{}'",
                          path_.string(), t.name, t.shape.text(), config_.arch);
      }
    }
    return {};
  }

  io::gguf::Reader reader_;
  std::filesystem::path path_;
  ModelConfig config_;
  std::vector<TensorInfo> infos_;
  bool int8_ = false;  // weights may be codes, with their scales beside them
};

}  // namespace

Result<std::shared_ptr<const ModelSource>> open_gguf(const std::filesystem::path& path) {
  NARROW_ASSIGN(io::gguf::Reader reader, io::gguf::Reader::open(path));
  auto source = std::make_shared<GgufSource>(std::move(reader), path);
  NARROW_TRY(source->load());
  return std::shared_ptr<const ModelSource>(std::move(source));
}

}  // namespace narrow::model
