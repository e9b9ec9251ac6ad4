#include "io/gguf/layout.h"

#include <bit>
#include <cstring>
#include <limits>
#include <type_traits>
#include <unordered_set>

#include "io/caps.h"
#include "io/gguf/parse.h"
#include "io/gguf/split_name.h"
#include "io/printable.h"
#include "io/tensor_output.h"

namespace narrow::io::gguf {
namespace {

// llama.cpp keeps names in 64 bytes, the last one zero.
constexpr std::size_t kMaxWrittenName = 63;

std::uint64_t align_up(std::uint64_t n, std::uint64_t alignment) {
  return (n + alignment - 1) / alignment * alignment;
}

class Encoder {
 public:
  template <class T>
  void put(T x) {
    const auto at = out_.size();
    out_.resize(at + sizeof(T));
    std::memcpy(out_.data() + at, &x, sizeof(T));
  }
  void put(std::string_view s) {
    put(static_cast<std::uint64_t>(s.size()));
    out_ += s;
  }

  Status put_entry(const std::string& key, const Value& value) {
    if (key.empty() || key.size() > caps::kMaxKeyBytes) {
      return make_error(ErrorCode::kInvalidArgument, "metadata key '{}' has {} bytes; GGUF allows 1 to {}",
                        printable(key), key.size(), caps::kMaxKeyBytes);
    }
    put(std::string_view(key));
    put(static_cast<std::uint32_t>(value.type()));
    Status s = std::visit([this](const auto& x) { return put_item(x, 1); }, value.v);
    if (!s.ok()) return with_context(s.error(), fmt::format("metadata key '{}'", printable(key)));
    return {};
  }

  std::string take() { return std::move(out_); }
  std::size_t size() const { return out_.size(); }

 private:
  template <class T>
  Status put_item(const T& x, std::uint64_t depth) {
    if constexpr (std::is_same_v<T, bool>) {
      put(static_cast<std::uint8_t>(x));
    } else if constexpr (std::is_same_v<T, std::string>) {
      if (x.size() > caps::kMaxStringBytes) {
        return make_error(ErrorCode::kInvalidArgument, "a string of {} bytes; the limit is {}", x.size(),
                          caps::kMaxStringBytes);
      }
      put(std::string_view(x));
    } else if constexpr (std::is_same_v<T, Array>) {
      return put_array(x, depth);
    } else {
      put(x);
    }
    return {};
  }

  Status put_array(const Array& a, std::uint64_t depth) {
    if (depth > caps::kMaxArrayDepth) {
      return make_error(ErrorCode::kInvalidArgument, "arrays nested deeper than {}", caps::kMaxArrayDepth);
    }
    if (a.items.index() != static_cast<std::size_t>(a.type)) {
      return make_error(ErrorCode::kInternal, "an array of {} is marked as one of {}",
                        value_type_name(static_cast<ValueType>(a.items.index())), value_type_name(a.type));
    }
    if (a.size() > caps::kMaxArrayItems) {
      return make_error(ErrorCode::kInvalidArgument, "an array of {} items; the limit is {}", a.size(),
                        caps::kMaxArrayItems);
    }
    put(static_cast<std::uint32_t>(a.type));
    put(static_cast<std::uint64_t>(a.size()));
    return std::visit(
        [&](const auto& items) -> Status {
          using T = typename std::decay_t<decltype(items)>::value_type;
          for (const T& x : items) NARROW_TRY(put_item<T>(x, depth + 1));
          return {};
        },
        a.items);
  }

  std::string out_;
};

Status check_options(const WriterOptions& options) {
  if (options.alignment < 8 || options.alignment > caps::kMaxAlignment ||
      !std::has_single_bit(options.alignment)) {
    return make_error(ErrorCode::kInvalidArgument, "the alignment {} is not a power of two from 8 to {}",
                      options.alignment, caps::kMaxAlignment);
  }
  if (options.split_max_tensors < 0) {
    return make_error(ErrorCode::kInvalidArgument, "{} tensors per part; give 1 or more",
                      options.split_max_tensors);
  }
  return {};
}

Status check_tensors(const std::vector<TensorInfo>& tensors) {
  if (tensors.size() > caps::kMaxTensors) {
    return make_error(ErrorCode::kInvalidArgument, "{} tensors; the limit is {}", tensors.size(),
                      caps::kMaxTensors);
  }
  std::unordered_set<std::string_view> names;
  for (const TensorInfo& t : tensors) {
    if (t.name.empty() || t.name.size() > kMaxWrittenName) {
      return make_error(ErrorCode::kInvalidArgument,
                        "tensor '{}' has a name of {} bytes; llama.cpp reads names of 1 to {}",
                        printable(t.name), t.name.size(), kMaxWrittenName);
    }
    if (!names.insert(t.name).second) {
      return make_error(ErrorCode::kInvalidArgument, "tensor '{}' is there twice", printable(t.name));
    }
    if (!format_info(t.format).in_gguf()) {
      return make_error(ErrorCode::kUnsupported, "tensor '{}': GGUF has no type for {}", printable(t.name),
                        format_info(t.format).name);
    }
    if (t.shape.rank() > caps::kMaxDims) {
      return make_error(ErrorCode::kUnsupported, "tensor '{}' has {} dimensions; GGUF allows {}",
                        printable(t.name), t.shape.rank(), caps::kMaxDims);
    }
    NARROW_ASSIGN(const std::uint64_t bytes, checked_tensor_bytes(t));
    if (bytes == 0) {
      return make_error(ErrorCode::kUnsupported, "tensor '{}' of shape {} is empty, which GGUF cannot hold",
                        printable(t.name), t.shape.text());
    }
  }
  return {};
}

// Keys that say how the file is stored: the writer's own business.
bool is_layout_key(std::string_view key) {
  return key == kAlignmentKey || key == kSplitNoKey || key == kSplitCountKey || key == kSplitTensorsKey;
}

Result<std::string> encode_header(const Metadata& metadata, std::span<const TensorInfo> tensors,
                                  std::span<const std::uint64_t> data_offsets) {
  Encoder e;
  e.put(kMagic);
  e.put(std::uint32_t{3});
  e.put(static_cast<std::uint64_t>(tensors.size()));
  e.put(static_cast<std::uint64_t>(metadata.entries().size()));
  for (const auto& [key, value] : metadata.entries()) NARROW_TRY(e.put_entry(key, value));
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const TensorInfo& t = tensors[i];
    e.put(std::string_view(t.name));
    // A scalar is stored as one element: GGUF readers want at least one dimension.
    const std::vector<std::int64_t> dims =
        t.shape.rank() == 0 ? std::vector<std::int64_t>{1} : t.shape.dims();
    e.put(static_cast<std::uint32_t>(dims.size()));
    for (auto it = dims.rbegin(); it != dims.rend(); ++it) e.put(static_cast<std::uint64_t>(*it));
    e.put(static_cast<std::uint32_t>(t.format));
    e.put(data_offsets[i]);
  }
  return e.take();
}

}  // namespace

