#include "io/gguf/parse.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>
#include <unordered_set>

#include "io/caps.h"
#include "io/printable.h"

namespace narrow::io::gguf {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF values are read as they lie");

class Parser {
 public:
  explicit Parser(const MappedFile& file) : bytes_(file.bytes()), name_(file.path().string()) {}

  Result<ParsedFile> run() {
    ParsedFile out;
    std::uint64_t n_tensors = 0, n_keys = 0;
    NARROW_TRY(read_preamble(out.version, n_tensors, n_keys));
    NARROW_TRY(read_metadata(n_keys, out.metadata));
    NARROW_ASSIGN(const std::uint64_t alignment, read_alignment(out.metadata));
    NARROW_TRY(read_tensor_infos(n_tensors, alignment, out.tensors));
    if (n_tensors > 0) NARROW_TRY(place_tensors(alignment, out.tensors));
    return out;
  }

 private:
  std::uint64_t remaining() const { return bytes_.size() - pos_; }

  Error truncated(const std::string& what, std::uint64_t need) const {
    return make_error(ErrorCode::kCorrupt,
                      "{}: {} needs {} bytes at offset {}, but the file has {} bytes; it is truncated or "
                      "damaged: download it again",
                      name_, what, need, pos_, bytes_.size());
  }

  template <class T>
  Status read(T& out, const std::string& what) {
    if (remaining() < sizeof(T)) return truncated(what, sizeof(T));
    std::memcpy(&out, bytes_.data() + pos_, sizeof(T));
    pos_ += sizeof(T);
    return {};
  }

  Status read_string(std::string& out, std::uint64_t limit, const std::string& what) {
    std::uint64_t n = 0;
    NARROW_TRY(read(n, what));
    if (n > remaining()) return truncated(what, n);
    if (n > limit) {
      return make_error(ErrorCode::kCorrupt, "{}: {} has {} bytes; the limit is {}", name_, what, n, limit);
    }
    out.assign(reinterpret_cast<const char*>(bytes_.data() + pos_), static_cast<std::size_t>(n));
    pos_ += n;
    return {};
  }

  Status read_preamble(std::uint32_t& version, std::uint64_t& n_tensors, std::uint64_t& n_keys) {
    std::uint32_t magic = 0;
    NARROW_TRY(read(magic, "the magic"));
    if (magic != kMagic) {
      return make_error(ErrorCode::kCorrupt, "{}: not a GGUF file: it starts with 0x{:08x}, not \"GGUF\"",
                        name_, magic);
    }
    NARROW_TRY(read(version, "the version"));
    if (version != 0 && (version & 0xffff) == 0) {
      return make_error(ErrorCode::kUnsupported,
                        "{}: a big-endian GGUF file; convert it with gguf_convert_endian.py", name_);
    }
    if (version != 2 && version != 3) {
      return make_error(ErrorCode::kUnsupported, "{}: GGUF version {}; narrow reads 2 and 3", name_, version);
    }
    NARROW_TRY(read(n_tensors, "the tensor count"));
    NARROW_TRY(read(n_keys, "the metadata count"));
    // The smallest tensor entry has a name, one dimension, a type and an offset; the smallest key one byte.
    NARROW_TRY(check_count("tensors", n_tensors, caps::kMaxTensors, 8 + 1 + 4 + 8 + 4 + 8));
    return check_count("metadata keys", n_keys, caps::kMaxMetadataKeys, 8 + 1 + 4 + 1);
  }

  Status check_count(std::string_view what, std::uint64_t n, std::uint64_t limit,
                     std::uint64_t min_bytes) const {
    if (n > limit) {
      return make_error(ErrorCode::kCorrupt, "{}: declares {} {}; the limit is {}", name_, n, what, limit);
    }
    if (n > remaining() / min_bytes) {
      return make_error(
          ErrorCode::kCorrupt,
          "{}: declares {} {}, more than its {} bytes can hold; it is truncated or damaged: download "
          "it again",
          name_, n, what, bytes_.size());
    }
    return {};
  }

