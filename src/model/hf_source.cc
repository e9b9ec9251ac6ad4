// A Hugging Face folder seen under canonical names: tensors are permuted, stacked or transposed as they are
// read.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "io/hf_config/hf_folder.h"
#include "io/safetensors/reader.h"
#include "model/arch/registry.h"
#include "model/layout.h"
#include "model/sources.h"

namespace narrow::model {
namespace {

using io::safetensors::Reader;
using io::safetensors::StoredTensor;

struct Entry {
  TensorRule rule;
  std::vector<const StoredTensor*> stored;  // one per rule.hf
  std::vector<const std::byte*> data;       // of each of them
};

bool readable(Format f) {
  return f == Format::kF32 || f == Format::kF16 || f == Format::kBF16 || f == Format::kF64;
}

class HfSource : public ModelSource {
 public:
  HfSource(io::HfFolder folder, Reader reader) : folder_(std::move(folder)), reader_(std::move(reader)) {}

  Status load() {
    const std::string config_file = (folder_.path / "config.json").string();
    NARROW_ASSIGN(config_, config_from_hf(folder_.config, config_file));
    config_.name = folder_name();
    arch_ = &arch_of(config_);
    NARROW_ASSIGN(const std::string prefix, find_prefix());
    std::map<std::string_view, bool> used;
    for (TensorRule& rule : tensor_map(config_)) {
      Entry e;
      for (std::string& name : rule.hf) {
        if (name.starts_with('@')) name = prefix + name.substr(1);
        NARROW_ASSIGN(const StoredTensor* stored, find_stored(rule, name));
        used[stored->info.name] = true;
        e.stored.push_back(stored);
        e.data.push_back(reader_.view(*stored).data);
      }
      TensorInfo info{rule.name, Format::kF32, rule.shape};
      if (!e.stored.empty() && rule.layout != Layout::kAddOne) info.format = e.stored.front()->info.format;
      for (const StoredTensor* s : e.stored) {
        if (s->info.format != e.stored.front()->info.format) {
          return make_error(
              ErrorCode::kUnsupported, "{}: tensors '{}' and '{}' of one group are stored as {} and {}",
              where(), e.stored.front()->info.name, s->info.name,
              format_info(e.stored.front()->info.format).name, format_info(s->info.format).name);
        }
      }
      e.rule = std::move(rule);
      index_.emplace(info.name, infos_.size());
      infos_.push_back(std::move(info));
      entries_.push_back(std::move(e));
    }
    for (const StoredTensor& t : reader_.tensors()) {
      if (!used.contains(t.info.name) && !ignorable(t.info.name)) {
        return make_error(ErrorCode::kUnsupported, "{}: tensor '{}' {} has no place in model_type '{}'",
                          where(), t.info.name, t.info.shape.text(), arch_->model_types.front());
      }
    }
    return {};
  }

  const std::filesystem::path& path() const override { return folder_.path; }
  bool is_gguf() const override { return false; }
  const ModelConfig& config() const override { return config_; }
  const std::vector<TensorInfo>& tensors() const override { return infos_; }

  TensorView view(std::size_t index) const override {
    const Entry& e = entries_[index];
    if (e.rule.layout != Layout::kCopy) return {};
    TensorView v = reader_.view(*e.stored.front());
    // safetensors promises no alignment; a view is used as an array of numbers.
    if (reinterpret_cast<std::uintptr_t>(v.data) % row_bytes(v.format, 1) != 0) return {};
    v.shape = e.rule.shape;
    return v;
  }

  Status read_raw(std::size_t index, std::int64_t row_begin, std::int64_t row_end,
                  std::byte* out) const override {
    NARROW_TRY(check_rows(infos_[index], row_begin, row_end));
    if (row_begin == row_end) return {};
    const Entry& e = entries_[index];
    switch (e.rule.layout) {
      case Layout::kValues:
        std::memcpy(out, e.rule.values.data(), e.rule.values.size() * sizeof(float));
        return {};
      case Layout::kAddOne:
        return add_one(e, out);
      case Layout::kTranspose:
        transpose(e, row_begin, row_end, out);
        return {};
      default:
        gather(e, row_begin, row_end, out);
        return {};
    }
  }

