#include "train/checkpoint.h"

#include <fmt/ranges.h>

#include <bit>
#include <cstring>
#include <set>

#include "io/hf_config/json_text.h"
#include "io/safetensors/dtype.h"
#include "io/safetensors/reader.h"
#include "io/tensor_output.h"

namespace narrow::train {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kKind = "narrow training checkpoint";
constexpr int kVersion = 1;

struct DtypeRow {
  at::ScalarType dtype;
  Format format;
};
constexpr DtypeRow kDtypes[] = {
    {at::kFloat, Format::kF32},     {at::kDouble, Format::kF64}, {at::kHalf, Format::kF16},
    {at::kBFloat16, Format::kBF16}, {at::kLong, Format::kI64},   {at::kInt, Format::kI32},
    {at::kChar, Format::kI8},       {at::kByte, Format::kU8},    {at::kBool, Format::kBool},
};

std::optional<Format> format_of(at::ScalarType dtype) {
  for (const DtypeRow& r : kDtypes) {
    if (r.dtype == dtype) return r.format;
  }
  return std::nullopt;
}

std::optional<at::ScalarType> dtype_of(Format format) {
  for (const DtypeRow& r : kDtypes) {
    if (r.format == format) return r.dtype;
  }
  return std::nullopt;
}

struct Layout {
  std::string header;
  std::vector<std::uint64_t> offsets;  // in the file
  std::uint64_t file_bytes = 0;
};

Result<Layout> lay_out(const Json& recipe, const Json& state, const std::vector<NamedTensor>& tensors) {
  Json header = Json::object();
  // Values of __metadata__ are strings.
  header["__metadata__"] = {{"narrow.kind", kKind},
                            {"narrow.version", std::to_string(kVersion)},
                            {"narrow.recipe", recipe.dump()},
                            {"narrow.state", state.dump()}};
  Layout out;
  std::uint64_t at = 0;
  std::set<std::string_view> names;
  for (const NamedTensor& t : tensors) {
    const auto format = t.tensor.defined() ? format_of(t.tensor.scalar_type()) : std::nullopt;
    if (!format || !names.insert(t.name).second || t.name == "__metadata__") {
      return make_error(ErrorCode::kInternal, "checkpoint: tensor '{}' is there twice or cannot be stored",
                        t.name);
    }
    const std::uint64_t bytes = t.tensor.nbytes();
    header[t.name] = {{"dtype", *io::safetensors::dtype_of_format(*format)},
                      {"shape", t.tensor.sizes().vec()},
                      {"data_offsets", {at, at + bytes}}};
    out.offsets.push_back(at);
    at += bytes;
  }
  std::string json = header.dump();
  json.append((8 - json.size() % 8) % 8, ' ');
  // Little-endian, as every machine that narrow builds for is.
  const std::uint64_t length = json.size();
  out.header.resize(sizeof length);
  std::memcpy(out.header.data(), &length, sizeof length);
  out.header += json;
  for (std::uint64_t& o : out.offsets) o += out.header.size();
  out.file_bytes = out.header.size() + at;
  return out;
}

Result<Json> metadata_json(const io::safetensors::Reader& reader, const std::string& key,
                           const std::filesystem::path& path) {
  const auto it = reader.metadata().find(key);
  if (it == reader.metadata().end()) {
    return make_error(ErrorCode::kCorrupt, "{}: the checkpoint has no '{}'", path.string(), key);
  }
  return io::parse_json(it->second, fmt::format("{}: {}", path.string(), key));
}

// The first option that differs, for the message.
Status check_recipe(const Json& made, const Json& now, const std::filesystem::path& path) {
  if (now.is_null() || made == now) return {};
  const auto text = [](const Json& j, const std::string& key) {
    return j.is_object() && j.contains(key) ? j[key].dump() : std::string("unset");
  };
  for (const Json* side : {&now, &made}) {
    if (!side->is_object()) continue;
    for (const auto& [key, value] : side->items()) {
      if (text(made, key) == text(now, key)) continue;
      return make_error(
          ErrorCode::kRefused,
          "{}: the checkpoint was made with {} = {}, now it is {}: give the same options to go on, or "
          "start anew without --resume",
          path.string(), key, text(made, key), text(now, key));
    }
  }
  if (made.is_object() && now.is_object()) return {};  // only the order of keys differs
  return make_error(
      ErrorCode::kRefused,
      "{}: the checkpoint was made with other options: give the same ones to go on, or start anew "
      "without --resume",
      path.string());
}

}  // namespace

