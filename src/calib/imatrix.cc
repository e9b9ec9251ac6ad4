#include "calib/imatrix.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <span>

#include "base/atomic_file.h"
#include "base/mapped_file.h"
#include "io/caps.h"
#include "io/gguf/reader.h"
#include "io/gguf/writer.h"
#include "io/printable.h"

namespace narrow::calib {
namespace {

namespace fs = std::filesystem;
namespace gguf = io::gguf;
static_assert(std::endian::native == std::endian::little);  // .dat files are read and written as they are

constexpr std::string_view kSquares = ".in_sum2", kCounts = ".counts", kSums = ".in_sum",
                           kAbsMax = ".in_abs_max";
constexpr std::string_view kType = "general.type", kDatasets = "imatrix.datasets",
                           kChunks = "imatrix.chunk_count", kChunkTokens = "imatrix.chunk_size";
constexpr std::int64_t kUsualChunk = 512;
constexpr std::size_t kMaxExperts = 1u << 16;  // of one matrix

std::int64_t chunk_tokens(const ModelStats& stats) {
  return stats.chunk_tokens > 0 ? stats.chunk_tokens : kUsualChunk;
}

// ---- GGUF

struct Output {
  TensorInfo info;
  std::vector<float> values;
};

// One member of all entries of a matrix, one after the other.
template <class Get>
void add_output(const std::string& name, const std::vector<InputStats>& entries, std::int64_t width, Get get,
                std::vector<Output>& out) {
  Output o;
  for (const InputStats& s : entries) {
    for (std::int64_t i = 0; i < width; ++i) o.values.push_back(get(s, static_cast<std::size_t>(i)));
  }
  const auto n = static_cast<std::int64_t>(entries.size());
  o.info = {name, Format::kF32, n == 1 ? Shape{width} : Shape{n, width}};
  out.push_back(std::move(o));
}

Status write_gguf(const ModelStats& stats, const fs::path& path) {
  gguf::Metadata metadata;
  metadata.set_string(std::string(kType), "imatrix");
  metadata.set_strings(std::string(kDatasets), stats.datasets);
  metadata.set_u32(std::string(kChunks),
                   static_cast<std::uint32_t>(std::min<std::int64_t>(stats.chunks, INT32_MAX)));
  metadata.set_u32(std::string(kChunkTokens), static_cast<std::uint32_t>(chunk_tokens(stats)));
  std::vector<Output> outputs;
  for (const auto& item : stats.inputs) {  // clang 14 cannot capture structured bindings
    const std::string& name = item.first;
    const std::vector<InputStats>& entries = item.second;
    const std::int64_t k = entries[0].k;
    const auto known = [&](auto member) {
      return std::none_of(entries.begin(), entries.end(),
                          [&](const InputStats& s) { return s.rows > 0 && (s.*member).empty(); });
    };
    add_output(
        name + std::string(kSquares), entries, k,
        [](const InputStats& s, std::size_t i) { return s.rows > 0 ? to_float(s.sum_square[i]) : 0.0f; },
        outputs);
    add_output(
        name + std::string(kCounts), entries, 1,
        [](const InputStats& s, std::size_t) { return static_cast<float>(s.rows); }, outputs);
    if (known(&InputStats::sum)) {
      add_output(
          name + std::string(kSums), entries, k,
          [](const InputStats& s, std::size_t i) { return s.rows > 0 ? static_cast<float>(s.sum[i]) : 0.0f; },
          outputs);
    }
    if (known(&InputStats::abs_max)) {
      add_output(
          name + std::string(kAbsMax), entries, k,
          [](const InputStats& s, std::size_t i) { return s.rows > 0 ? s.abs_max[i] : 0.0f; }, outputs);
    }
  }
  std::vector<TensorInfo> infos;
  for (const Output& o : outputs) infos.push_back(o.info);
  NARROW_ASSIGN(const auto writer, gguf::Writer::create(path, metadata, infos));
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    NARROW_TRY(writer->write(i, 0, std::as_bytes(std::span(outputs[i].values))));
  }
  return writer->finish();
}

class GgufImatrix {
 public:
  static Result<ModelStats> read(const fs::path& path) {
    NARROW_ASSIGN(const gguf::Reader reader, gguf::Reader::open(path));
    return GgufImatrix(reader, path.string()).stats();
  }

