#include "pipeline/stored_tensors.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <memory>
#include <system_error>
#include <type_traits>
#include <variant>

#include "io/gguf/reader.h"
#include "io/hf_config/hf_folder.h"
#include "io/safetensors/reader.h"

namespace narrow::pipeline {
namespace {

constexpr std::size_t kShownItems = 6;
constexpr std::size_t kShownCharacters = 160;

std::string shorten(const std::string& s) {
  if (s.size() <= kShownCharacters) return s;
  std::size_t cut = kShownCharacters;
  while (cut > 0 && (static_cast<unsigned char>(s[cut]) & 0xc0) == 0x80) --cut;  // whole UTF-8 sequences
  return fmt::format("{}... ({} bytes)", s.substr(0, cut), s.size());
}

// One line, printable, quoted.
std::string quoted(const std::string& s) {
  return io::Json(shorten(s)).dump(-1, ' ', false, io::Json::error_handler_t::replace);
}

template <class T>
std::string item_text(const T& x) {
  if constexpr (std::is_same_v<T, std::string>) {
    return quoted(x);
  } else if constexpr (std::is_same_v<T, io::gguf::Array>) {
    return fmt::format("[{} {}]", x.size(), io::gguf::value_type_name(x.type));
  } else if constexpr (std::is_same_v<T, bool>) {
    return x ? "true" : "false";
  } else {
    return fmt::format("{}", x);
  }
}

std::string array_text(const io::gguf::Array& a) {
  return std::visit(
      [&](const auto& items) {
        std::vector<std::string> shown;
        for (std::size_t i = 0; i < std::min(kShownItems, items.size()); ++i) {
          using Item = typename std::decay_t<decltype(items)>::value_type;
          shown.push_back(item_text<Item>(items[i]));
        }
        const bool all = shown.size() == items.size();
        return fmt::format("[{} {}: {}{}]", items.size(), io::gguf::value_type_name(a.type),
                           fmt::join(shown, ", "), all ? "" : ", ...");
      },
      a.items);
}

std::string value_text(const io::gguf::Value& value) {
  return std::visit(
      [](const auto& x) {
        using T = std::decay_t<decltype(x)>;
        if constexpr (std::is_same_v<T, io::gguf::Array>) {
          return array_text(x);
        } else {
          return item_text(x);
        }
      },
      value.v);
}

template <class Reader>
void take_tensors(Reader reader, StoredTensors& out) {
  const auto shared = std::make_shared<const Reader>(std::move(reader));
  for (const auto& t : shared->tensors()) out.tensors.push_back(t.info);
  for (const MappedFile& part : shared->parts()) out.file_bytes += part.bytes().size();
  out.view = [shared](std::size_t i) { return shared->view(shared->tensors()[i]); };
  out.drop = [shared](std::size_t i) { shared->drop(shared->tensors()[i]); };
}

Result<StoredTensors> open_gguf(const std::filesystem::path& path) {
  NARROW_ASSIGN(io::gguf::Reader reader, io::gguf::Reader::open(path));
  StoredTensors out;
  const std::size_t parts = reader.parts().size();
  out.kind = fmt::format("GGUF v{}", reader.version());
  if (parts > 1) out.kind += fmt::format(", {} parts", parts);
  out.architecture = reader.metadata().get_string("general.architecture").value_or("");
  for (const auto& [key, value] : reader.metadata().entries())
    out.metadata.emplace_back(key, value_text(value));
  take_tensors(std::move(reader), out);
  return out;
}

Result<StoredTensors> open_folder(const std::filesystem::path& path) {
  NARROW_ASSIGN(const io::HfFolder folder, io::HfFolder::open(path));
  NARROW_ASSIGN(io::safetensors::Reader reader, io::safetensors::Reader::open_folder(path));
  StoredTensors out;
  const std::size_t shards = reader.parts().size();
  out.kind = fmt::format("safetensors folder, {} shard{}", shards, shards == 1 ? "" : "s");
  for (const auto& [key, value] : folder.config.items()) {
    out.metadata.emplace_back(key, shorten(value.dump(-1, ' ', false, io::Json::error_handler_t::replace)));
  }
  const auto type = folder.config.find("model_type");
  if (type != folder.config.end() && type->is_string()) out.architecture = type->get<std::string>();
  take_tensors(std::move(reader), out);
  return out;
}

Result<StoredTensors> open_safetensors(const std::filesystem::path& path) {
  NARROW_ASSIGN(io::safetensors::Reader reader, io::safetensors::Reader::open(path));
  StoredTensors out;
  out.kind = "safetensors file";
  for (const auto& [key, value] : reader.metadata()) out.metadata.emplace_back(key, quoted(value));
  take_tensors(std::move(reader), out);
  return out;
}

}  // namespace

Result<StoredTensors> StoredTensors::open(const std::filesystem::path& model) {
  std::error_code ec;
  if (!std::filesystem::exists(model, ec)) {
    return make_error(ErrorCode::kNotFound, "{}: no such file or folder", model.string());
  }
  if (std::filesystem::is_directory(model, ec)) return open_folder(model);
  if (io::gguf::Reader::is_gguf(model)) return open_gguf(model);
  if (model.extension() == ".safetensors") return open_safetensors(model);
  return make_error(ErrorCode::kUnsupported, "{}: neither GGUF (it lacks the magic) nor named .safetensors",
                    model.string());
}

Result<std::size_t> StoredTensors::find(const std::string& name) const {
  std::vector<std::string_view> close;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (tensors[i].name == name) return i;
    if (close.size() < 3 && tensors[i].name.find(name) != std::string::npos) close.push_back(tensors[i].name);
  }
  return make_error(ErrorCode::kNotFound, "no tensor '{}'{}", name,
                    close.empty() ? std::string("; inspect the model without --tensor for the list")
                                  : fmt::format("; did you mean {}?", fmt::join(close, ", ")));
}

}  // namespace narrow::pipeline