  Status read_type(ValueType& type, const std::string& what) {
    std::uint32_t id = 0;
    NARROW_TRY(read(id, what));
    if (id > static_cast<std::uint32_t>(ValueType::kF64)) {
      return make_error(ErrorCode::kCorrupt, "{}: {} has the unknown value type {}", name_, what, id);
    }
    type = static_cast<ValueType>(id);
    return {};
  }

  Status read_metadata(std::uint64_t n_keys, Metadata& metadata) {
    for (std::uint64_t i = 0; i < n_keys; ++i) {
      std::string key;
      NARROW_TRY(read_string(key, caps::kMaxKeyBytes, fmt::format("metadata key {}", i)));
      if (key.empty()) return make_error(ErrorCode::kCorrupt, "{}: metadata key {} has no name", name_, i);
      const std::string what = fmt::format("metadata key '{}'", printable(key));
      if (metadata.has(key)) return make_error(ErrorCode::kCorrupt, "{}: {} is there twice", name_, what);
      ValueType type{};
      NARROW_TRY(read_type(type, what));
      Value value;
      NARROW_TRY(read_value(type, value, what));
      metadata.set(std::move(key), std::move(value));
    }
    return {};
  }

  template <class T>
  Status read_scalar(Value& value, const std::string& what) {
    T x{};
    NARROW_TRY(read(x, what));
    value.v = x;
    return {};
  }

  Status read_bool(bool& out, const std::string& what) {
    std::uint8_t b = 0;
    NARROW_TRY(read(b, what));
    if (b > 1) return make_error(ErrorCode::kCorrupt, "{}: {} is a bool with the value {}", name_, what, b);
    out = b == 1;
    return {};
  }

  Status read_value(ValueType type, Value& value, const std::string& what) {
    switch (type) {
      case ValueType::kU8:
        return read_scalar<std::uint8_t>(value, what);
      case ValueType::kI8:
        return read_scalar<std::int8_t>(value, what);
      case ValueType::kU16:
        return read_scalar<std::uint16_t>(value, what);
      case ValueType::kI16:
        return read_scalar<std::int16_t>(value, what);
      case ValueType::kU32:
        return read_scalar<std::uint32_t>(value, what);
      case ValueType::kI32:
        return read_scalar<std::int32_t>(value, what);
      case ValueType::kF32:
        return read_scalar<float>(value, what);
      case ValueType::kU64:
        return read_scalar<std::uint64_t>(value, what);
      case ValueType::kI64:
        return read_scalar<std::int64_t>(value, what);
      case ValueType::kF64:
        return read_scalar<double>(value, what);
      case ValueType::kBool: {
        bool b = false;
        NARROW_TRY(read_bool(b, what));
        value.v = b;
        return {};
      }
      case ValueType::kString: {
        std::string s;
        NARROW_TRY(read_string(s, caps::kMaxStringBytes, what));
        value.v = std::move(s);
        return {};
      }
      case ValueType::kArray: {
        Array a;
        NARROW_TRY(read_array(a, 1, what));
        value.v = std::move(a);
        return {};
      }
    }
    return make_error(ErrorCode::kInternal, "{}: {}: value type {}", name_, what, static_cast<int>(type));
  }

  template <class T>
  Status read_items(Array& a, std::uint64_t n, const std::string& what) {
    if (n > remaining() / sizeof(T)) return truncated(what, n * sizeof(T));
    std::vector<T> items(static_cast<std::size_t>(n));
    if (n > 0) std::memcpy(items.data(), bytes_.data() + pos_, items.size() * sizeof(T));
    pos_ += n * sizeof(T);
    a.items = std::move(items);
    return {};
  }