bool is_split(const WriterOptions& options) {
  return options.split_max_bytes > 0 || options.split_max_tensors > 0;
}

std::vector<std::filesystem::path> part_paths(const std::filesystem::path& path, std::size_t n_parts,
                                              const WriterOptions& options) {
  if (!is_split(options)) return {path};
  std::filesystem::path prefix = path;
  if (prefix.extension() == ".gguf") prefix.replace_extension();
  std::vector<std::filesystem::path> paths;
  for (std::size_t p = 0; p < n_parts; ++p) {
    paths.push_back(split_part_path(prefix, static_cast<int>(p), static_cast<int>(n_parts)));
  }
  return paths;
}

Result<std::vector<PartLayout>> lay_out(const Metadata& metadata, const std::vector<TensorInfo>& tensors,
                                        const WriterOptions& options) {
  NARROW_TRY(check_options(options));
  NARROW_TRY(check_tensors(tensors));

  std::vector<PartLayout> parts(1);
  std::uint64_t part_bytes = 0;  // of its tensors only, as llama-gguf-split counts
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const std::uint64_t bytes = tensors[i].bytes();
    const std::uint64_t padded = align_up(bytes, options.alignment);
    const std::size_t count = parts.back().bytes.size();
    const bool over_bytes = options.split_max_bytes > 0 && part_bytes + padded > options.split_max_bytes;
    const bool over_count =
        options.split_max_tensors > 0 && count >= static_cast<std::size_t>(options.split_max_tensors);
    if (count > 0 && (over_bytes || over_count)) {
      parts.emplace_back();
      parts.back().first_tensor = i;
      part_bytes = 0;
    }
    parts.back().offsets.push_back(part_bytes);  // from the start of the data, for now
    parts.back().bytes.push_back(bytes);
    part_bytes += padded;
  }
  if (parts.size() > caps::kMaxShards) {
    return make_error(ErrorCode::kInvalidArgument, "{} parts; the limit is {}: allow larger parts",
                      parts.size(), caps::kMaxShards);
  }

  for (std::size_t p = 0; p < parts.size(); ++p) {
    PartLayout& part = parts[p];
    Metadata stored;
    if (p == 0) {
      for (const auto& [key, value] : metadata.entries()) {
        if (!is_layout_key(key)) stored.set(key, value);
      }
    }
    if (options.alignment != kDefaultAlignment) stored.set_u32(std::string(kAlignmentKey), options.alignment);
    if (is_split(options)) {
      stored.set(std::string(kSplitNoKey), Value{static_cast<std::uint16_t>(p)});
      stored.set(std::string(kSplitCountKey), Value{static_cast<std::uint16_t>(parts.size())});
      stored.set_i32(std::string(kSplitTensorsKey), static_cast<std::int32_t>(tensors.size()));
    }
    if (stored.entries().size() > caps::kMaxMetadataKeys) {
      return make_error(ErrorCode::kInvalidArgument, "{} metadata keys; the limit is {}",
                        stored.entries().size(), caps::kMaxMetadataKeys);
    }
    const std::span<const TensorInfo> held(tensors.data() + part.first_tensor, part.bytes.size());
    NARROW_ASSIGN(part.header, encode_header(stored, held, part.offsets));
    const std::uint64_t data = align_up(part.header.size(), options.alignment);
    part.total_bytes = data;
    for (std::size_t i = 0; i < part.offsets.size(); ++i) {
      part.offsets[i] += data;
      part.total_bytes = align_up(part.offsets[i] + part.bytes[i], options.alignment);
    }
  }
  return parts;
}

}  // namespace narrow::io::gguf
