#include "io/safetensors/reader.h"

#include <algorithm>
#include <new>

#include "io/caps.h"
#include "io/hf_config/hf_folder.h"
#include "io/printable.h"
#include "io/safetensors/parse.h"

namespace narrow::io::safetensors {
namespace {

constexpr const char* kSingleName = "model.safetensors";
constexpr const char* kIndexName = "model.safetensors.index.json";

struct Shard {
  MappedFile file;
  ParsedFile parsed;
};

Result<Shard> open_shard(const std::filesystem::path& path) {
  try {
    NARROW_ASSIGN(MappedFile file, MappedFile::open(path));
    NARROW_ASSIGN(ParsedFile parsed, parse_file(file));
    return Shard{std::move(file), std::move(parsed)};
  } catch (const std::bad_alloc&) {
    return make_error(ErrorCode::kOutOfMemory, "{}: not enough memory for the file's header", path.string());
  }
}

// A shard lies beside its index: anything else would read files that the folder's owner did not mean.
bool is_plain_file_name(const std::string& s) {
  return !s.empty() && s != "." && s != ".." && s.find('/') == std::string::npos &&
         s.find('\\') == std::string::npos && s.find('\0') == std::string::npos;
}

struct Index {
  std::vector<std::string> files;                        // in order of their names
  std::vector<std::pair<std::string, std::string>> map;  // tensor, file
};

Result<Index> read_index(const std::filesystem::path& path) {
  NARROW_ASSIGN(const Json json, read_json(path));
  const auto corrupt = [&](const std::string& what) {
    return make_error(ErrorCode::kCorrupt, "{}: {}", path.string(), what);
  };
  if (!json.is_object()) return corrupt("not a JSON object");
  const auto map = json.find("weight_map");
  if (map == json.end() || !map->is_object()) return corrupt("has no 'weight_map' object");
  if (map->size() > caps::kMaxTensors) {
    return corrupt(
        fmt::format("'weight_map' has {} entries; the limit is {}", map->size(), caps::kMaxTensors));
  }
  Index index;
  for (const auto& [tensor, file] : map->get_ref<const Json::object_t&>()) {
    if (!file.is_string() || !is_plain_file_name(file.get_ref<const std::string&>())) {
      return corrupt(fmt::format(
          "tensor '{}' is mapped to {}, which is not the name of a file in this folder", printable(tensor),
          printable(file.is_string() ? "'" + file.get<std::string>() + "'" : std::string(file.type_name()))));
    }
    index.map.emplace_back(tensor, file.get_ref<const std::string&>());
    index.files.push_back(file.get_ref<const std::string&>());
  }
  std::sort(index.files.begin(), index.files.end());
  index.files.erase(std::unique(index.files.begin(), index.files.end()), index.files.end());
  if (index.files.empty()) return corrupt("'weight_map' is empty");
  if (index.files.size() > caps::kMaxShards) {
    return corrupt(fmt::format("names {} shards; the limit is {}", index.files.size(), caps::kMaxShards));
  }
  return index;
}

Error no_weights(const std::filesystem::path& folder) {
  std::error_code ec;
  std::string hint;
  for (const char* other : {"pytorch_model.bin", "pytorch_model.bin.index.json"}) {
    if (std::filesystem::exists(folder / other, ec)) {
      hint = fmt::format(" ({} is there: narrow reads no pickle files, convert it to safetensors)", other);
      break;
    }
  }
  return make_error(ErrorCode::kNotFound, "{}: holds neither {} nor {}{}", folder.string(), kSingleName,
                    kIndexName, hint);
}

}  // namespace

Result<Reader> Reader::open(const std::filesystem::path& file) {
  NARROW_ASSIGN(Shard shard, open_shard(file));
  Reader r;
  r.tensors_ = std::move(shard.parsed.tensors);
  r.metadata_ = std::move(shard.parsed.metadata);
  for (std::size_t i = 0; i < r.tensors_.size(); ++i) r.index_.emplace(r.tensors_[i].info.name, i);
  r.parts_.push_back(std::move(shard.file));
  return r;
}

Result<Reader> Reader::open_folder(const std::filesystem::path& folder) {
  std::error_code ec;
  if (!std::filesystem::is_directory(folder, ec)) {
    return make_error(ErrorCode::kNotFound, "{}: no such folder", folder.string());
  }
  // The single file wins where both are present, as in transformers.
  if (std::filesystem::exists(folder / kSingleName, ec)) return open(folder / kSingleName);
  const auto index_path = folder / kIndexName;
  if (!std::filesystem::exists(index_path, ec)) return no_weights(folder);
  NARROW_ASSIGN(const Index index, read_index(index_path));

  Reader r;
  std::map<std::string, int> part_of_file;
  for (const std::string& name : index.files) {
    const auto path = folder / name;
    auto shard = open_shard(path);
    if (!shard.ok()) {
      if (shard.error().code != ErrorCode::kNotFound) return shard.error();
      return make_error(ErrorCode::kNotFound, "{}: missing shard, named in {}: download it", path.string(),
                        kIndexName);
    }
    const int part = static_cast<int>(r.parts_.size());
    part_of_file.emplace(name, part);
    for (StoredTensor& t : shard->parsed.tensors) {
      t.part = part;
      const auto [it, fresh] = r.index_.emplace(t.info.name, r.tensors_.size());
      if (!fresh) {
        const auto& other = r.parts_[static_cast<std::size_t>(r.tensors_[it->second].part)].path();
        return make_error(ErrorCode::kCorrupt, "{}: tensor '{}' is also in {}", path.string(),
                          printable(t.info.name), other.string());
      }
      r.tensors_.push_back(std::move(t));
    }
    r.metadata_.merge(shard->parsed.metadata);
    r.parts_.push_back(std::move(shard->file));
  }
  for (const auto& [tensor, file] : index.map) {
    const StoredTensor* t = r.find(tensor);
    if (!t || t->part != part_of_file.at(file)) {
      return make_error(ErrorCode::kCorrupt,
                        "{}: tensor '{}' is not in it, although {} says so: download both again",
                        (folder / file).string(), printable(tensor), kIndexName);
    }
  }
  std::sort(r.tensors_.begin(), r.tensors_.end(),
            [](const StoredTensor& a, const StoredTensor& b) { return a.info.name < b.info.name; });
  for (std::size_t i = 0; i < r.tensors_.size(); ++i) r.index_.find(r.tensors_[i].info.name)->second = i;
  return r;
}

const StoredTensor* Reader::find(std::string_view name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : &tensors_[it->second];
}

TensorView Reader::view(const StoredTensor& t) const {
  return {t.info.format, t.info.shape, parts_[static_cast<std::size_t>(t.part)].bytes().data() + t.offset};
}

void Reader::drop(const StoredTensor& t) const {
  parts_[static_cast<std::size_t>(t.part)].drop(t.offset, t.info.bytes());
}

}  // namespace narrow::io::safetensors