Status write_checkpoint(const std::filesystem::path& path, const Json& recipe, const Json& state,
                        const std::vector<NamedTensor>& tensors) {
  NARROW_ASSIGN(const Layout layout, lay_out(recipe, state, tensors));
  NARROW_TRY(io::TensorOutput::check_space(path.parent_path(), layout.file_bytes));
  io::TensorOutput output;
  NARROW_TRY(output.add_file(path, layout.header, layout.file_bytes));
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    output.add_tensor(tensors[i].name, 0, layout.offsets[i], tensors[i].tensor.nbytes());
  }
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const at::Tensor t = tensors[i].tensor.detach().cpu().contiguous();
    NARROW_TRY(output.write(i, 0, {static_cast<const std::byte*>(t.data_ptr()), t.nbytes()}));
  }
  return output.finish();
}

Result<Checkpoint> read_checkpoint(const std::filesystem::path& path, const Json& recipe) {
  NARROW_ASSIGN(const auto reader, io::safetensors::Reader::open(path));
  const auto kind = reader.metadata().find("narrow.kind");
  if (kind == reader.metadata().end() || kind->second != kKind) {
    return make_error(ErrorCode::kCorrupt, "{}: no training checkpoint", path.string());
  }
  const auto version = reader.metadata().find("narrow.version");
  if (version == reader.metadata().end() || version->second != std::to_string(kVersion)) {
    return make_error(ErrorCode::kUnsupported,
                      "{}: a checkpoint of another version of narrow ({} instead of {})", path.string(),
                      version == reader.metadata().end() ? "none" : version->second, kVersion);
  }
  Checkpoint out;
  NARROW_ASSIGN(out.recipe, metadata_json(reader, "narrow.recipe", path));
  NARROW_TRY(check_recipe(out.recipe, recipe, path));
  NARROW_ASSIGN(out.state, metadata_json(reader, "narrow.state", path));
  for (const auto& stored : reader.tensors()) {
    const TensorView view = reader.view(stored);
    const auto dtype = dtype_of(view.format);
    if (!dtype) {
      return make_error(ErrorCode::kCorrupt, "{}: tensor '{}' has a dtype that checkpoints never have",
                        path.string(), stored.info.name);
    }
    at::Tensor t = at::empty(stored.info.shape.dims(), *dtype);
    if (t.nbytes() > 0) std::memcpy(t.data_ptr(), view.data, t.nbytes());
    reader.drop(stored);
    out.tensors.emplace(stored.info.name, std::move(t));
  }
  return out;
}

Status restore(const Checkpoint& from, const std::string& name, at::Tensor into) {
  const auto it = from.tensors.find(name);
  if (it == from.tensors.end()) return make_error(ErrorCode::kCorrupt, "the checkpoint lacks '{}'", name);
  const at::Tensor& t = it->second;
  if (t.sizes() != into.sizes() || t.scalar_type() != into.scalar_type()) {
    return make_error(ErrorCode::kCorrupt, "the checkpoint's '{}' is {} [{}] instead of {} [{}]", name,
                      c10::toString(t.scalar_type()), fmt::join(t.sizes(), ", "),
                      c10::toString(into.scalar_type()), fmt::join(into.sizes(), ", "));
  }
  const at::NoGradGuard no_grad;
  into.copy_(t);
  return {};
}

}  // namespace narrow::train
