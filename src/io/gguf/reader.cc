#include "io/gguf/reader.h"

#include <cstdio>
#include <fstream>
#include <new>

#include "io/caps.h"
#include "io/gguf/parse.h"
#include "io/gguf/split_name.h"
#include "io/printable.h"

namespace narrow::io::gguf {
namespace {

struct Part {
  MappedFile file;
  ParsedFile parsed;
};

Result<Part> open_part(const std::filesystem::path& path) {
  NARROW_ASSIGN(MappedFile file, MappedFile::open(path));
  NARROW_ASSIGN(ParsedFile parsed, parse_file(file));
  return Part{std::move(file), std::move(parsed)};
}

// What a part says of its place, checked against its name.
Status check_split_keys(const Part& part, const SplitName& name) {
  const std::string file = part.file.path().string();
  const Metadata& m = part.parsed.metadata;
  const auto no = m.get_int(kSplitNoKey);
  const auto count = m.get_int(kSplitCountKey);
  if (!no || !count) {
    return make_error(ErrorCode::kCorrupt, "{}: metadata key '{}' is missing in a part of a split model",
                      file, no ? kSplitCountKey : kSplitNoKey);
  }
  if (*no != name.no || *count != name.count) {
    return make_error(
        ErrorCode::kCorrupt,
        "{}: named part {} of {}, but its metadata says part {} of {}; give the parts back their names", file,
        name.no + 1, name.count, *no + 1, *count);
  }
  return {};
}

// The other parts of a split model, all in order.
Result<std::vector<Part>> open_split(Part opened, std::int64_t count) {
  const std::filesystem::path path = opened.file.path();
  if (count > static_cast<std::int64_t>(caps::kMaxShards)) {
    return make_error(ErrorCode::kCorrupt, "{}: metadata key '{}' is {}; the limit is {}", path.string(),
                      kSplitCountKey, count, caps::kMaxShards);
  }
  const auto name = parse_split_name(path);
  if (!name) {
    return make_error(
        ErrorCode::kCorrupt,
        "{}: one of {} parts of a split model, but not named <name>-00001-of-{:05d}.gguf: give the "
        "parts back their names",
        path.string(), count, count);
  }
  NARROW_TRY(check_split_keys(opened, *name));
  std::vector<Part> parts;
  for (int i = 0; i < name->count; ++i) {
    if (i == name->no) {
      parts.push_back(std::move(opened));
      continue;
    }
    const auto part_path = split_part_path(name->prefix, i, name->count);
    auto part = open_part(part_path);
    if (!part.ok()) {
      if (part.error().code != ErrorCode::kNotFound) return part.error();
      return make_error(ErrorCode::kNotFound, "{}: missing part {} of {} of a split model: download it",
                        part_path.string(), i + 1, name->count);
    }
    NARROW_TRY(check_split_keys(*part, SplitName{name->prefix, i, name->count}));
    parts.push_back(std::move(*part));
  }
  return parts;
}

Status check_parts_agree(const std::vector<Part>& parts) {
  const auto value = [](const Part& p, std::string_view key) { return p.parsed.metadata.get_int(key); };
  const std::string first = parts[0].file.path().string();
  const auto arch = parts[0].parsed.metadata.get_string("general.architecture");
  std::int64_t n_tensors = 0;
  for (const Part& p : parts) {
    n_tensors += static_cast<std::int64_t>(p.parsed.tensors.size());
    if (value(p, kSplitTensorsKey) != value(parts[0], kSplitTensorsKey)) {
      return make_error(ErrorCode::kCorrupt,
                        "{}: metadata key '{}' differs from that of {}: the parts are of different models",
                        p.file.path().string(), kSplitTensorsKey, first);
    }
    const auto other = p.parsed.metadata.get_string("general.architecture");
    if (other && other != arch) {
      return make_error(ErrorCode::kCorrupt,
                        "{}: architecture '{}' is not that of {}: the parts are of different models",
                        p.file.path().string(), printable(*other), first);
    }
  }
  const auto declared = value(parts[0], kSplitTensorsKey);
  if (declared && *declared != n_tensors) {
    return make_error(ErrorCode::kCorrupt, "{}: metadata key '{}' is {}, but the parts hold {} tensors",
                      first, kSplitTensorsKey, *declared, n_tensors);
  }
  return {};
}

}  // namespace

Result<Reader> Reader::open(const std::filesystem::path& path) {
  try {
    NARROW_ASSIGN(Part opened, open_part(path));
    std::vector<Part> parts;
    const auto count = opened.parsed.metadata.get_int(kSplitCountKey);
    if (count && *count > 1) {
      NARROW_ASSIGN(parts, open_split(std::move(opened), *count));
      NARROW_TRY(check_parts_agree(parts));
    } else {
      parts.push_back(std::move(opened));
    }

    Reader r;
    r.version_ = parts[0].parsed.version;
    r.metadata_ = std::move(parts[0].parsed.metadata);
    for (const std::string_view key : {kSplitNoKey, kSplitCountKey, kSplitTensorsKey}) r.metadata_.erase(key);
    for (std::size_t p = 0; p < parts.size(); ++p) {
      for (ParsedTensor& t : parts[p].parsed.tensors) {
        const auto [it, fresh] = r.index_.emplace(t.info.name, r.tensors_.size());
        if (!fresh) {
          const auto& other = parts[static_cast<std::size_t>(r.tensors_[it->second].part)].file.path();
          return make_error(ErrorCode::kCorrupt, "{}: tensor '{}' is also in {}",
                            parts[p].file.path().string(), printable(t.info.name), other.string());
        }
        r.tensors_.push_back({std::move(t.info), static_cast<int>(p), t.offset});
      }
    }
    for (Part& p : parts) r.parts_.push_back(std::move(p.file));
    return r;
  } catch (const std::bad_alloc&) {
    return make_error(ErrorCode::kOutOfMemory, "{}: not enough memory for the file's metadata",
                      path.string());
  }
}

bool Reader::is_gguf(const std::filesystem::path& path) {
  std::error_code ec;
  if (!std::filesystem::is_regular_file(path, ec)) return false;
  std::ifstream in(path, std::ios::binary);
  char magic[4] = {};
  return in.read(magic, sizeof magic) && std::string_view(magic, sizeof magic) == "GGUF";
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

std::uint64_t Reader::file_bytes() const {
  std::uint64_t n = 0;
  for (const MappedFile& f : parts_) n += f.bytes().size();
  return n;
}

}  // namespace narrow::io::gguf
