#include "io/safetensors/parse.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "io/caps.h"
#include "io/hf_config/json_text.h"
#include "io/printable.h"
#include "io/safetensors/dtype.h"
#include "io/utf8.h"

namespace narrow::io::safetensors {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors values are read as they lie");

constexpr std::uint64_t kPrefixBytes = 8;  // the header's length

// The checks and their order are those of the safetensors library, so that the same defect has the same name.
class Parser {
 public:
  explicit Parser(const MappedFile& file) : bytes_(file.bytes()), file_(file.path().string()) {}

  Result<ParsedFile> run() {
    NARROW_ASSIGN(const std::string_view header, read_header());
    auto json = parse_json(header, file_, DuplicateKeys::kError);
    if (!json.ok()) return Error{json.error().code, "InvalidHeaderDeserialization: " + json.error().message};
    if (!json->is_object())
      return bad_header(fmt::format("the header is a JSON {}, not an object", json->type_name()));
    if (json->size() > caps::kMaxTensors) {
      return bad_header(fmt::format("{} entries; the limit is {}", json->size(), caps::kMaxTensors));
    }
    ParsedFile out;
    std::uint64_t data_bytes = 0;
    for (const auto& [name, entry] : json->get_ref<const Json::object_t&>()) {
      if (name == "__metadata__") {
        NARROW_TRY(read_metadata(entry, out.metadata));
      } else {
        NARROW_TRY(read_tensor(name, entry));
      }
    }
    NARROW_TRY(place_tensors(data_bytes));
    const std::uint64_t available = bytes_.size() - kPrefixBytes - header.size();
    if (data_bytes != available) {
      return make_error(
          ErrorCode::kCorrupt,
          "MetadataIncompleteBuffer: {}: the header describes {} bytes of data, the file holds {}: {}", file_,
          data_bytes, available,
          data_bytes > available ? "it is truncated, download it again"
                                 : "bytes that belong to no tensor are refused");
    }
    for (Declared& d : declared_) {
      out.tensors.push_back({std::move(d.info), 0, kPrefixBytes + header.size() + d.begin});
    }
    std::sort(out.tensors.begin(), out.tensors.end(),
              [](const StoredTensor& a, const StoredTensor& b) { return a.info.name < b.info.name; });
    return out;
  }

 private:
  struct Declared {
    TensorInfo info;
    std::uint64_t begin = 0, end = 0;  // in the data
  };

  Error bad_header(const std::string& what) const {
    return make_error(ErrorCode::kCorrupt, "InvalidHeaderDeserialization: {}: {}", file_, what);
  }

  Result<std::string_view> read_header() const {
    if (bytes_.size() < kPrefixBytes) {
      return make_error(ErrorCode::kCorrupt,
                        "HeaderTooSmall: {}: {} bytes cannot be a safetensors file; download it again", file_,
                        bytes_.size());
    }
    std::uint64_t n = 0;
    std::memcpy(&n, bytes_.data(), sizeof n);
    if (n > caps::kMaxSafetensorsHeaderBytes) {
      return make_error(
          ErrorCode::kCorrupt,
          "HeaderTooLarge: {}: declares a header of {} bytes; the limit is {}: is it a safetensors file?",
          file_, n, caps::kMaxSafetensorsHeaderBytes);
    }
    if (n > bytes_.size() - kPrefixBytes) {
      return make_error(
          ErrorCode::kCorrupt,
          "InvalidHeaderLength: {}: declares a header of {} bytes, but the file has {}: it is truncated, "
          "download it again",
          file_, n, bytes_.size());
    }
    const std::string_view header(reinterpret_cast<const char*>(bytes_.data()) + kPrefixBytes,
                                  static_cast<std::size_t>(n));
    if (!valid_utf8(header)) {
      return make_error(ErrorCode::kCorrupt, "InvalidHeader: {}: the header is not UTF-8", file_);
    }
    return header;
  }

  Status read_metadata(const Json& entry, std::map<std::string, std::string>& metadata) const {
    if (entry.is_null()) return {};
    if (!entry.is_object()) return bad_header("'__metadata__' is not an object");
    for (const auto& [key, value] : entry.get_ref<const Json::object_t&>()) {
      if (!value.is_string())
        return bad_header(fmt::format("'__metadata__' key '{}' is not a string", printable(key)));
      metadata.emplace(key, value.get_ref<const std::string&>());
    }
    return {};
  }