  Status read_array(Array& a, std::uint64_t depth, const std::string& what) {
    if (depth > caps::kMaxArrayDepth) {
      return make_error(ErrorCode::kCorrupt, "{}: {} nests arrays deeper than {}", name_, what,
                        caps::kMaxArrayDepth);
    }
    NARROW_TRY(read_type(a.type, what));
    std::uint64_t n = 0;
    NARROW_TRY(read(n, what));
    if (n > caps::kMaxArrayItems) {
      return make_error(ErrorCode::kCorrupt, "{}: {} is an array of {} items; the limit is {}", name_, what,
                        n, caps::kMaxArrayItems);
    }
    switch (a.type) {
      case ValueType::kU8:
        return read_items<std::uint8_t>(a, n, what);
      case ValueType::kI8:
        return read_items<std::int8_t>(a, n, what);
      case ValueType::kU16:
        return read_items<std::uint16_t>(a, n, what);
      case ValueType::kI16:
        return read_items<std::int16_t>(a, n, what);
      case ValueType::kU32:
        return read_items<std::uint32_t>(a, n, what);
      case ValueType::kI32:
        return read_items<std::int32_t>(a, n, what);
      case ValueType::kF32:
        return read_items<float>(a, n, what);
      case ValueType::kU64:
        return read_items<std::uint64_t>(a, n, what);
      case ValueType::kI64:
        return read_items<std::int64_t>(a, n, what);
      case ValueType::kF64:
        return read_items<double>(a, n, what);
      case ValueType::kBool: {
        if (n > remaining()) return truncated(what, n);
        std::vector<bool> items(static_cast<std::size_t>(n));
        for (std::size_t i = 0; i < items.size(); ++i) {
          bool b = false;
          NARROW_TRY(read_bool(b, what));
          items[i] = b;
        }
        a.items = std::move(items);
        return {};
      }
      case ValueType::kString: {
        if (n > remaining() / sizeof(std::uint64_t)) return truncated(what, n * sizeof(std::uint64_t));
        std::vector<std::string> items(static_cast<std::size_t>(n));
        for (std::string& s : items) NARROW_TRY(read_string(s, caps::kMaxStringBytes, what));
        a.items = std::move(items);
        return {};
      }
      case ValueType::kArray: {
        constexpr std::uint64_t kMinBytes = 4 + 8;  // item type and count
        if (n > remaining() / kMinBytes) return truncated(what, n * kMinBytes);
        std::vector<Array> items(static_cast<std::size_t>(n));
        for (Array& inner : items) NARROW_TRY(read_array(inner, depth + 1, what));
        a.items = std::move(items);
        return {};
      }
    }
    return make_error(ErrorCode::kInternal, "{}: {}: value type {}", name_, what, static_cast<int>(a.type));
  }

  Result<std::uint64_t> read_alignment(const Metadata& metadata) const {
    if (!metadata.has(kAlignmentKey)) return std::uint64_t{kDefaultAlignment};
    const auto a = metadata.get_int(kAlignmentKey);
    // The specification asks for a multiple of 8; every known reader for a power of two.
    if (!a || *a < 8 || static_cast<std::uint64_t>(*a) > caps::kMaxAlignment ||
        !std::has_single_bit(static_cast<std::uint64_t>(*a))) {
      return make_error(
          ErrorCode::kCorrupt, "{}: metadata key '{}' is {}; it must be a power of two from 8 to {}", name_,
          kAlignmentKey, a ? fmt::to_string(*a) : std::string("not an integer"), caps::kMaxAlignment);
    }
    return static_cast<std::uint64_t>(*a);
  }

  // Offsets stay relative to the data section here; place_tensors() moves them.
  Status read_tensor_infos(std::uint64_t n_tensors, std::uint64_t alignment,
                           std::vector<ParsedTensor>& tensors) {
    tensors.reserve(static_cast<std::size_t>(n_tensors));
    std::unordered_set<std::string> names;
    for (std::uint64_t i = 0; i < n_tensors; ++i) {
      ParsedTensor t;
      NARROW_TRY(read_string(t.info.name, caps::kMaxNameBytes, fmt::format("the name of tensor {}", i)));
      if (t.info.name.empty()) return make_error(ErrorCode::kCorrupt, "{}: tensor {} has no name", name_, i);
      const std::string what = fmt::format("tensor '{}'", printable(t.info.name));
      if (!names.insert(t.info.name).second) {
        return make_error(ErrorCode::kCorrupt, "{}: {} is there twice", name_, what);
      }
      NARROW_TRY(read_shape(t.info, what));
      NARROW_TRY(read(t.offset, what));
      if (t.offset % alignment != 0) {
        return make_error(ErrorCode::kCorrupt, "{}: {} has offset {}, not a multiple of the alignment {}",
                          name_, what, t.offset, alignment);
      }
      tensors.push_back(std::move(t));
    }
    return {};
  }