 private:
  GgufImatrix(const gguf::Reader& reader, std::string file) : reader_(reader), file_(std::move(file)) {}

  Result<ModelStats> stats() const {
    const gguf::Metadata& m = reader_.metadata();
    ModelStats out;
    for (const gguf::StoredTensor& t : reader_.tensors()) {
      const std::string& name = t.info.name;
      if (name.ends_with(kSquares)) {
        std::string matrix = name.substr(0, name.size() - kSquares.size());
        NARROW_ASSIGN(out.inputs[matrix], entries(matrix));
      } else if (name.ends_with(kCounts)) {
        NARROW_ASSIGN(const auto* other,
                      half(name.substr(0, name.size() - kCounts.size()) + std::string(kSquares)));
        static_cast<void>(other);
      }
    }
    if (out.inputs.empty()) {
      const std::string type = m.get_string(kType).value_or("model");
      return make_error(
          ErrorCode::kInvalidArgument,
          "{}: no statistics in it (general.type is '{}'): give a file of `narrow calibrate` or "
          "llama-imatrix",
          file_, io::printable(type));
    }
    if (const auto* names = m.get_strings(kDatasets)) out.datasets = *names;
    out.chunks = std::clamp<std::int64_t>(m.get_int(kChunks).value_or(0), 0, INT32_MAX);
    out.chunk_tokens = std::clamp<std::int64_t>(m.get_int(kChunkTokens).value_or(0), 0, INT32_MAX);
    if (out.chunk_tokens == 0) out.chunk_tokens = kUsualChunk;
    return out;
  }

  Result<const gguf::StoredTensor*> half(const std::string& name) const {
    const gguf::StoredTensor* t = reader_.find(name);
    if (t == nullptr) {
      return make_error(ErrorCode::kCorrupt, "{}: '{}' is missing: the file is damaged, calibrate again",
                        file_, io::printable(name));
    }
    return t;
  }

  Result<std::vector<float>> values(const gguf::StoredTensor& t) const {
    if (t.info.format != Format::kF32) {
      return make_error(ErrorCode::kCorrupt, "{}: '{}' is stored as {}, statistics are f32", file_,
                        io::printable(t.info.name), format_info(t.info.format).name);
    }
    std::vector<float> x(static_cast<std::size_t>(t.info.shape.elements()));
    std::memcpy(x.data(), reader_.view(t).data, x.size() * sizeof(float));
    for (std::size_t i = 0; i < x.size(); ++i) {
      const bool may_be_negative = t.info.name.ends_with(kSums);
      if (!std::isfinite(x[i]) || (x[i] < 0.0f && !may_be_negative)) {
        return make_error(ErrorCode::kNumeric,
                          "{}: '{}' has {} at index {}: the statistics are damaged, calibrate again", file_,
                          io::printable(t.info.name), x[i], i);
      }
    }
    return x;
  }

  // The values of a matrix's tensor that may be absent.
  Result<std::vector<float>> optional_values(const std::string& name, std::size_t n) const {
    const gguf::StoredTensor* t = reader_.find(name);
    if (t == nullptr) return std::vector<float>();
    NARROW_ASSIGN(std::vector<float> x, values(*t));
    if (x.size() != n) {
      return make_error(ErrorCode::kCorrupt, "{}: '{}' has {} values beside {} sums of squares", file_,
                        io::printable(name), x.size(), n);
    }
    return x;
  }

