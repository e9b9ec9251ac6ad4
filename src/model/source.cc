#include "model/source.h"

#include <system_error>

#include "io/gguf/reader.h"
#include "model/sources.h"

namespace narrow::model {

Result<std::shared_ptr<const ModelSource>> ModelSource::open(const std::filesystem::path& path) {
  std::error_code ec;
  const auto status = std::filesystem::status(path, ec);
  if (ec || !std::filesystem::exists(status)) {
    return make_error(ErrorCode::kNotFound, "{}: no such file or folder", path.string());
  }
  if (std::filesystem::is_directory(status)) return open_hf(path);
  if (io::gguf::Reader::is_gguf(path)) return open_gguf(path);
  return make_error(ErrorCode::kUnsupported,
                    "{}: a model is a GGUF file, or a folder with config.json and safetensors",
                    path.string());
}

std::optional<std::size_t> ModelSource::find(std::string_view name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? std::nullopt : std::optional<std::size_t>(it->second);
}

bool is_quantizable(const TensorInfo& t) {
  if (t.shape.rank() < 2) return false;
  const std::string_view name = t.name;
  if (!name.ends_with(".weight")) return false;
  for (std::string_view kept : {"norm.weight", "ffn_gate_inp.weight", "position_embd.weight"}) {
    if (name.ends_with(kept)) return false;
  }
  return true;
}

Status check_rows(const TensorInfo& t, std::int64_t row_begin, std::int64_t row_end) {
  if (row_begin < 0 || row_begin > row_end || row_end > t.shape.rows()) {
    return make_error(ErrorCode::kInternal, "tensor '{}': rows {} to {} of {}", t.name, row_begin, row_end,
                      t.shape.rows());
  }
  return {};
}

Result<std::string> digest_of(const std::vector<MappedFile>& files) {
  Sha256 sha;
  for (const MappedFile& file : files) update(sha, file);
  return "sha256:" + sha.hex();
}

}  // namespace narrow::model