  Status read_tensor(const std::string& name, const Json& entry) {
    const std::string what = fmt::format("tensor '{}'", printable(name));
    if (name.size() > caps::kMaxNameBytes) {
      return bad_header(
          fmt::format("{} has a name of {} bytes; the limit is {}", what, name.size(), caps::kMaxNameBytes));
    }
    if (!entry.is_object()) return bad_header(what + " is not described by an object");
    const auto dtype = entry.find("dtype");
    const auto shape = entry.find("shape");
    const auto offsets = entry.find("data_offsets");
    if (dtype == entry.end() || !dtype->is_string()) return bad_header(what + " has no 'dtype' string");
    if (shape == entry.end() || !shape->is_array()) return bad_header(what + " has no 'shape' list");
    if (offsets == entry.end() || !offsets->is_array() || offsets->size() != 2 ||
        !(*offsets)[0].is_number_unsigned() || !(*offsets)[1].is_number_unsigned()) {
      return bad_header(what + " has no 'data_offsets' of two non-negative integers");
    }
    const auto format = format_of_dtype(dtype->get_ref<const std::string&>());
    if (!format) {
      return make_error(ErrorCode::kUnsupported, "{}: {} has the dtype '{}', which narrow does not read",
                        file_, what, printable(dtype->get_ref<const std::string&>()));
    }
    Declared d;
    std::vector<std::int64_t> dims;
    for (const Json& dim : *shape) {
      if (!dim.is_number_unsigned())
        return bad_header(what + " has a 'shape' item that is not a non-negative integer");
      // A dimension past int64 wraps here; size_of() reports it from the JSON's own value.
      dims.push_back(static_cast<std::int64_t>(dim.get<std::uint64_t>()));
    }
    d.info = TensorInfo{name, *format, Shape(std::move(dims))};
    d.begin = (*offsets)[0].get<std::uint64_t>();
    d.end = (*offsets)[1].get<std::uint64_t>();
    declared_.push_back(std::move(d));
    return {};
  }

  // Bytes that shape and dtype need.
  Result<std::uint64_t> size_of(const TensorInfo& info) const {
    std::uint64_t n = 1;
    bool overflow = false;
    for (const std::int64_t dim : info.shape.dims()) {
      const auto u = static_cast<std::uint64_t>(dim);
      overflow |= __builtin_mul_overflow(n, u, &n);
      overflow |= u > caps::kMaxElements;
    }
    overflow |= n > caps::kMaxElements;
    if (overflow) {
      std::string dims;
      for (const std::int64_t dim : info.shape.dims()) {
        dims += fmt::format("{}{}", dims.empty() ? "" : ", ", static_cast<std::uint64_t>(dim));
      }
      return make_error(ErrorCode::kCorrupt,
                        "ValidationOverflow: {}: tensor '{}' of shape [{}] is over {} elements", file_,
                        printable(info.name), dims, caps::kMaxElements);
    }
    return n * static_cast<std::uint64_t>(format_info(info.format).block_bytes);
  }

  // Tensors must tile the data from its start without gaps.
  Status place_tensors(std::uint64_t& data_bytes) {
    std::sort(declared_.begin(), declared_.end(), [](const Declared& a, const Declared& b) {
      return std::tie(a.begin, a.end, a.info.name) < std::tie(b.begin, b.end, b.info.name);
    });
    std::uint64_t start = 0;
    for (const Declared& d : declared_) {
      const std::string what = fmt::format("tensor '{}'", printable(d.info.name));
      if (d.begin != start || d.end < d.begin) {
        return make_error(
            ErrorCode::kCorrupt,
            "InvalidOffset: {}: {} has the data offsets [{}, {}]; it must start at {}, where the tensor "
            "before ends",
            file_, what, d.begin, d.end, start);
      }
      start = d.end;
      NARROW_ASSIGN(const std::uint64_t need, size_of(d.info));
      if (d.end - d.begin != need) {
        return make_error(
            ErrorCode::kCorrupt,
            "TensorInvalidInfo: {}: {} of shape {} needs {} bytes, but its data offsets [{}, {}] span {}",
            file_, what, d.info.shape.text(), need, d.begin, d.end, d.end - d.begin);
      }
    }
    data_bytes = start;
    return {};
  }

  std::span<const std::byte> bytes_;
  std::string file_;
  std::vector<Declared> declared_;
};

}  // namespace

Result<ParsedFile> parse_file(const MappedFile& file) { return Parser(file).run(); }

}  // namespace narrow::io::safetensors