  Result<std::vector<InputStats>> entries(const std::string& matrix) const {
    const std::string squares_name = matrix + std::string(kSquares),
                      counts_name = matrix + std::string(kCounts);
    NARROW_ASSIGN(const auto* squares_tensor, half(squares_name));
    NARROW_ASSIGN(const auto* counts_tensor, half(counts_name));
    NARROW_ASSIGN(const std::vector<float> squares, values(*squares_tensor));
    NARROW_ASSIGN(const std::vector<float> counts, values(*counts_tensor));
    if (squares.empty() || counts.empty() || squares.size() % counts.size() != 0 ||
        counts.size() > kMaxExperts) {
      return make_error(ErrorCode::kCorrupt, "{}: '{}' has {} values for the {} counts of '{}'", file_,
                        io::printable(squares_name), squares.size(), counts.size(),
                        io::printable(counts_name));
    }
    NARROW_ASSIGN(const auto sums, optional_values(matrix + std::string(kSums), squares.size()));
    NARROW_ASSIGN(const auto abs_max, optional_values(matrix + std::string(kAbsMax), squares.size()));
    const std::size_t k = squares.size() / counts.size();
    std::vector<InputStats> out(counts.size());
    for (std::size_t e = 0; e < counts.size(); ++e) {
      InputStats& s = out[e];
      s.k = static_cast<std::int64_t>(k);
      // Past 2^53 a count means nothing.
      s.rows = std::llround(std::min(counts[e], 9e15f));
      const auto part = [&](const std::vector<float>& x, auto& to) {
        if (x.empty()) return;
        const auto from = x.begin() + static_cast<std::ptrdiff_t>(e * k);
        to.assign(from, from + static_cast<std::ptrdiff_t>(k));
      };
      part(squares, s.sum_square);
      part(sums, s.sum);
      part(abs_max, s.abs_max);
    }
    return out;
  }

  const gguf::Reader& reader_;
  std::string file_;
};

// ---- .dat: int32 entries; per entry int32 length, name, int32 calls, int32 values, float[values];
// then int32 windows, int32 length, name of the text.

class DatOutput {
 public:
  void put(std::int64_t x) {
    const auto narrow = static_cast<std::int32_t>(std::clamp<std::int64_t>(x, 0, INT32_MAX));
    bytes_.append(reinterpret_cast<const char*>(&narrow), sizeof(narrow));
  }
  void put(const std::string& text) {
    put(static_cast<std::int64_t>(text.size()));
    bytes_ += text;
  }
  void put(const std::vector<float>& x) {
    put(static_cast<std::int64_t>(x.size()));
    bytes_.append(reinterpret_cast<const char*>(x.data()), x.size() * sizeof(float));
  }
  std::string_view bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

Status write_dat(const ModelStats& stats, const fs::path& path) {
  const auto rows_of = [](const std::vector<InputStats>& entries) {
    std::int64_t rows = 0;
    for (const InputStats& s : entries) rows = std::max(rows, s.rows);
    return rows;
  };
  const auto count = std::count_if(stats.inputs.begin(), stats.inputs.end(),
                                   [&](const auto& item) { return rows_of(item.second) > 0; });
  DatOutput out;
  out.put(static_cast<std::int64_t>(count));
  for (const auto& [name, entries] : stats.inputs) {
    if (rows_of(entries) == 0) continue;
    const std::int64_t chunk = chunk_tokens(stats), calls = (rows_of(entries) + chunk - 1) / chunk;
    out.put(name);
    out.put(calls);
    std::vector<float> values;
    for (const InputStats& s : entries) {
      for (const double square : s.sum_square) {
        const double mean = s.rows > 0 ? square / static_cast<double>(s.rows) : 1.0;
        values.push_back(to_float(mean * static_cast<double>(calls)));
      }
    }
    out.put(values);
  }
  out.put(stats.chunks);
  out.put(stats.datasets.empty() ? std::string() : stats.datasets.back());
  NARROW_ASSIGN(AtomicFile file, AtomicFile::create(path));
  NARROW_TRY(file.write(out.bytes()));
  return file.commit();
}

class DatImatrix {
 public:
  DatImatrix(std::span<const std::byte> bytes, std::string file) : rest_(bytes), file_(std::move(file)) {}