  Status read_f32(std::size_t index, std::int64_t row_begin, std::int64_t row_end,
                  float* out) const override {
    NARROW_TRY(check_rows(infos_[index], row_begin, row_end));
    const TensorInfo& t = infos_[index];
    if (t.format == Format::kF32) {
      return read_raw(index, row_begin, row_end, reinterpret_cast<std::byte*>(out));
    }
    const std::int64_t k = t.shape.row_length();
    const std::size_t stride = row_bytes(t.format, k);
    // A few hundred kB at a time, enough for transposes to read whole cache lines.
    const std::int64_t step = std::max<std::int64_t>(1, static_cast<std::int64_t>((256u << 10) / stride));
    std::vector<std::byte> raw(static_cast<std::size_t>(std::min(step, row_end - row_begin)) * stride);
    for (std::int64_t r = row_begin; r < row_end; r += step) {
      const std::int64_t end = std::min(row_end, r + step);
      NARROW_TRY(read_raw(index, r, end, raw.data()));
      NARROW_TRY(decode_row(t.format, raw.data(), out + (r - row_begin) * k, (end - r) * k));
    }
    return {};
  }

  void drop(std::size_t index) const override {
    for (const StoredTensor* s : entries_[index].stored) reader_.drop(*s);
  }

  Result<io::gguf::Metadata> gguf_metadata() const override {
    io::gguf::Metadata m;
    m.set_string("general.architecture", config_.arch);
    m.set_string("general.type", "model");
    m.set_string("general.name", config_.name);
    m.set_string("general.size_label", size_label());
    config_to_gguf(config_, m);
    return m;
  }

  std::uint64_t file_bytes() const override {
    std::uint64_t n = 0;
    for (const MappedFile& part : reader_.parts()) n += part.bytes().size();
    return n;
  }

  Result<std::string> digest() const override { return digest_of(reader_.parts()); }

  TokenIds token_ids() const override {
    TokenIds ids;
    const auto read = [&](const char* key) {
      std::vector<std::int64_t> out;
      const auto it = folder_.config.find(key);
      if (it == folder_.config.end()) return out;
      if (it->is_number_integer()) out.push_back(it->get<std::int64_t>());
      if (it->is_array()) {
        for (const Json& item : *it) {
          if (item.is_number_integer()) out.push_back(item.get<std::int64_t>());
        }
      }
      return out;
    };
    if (const auto v = read("bos_token_id"); !v.empty()) ids.bos = v.front();
    if (const auto v = read("pad_token_id"); !v.empty()) ids.pad = v.front();
    ids.eos = read("eos_token_id");
    return ids;
  }

 private:
  std::string where() const { return folder_.path.string(); }

  std::string folder_name() const {
    std::filesystem::path p = std::filesystem::absolute(folder_.path).lexically_normal();
    if (p.filename().empty()) p = p.parent_path();
    return p.filename().string();
  }

  Result<std::string> find_prefix() const {
    for (std::string_view prefix : arch_->prefixes) {
      if (reader_.find(std::string(prefix) + std::string(arch_->embedding))) return std::string(prefix);
    }
    return make_error(ErrorCode::kCorrupt, "{}: tensor '{}{}' is missing", where(), arch_->prefixes.front(),
                      arch_->embedding);
  }

  Result<const StoredTensor*> find_stored(const TensorRule& rule, const std::string& name) const {
    const StoredTensor* s = reader_.find(name);
    // A tied head that the canonical layout writes out is the embedding.
    if (!s && rule.name == "output.weight" && arch_->needs_output && tied_in_config())
      s = entries_[0].stored[0];
    if (!s)
      return make_error(ErrorCode::kCorrupt, "{}: tensor '{}' (for '{}') is missing", where(), name,
                        rule.name);
    if (s->info.shape != hf_shape(rule)) {
      return make_error(ErrorCode::kCorrupt, "{}: tensor '{}' is {}, but config.json asks for {}", where(),
                        name, s->info.shape.text(), hf_shape(rule).text());
    }
    if (!readable(s->info.format)) {
      return make_error(ErrorCode::kUnsupported,
                        "{}: tensor '{}' is stored as {}; f32, f16 or bf16 is needed", where(), name,
                        format_info(s->info.format).name);
    }
    return s;
  }