  Status read_shape(TensorInfo& info, const std::string& what) {
    std::uint32_t n_dims = 0;
    NARROW_TRY(read(n_dims, what));
    if (n_dims < 1 || n_dims > static_cast<std::uint32_t>(caps::kMaxDims)) {
      return make_error(ErrorCode::kCorrupt, "{}: {} has {} dimensions; GGUF allows 1 to {}", name_, what,
                        n_dims, caps::kMaxDims);
    }
    std::vector<std::int64_t> dims(n_dims);
    std::uint64_t elements = 1;
    for (std::uint32_t d = 0; d < n_dims; ++d) {
      std::uint64_t n = 0;
      NARROW_TRY(read(n, what));
      if (n == 0) return make_error(ErrorCode::kCorrupt, "{}: {} has a dimension of 0", name_, what);
      if (n > caps::kMaxElements / elements) {
        return make_error(ErrorCode::kCorrupt, "{}: {} has more than {} elements (dimension {} is {})", name_,
                          what, caps::kMaxElements, d, n);
      }
      elements *= n;
      dims[n_dims - 1 - d] = static_cast<std::int64_t>(n);
    }
    info.shape = Shape(std::move(dims));
    std::uint32_t id = 0;
    NARROW_TRY(read(id, what));
    const FormatInfo* format = find_format(id);
    if (!format || !format->in_gguf()) {
      return make_error(ErrorCode::kUnsupported, "{}: {} has the unknown tensor type {}", name_, what, id);
    }
    info.format = format->format;
    if (info.shape.row_length() % format->block_size != 0) {
      return make_error(ErrorCode::kCorrupt,
                        "{}: {} has rows of {} elements, not a multiple of {}'s block of {}", name_, what,
                        info.shape.row_length(), format->name, format->block_size);
    }
    return {};
  }

  Status place_tensors(std::uint64_t alignment, std::vector<ParsedTensor>& tensors) const {
    const std::uint64_t data = (pos_ + alignment - 1) / alignment * alignment;
    const std::uint64_t available = data < bytes_.size() ? bytes_.size() - data : 0;
    for (ParsedTensor& t : tensors) {
      const std::uint64_t size = t.info.bytes();  // cannot overflow: elements are capped at 2^42
      if (t.offset > available || size > available - t.offset) {
        return make_error(
            ErrorCode::kCorrupt,
            "{}: tensor '{}' ({} bytes at {} of the data, which starts at {}) ends past the file's {} "
            "bytes; the file is truncated: download it again",
            name_, printable(t.info.name), size, t.offset, data, bytes_.size());
      }
      t.offset += data;
    }
    std::vector<std::size_t> order(tensors.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::sort(order.begin(), order.end(),
              [&](std::size_t a, std::size_t b) { return tensors[a].offset < tensors[b].offset; });
    for (std::size_t i = 1; i < order.size(); ++i) {
      const ParsedTensor& before = tensors[order[i - 1]];
      const ParsedTensor& t = tensors[order[i]];
      if (t.offset < before.offset + before.info.bytes()) {
        return make_error(ErrorCode::kCorrupt, "{}: tensors '{}' and '{}' overlap at offset {}", name_,
                          printable(before.info.name), printable(t.info.name), t.offset);
      }
    }
    return {};
  }

  std::span<const std::byte> bytes_;
  std::string name_;
  std::uint64_t pos_ = 0;
};

}  // namespace

Result<ParsedFile> parse_file(const MappedFile& file) { return Parser(file).run(); }

}  // namespace narrow::io::gguf