  Result<ModelStats> read() {
    ModelStats out;
    out.chunk_tokens = kUsualChunk;
    std::int32_t n = 0;
    // The least that an entry takes tells a text file from an importance matrix.
    constexpr std::int64_t kLeastEntry = 4 + 1 + 4 + 4 + 4;
    if (!get(n) || n < 1 || n > static_cast<std::int64_t>(rest_.size()) / kLeastEntry) {
      return make_error(
          ErrorCode::kInvalidArgument,
          "{}: neither a GGUF nor a .dat importance matrix: give a file of `narrow calibrate` or "
          "llama-imatrix, or a text with --text",
          file_);
    }
    for (std::int32_t i = 0; i < n; ++i) NARROW_TRY(entry(i, n, out));
    std::int32_t chunks = 0, length = 0;
    if (get(chunks)) out.chunks = std::max(chunks, 0);
    if (get(length) && length > 0 && static_cast<std::size_t>(length) <= rest_.size()) {
      out.datasets.push_back(text(static_cast<std::size_t>(length)));
    }
    return out;
  }

 private:
  bool get(std::int32_t& x) {
    if (rest_.size() < sizeof(x)) return false;
    std::memcpy(&x, rest_.data(), sizeof(x));
    rest_ = rest_.subspan(sizeof(x));
    return true;
  }
  std::string text(std::size_t n) {
    std::string s(reinterpret_cast<const char*>(rest_.data()), n);
    rest_ = rest_.subspan(n);
    return s;
  }
  Error cut_off(std::int32_t i, std::int32_t n) const {
    return make_error(ErrorCode::kCorrupt, "{}: ends within entry {} of {}: the file is cut off or damaged",
                      file_, i + 1, n);
  }

  Status entry(std::int32_t i, std::int32_t n, ModelStats& out) {
    std::int32_t length = 0, calls = 0, count = 0;
    if (!get(length) || length < 1 || length > static_cast<std::int64_t>(io::caps::kMaxNameBytes) ||
        static_cast<std::size_t>(length) > rest_.size()) {
      return cut_off(i, n);
    }
    const std::string name = text(static_cast<std::size_t>(length));
    if (!get(calls) || !get(count) || count < 1 ||
        static_cast<std::size_t>(count) > rest_.size() / sizeof(float)) {
      return cut_off(i, n);
    }
    if (out.inputs.contains(name)) {
      return make_error(ErrorCode::kCorrupt, "{}: '{}' is there twice", file_, io::printable(name));
    }
    InputStats s;
    s.k = count;
    s.rows = std::max<std::int64_t>(calls, 0) * kUsualChunk;
    std::vector<float> values(static_cast<std::size_t>(count));
    std::memcpy(values.data(), rest_.data(), values.size() * sizeof(float));
    rest_ = rest_.subspan(values.size() * sizeof(float));
    for (std::size_t j = 0; j < values.size(); ++j) {
      if (!std::isfinite(values[j]) || values[j] < 0.0f) {
        return make_error(ErrorCode::kNumeric,
                          "{}: '{}' has {} at index {}: the statistics are damaged, calibrate again", file_,
                          io::printable(name), values[j], j);
      }
      s.sum_square.push_back(static_cast<double>(values[j]) * kUsualChunk);
    }
    out.inputs[name].push_back(std::move(s));
    return {};
  }

  std::span<const std::byte> rest_;
  std::string file_;
};

}  // namespace

Status write_imatrix(const ModelStats& stats, const fs::path& path, ImatrixFormat format) {
  const bool any = std::any_of(stats.inputs.begin(), stats.inputs.end(), [](const auto& item) {
    return std::any_of(item.second.begin(), item.second.end(),
                       [](const InputStats& s) { return s.rows > 0; });
  });
  if (!any) {
    return make_error(ErrorCode::kInvalidArgument,
                      "{}: no matrix has statistics to write: calibrate on more text", path.string());
  }
  return format == ImatrixFormat::kGguf ? write_gguf(stats, path) : write_dat(stats, path);
}

Result<ModelStats> read_imatrix(const fs::path& path) {
  if (gguf::Reader::is_gguf(path)) return GgufImatrix::read(path);
  NARROW_ASSIGN(const MappedFile file, MappedFile::open(path));
  return DatImatrix(file.bytes(), path.string()).read();
}

}  // namespace narrow::calib