  bool tied_in_config() const {
    const auto it = folder_.config.find("tie_word_embeddings");
    return it != folder_.config.end() && it->is_boolean() && it->get<bool>();
  }

  bool ignorable(std::string_view name) const {
    for (std::string_view s : arch_->ignored_suffixes) {
      if (name.ends_with(s)) return true;
    }
    for (std::string_view p : arch_->ignored_prefixes) {
      if (name.starts_with(p)) return true;
    }
    // A copy of the embedding that some savers add.
    return config_.tied_head && name.ends_with("lm_head.weight");
  }

  // "135M", "1.5B": parameters for people.
  std::string size_label() const {
    double n = 0;
    for (const TensorInfo& t : infos_) n += static_cast<double>(t.shape.elements());
    if (n >= 9.95e9) return fmt::format("{:.0f}B", n / 1e9);
    if (n >= 9.995e8) return fmt::format("{:.1f}B", n / 1e9);
    if (n >= 9.995e5) return fmt::format("{:.0f}M", n / 1e6);
    return fmt::format("{:.0f}K", n / 1e3);
  }

  Status add_one(const Entry& e, std::byte* out) const {
    const TensorView v = reader_.view(*e.stored.front());
    const auto n = static_cast<std::size_t>(v.shape.elements());
    std::vector<std::byte> aligned(v.data, v.data + row_bytes(v.format, v.shape.elements()));
    std::vector<float> x(n);
    NARROW_TRY(decode_row(v.format, aligned.data(), x.data(), v.shape.elements()));
    for (float& g : x) g += 1.0f;
    std::memcpy(out, x.data(), n * sizeof(float));
    return {};
  }

  void transpose(const Entry& e, std::int64_t row_begin, std::int64_t row_end, std::byte* out) const {
    const TensorView v = reader_.view(*e.stored.front());  // [k, n]
    const std::size_t size = row_bytes(v.format, 1);
    const std::int64_t k = e.rule.shape[1];
    for (std::int64_t i = 0; i < k; ++i) {
      const std::byte* from = v.row(i) + static_cast<std::size_t>(row_begin) * size;
      for (std::int64_t r = row_begin; r < row_end; ++r, from += size) {
        std::memcpy(out + static_cast<std::size_t>((r - row_begin) * k + i) * size, from, size);
      }
    }
  }

  void gather(const Entry& e, std::int64_t row_begin, std::int64_t row_end, std::byte* out) const {
    const Units units = units_of(e.rule);
    std::int64_t begin = row_begin, end = row_end;
    if (units.length != e.rule.shape.row_length()) {  // the elements of a 1-D tensor, always whole
      begin = 0;
      end = units.count;
    }
    const std::size_t bytes = row_bytes(e.stored.front()->info.format, units.length);
    for (std::int64_t u = begin; u < end;) {
      const UnitSource s = source_of(e.rule, u);
      std::int64_t run = 1;  // units that follow each other in the file too
      for (; u + run < end; ++run) {
        const UnitSource next = source_of(e.rule, u + run);
        if (next.tensor != s.tensor || next.unit != s.unit + run) break;
      }
      std::memcpy(out, e.data[s.tensor] + static_cast<std::size_t>(s.unit) * bytes,
                  static_cast<std::size_t>(run) * bytes);
      out += static_cast<std::size_t>(run) * bytes;
      u += run;
    }
  }

  io::HfFolder folder_;
  Reader reader_;
  ModelConfig config_;
  const Arch* arch_ = nullptr;
  std::vector<Entry> entries_;
  std::vector<TensorInfo> infos_;
};

}  // namespace

Result<std::shared_ptr<const ModelSource>> open_hf(const std::filesystem::path& path) {
  NARROW_ASSIGN(io::HfFolder folder, io::HfFolder::open(path));
  // The configuration first: an unknown model is a better message than a missing shard.
  NARROW_TRY(config_from_hf(folder.config, (path / "config.json").string()));
  NARROW_ASSIGN(Reader reader, Reader::open_folder(path));
  auto source = std::make_shared<HfSource>(std::move(folder), std::move(reader));
  NARROW_TRY(source->load());
  return std::shared_ptr<const ModelSource>(std::move(source));
}

}  // namespace narrow::model
