#include "pipeline/compressed_tensors.h"

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "base/scalar.h"
#include "formats/q4_0.h"
#include "io/safetensors/writer.h"
#include "model/int8_parts.h"
#include "pipeline/hf_output.h"
#include "pipeline/mixes.h"
#include "pipeline/plan.h"
#include "pipeline/tensor_stream.h"

namespace narrow::pipeline {
namespace {

namespace fs = std::filesystem;
namespace part = model::int8_part;
using model::HfExport;

constexpr std::string_view kWeight = ".weight";
constexpr std::int64_t kGroup = 32;  // q4_0's block

std::string without_weight(const std::string& name) { return name.substr(0, name.size() - kWeight.size()); }

// One tensor of the folder.
struct Entry {
  enum class What : std::uint8_t { kFloats, kCodes, kWeightScale, kInputScale, kInputZero };
  TensorInfo info;
  What what = What::kFloats;
  std::size_t hf = 0;  // of HfExport's tensors
};

class Exporter {
 public:
  Exporter(const model::ModelSource& source, const HfExport& hf, const model::Int8Settings& settings,
           Format floats)
      : source_(source), hf_(hf), settings_(settings), floats_(floats) {}

  Status plan() {
    for (std::size_t i = 0; i < hf_.tensors().size(); ++i) NARROW_TRY(add(i));
    if (!quantized_) {
      return make_error(ErrorCode::kUnsupported, "{}: has no int8 product but the head's",
                        source_.path().string());
    }
    return {};
  }

  const std::vector<Entry>& entries() const { return entries_; }

  io::Json quantization() const {
    io::Json weights = {{"num_bits", settings_.weight_bits},
                        {"type", "int"},
                        {"symmetric", true},
                        {"strategy", settings_.weight_bits == 4 ? "group" : "channel"},
                        {"group_size", nullptr},
                        {"dynamic", false}};
    if (settings_.weight_bits == 4) weights["group_size"] = kGroup;
    const io::Json inputs = {{"num_bits", 8},
                             {"type", "int"},
                             {"symmetric", !settings_.asymmetric},
                             {"strategy", settings_.static_scales ? "tensor" : "token"},
                             {"dynamic", !settings_.static_scales}};
    return {{"quant_method", "compressed-tensors"},
            {"format", "int-quantized"},
            {"quantization_status", "compressed"},
            {"config_groups",
             {{"group_0",
               {{"targets", {"Linear"}},
                {"weights", weights},
                {"input_activations", inputs},
                {"output_activations", nullptr}}}}},
            {"ignore", ignored_},
            {"kv_cache_scheme", nullptr}};
  }

  // All bytes of an entry.
  Status fill(const Entry& e, std::vector<std::byte>& out, StreamStats& stats) {
    out.resize(e.info.bytes());
    switch (e.what) {
      case Entry::What::kFloats:
        NARROW_TRY(floats_of(e));
        break;
      case Entry::What::kCodes:
        return codes_of(e, out);
      case Entry::What::kWeightScale:
        NARROW_TRY(scales_of(e));
        break;
      case Entry::What::kInputScale:
        values_.assign(1, 0.0f);
        NARROW_TRY(input_part(e, part::kInputScale, Format::kF32, values_.data()));
        break;
      case Entry::What::kInputZero: {
        std::int32_t zero = 0;
        NARROW_TRY(input_part(e, part::kInputZero, Format::kI32, &zero));
        out[0] = static_cast<std::byte>(static_cast<std::int8_t>(zero));
        return {};
      }
    }
    const auto n = static_cast<std::int64_t>(values_.size());
    if (const std::int64_t bad = find_non_finite(values_.data(), n); bad >= 0) {
      return non_finite_error(source_.path().string(), e.info, bad, values_[static_cast<std::size_t>(bad)]);
    }
    return cast_values(values_.data(), n, e.info.format, out.data(), scratch_, stats);
  }

 private:
  const TensorInfo& canonical(std::size_t hf_index) const {
    return source_.tensors()[hf_.origin(hf_index).canonical];
  }

  Status add(std::size_t i) {
    using What = Entry::What;
    const TensorInfo& t = hf_.tensors()[i];
    if (!t.name.ends_with(kWeight) || t.shape.rank() != 2) {
      entries_.push_back({{t.name, floats_, t.shape}, What::kFloats, i});
      return {};
    }
    const HfExport::Origin from = hf_.origin(i);
    const TensorInfo& stored = source_.tensors()[from.canonical];
    const Role role = tensor_role(stored.name);
    const bool product =
        stored.format == Format::kI8 || (settings_.weight_bits == 4 && stored.format == Format::kQ4_0);
    const std::string module = without_weight(t.name), stem = without_weight(stored.name);
    if (role == Role::kEmbedding || role == Role::kHead || !product) {
      if (role != Role::kEmbedding && module != ignored_.front()) ignored_.push_back(module);
      entries_.push_back({{t.name, floats_, t.shape}, What::kFloats, i});
      return {};
    }
    if (from.rows.empty()) {
      return make_error(ErrorCode::kUnsupported,
                        "{}: the modules of '{}' are no linear ones in Hugging Face's {}, and "
                        "compressed-tensors knows no others",
                        source_.path().string(), stored.name, source_.config().arch);
    }
    if (source_.find(stem + std::string(part::kOutlierIndex))) {
      return make_error(ErrorCode::kUnsupported,
                        "{}: '{}' keeps outlier columns apart, for which compressed-tensors has no place: "
                        "make the file with `narrow quantize --outliers 0`",
                        source_.path().string(), stored.name);
    }
    quantized_ = true;
    const std::int64_t n = t.shape[0], groups = settings_.weight_bits == 4 ? t.shape[1] / kGroup : 1;
    entries_.push_back({{t.name, Format::kI8, t.shape}, What::kCodes, i});
    entries_.push_back({{module + ".weight_scale", floats_, {n, groups}}, What::kWeightScale, i});
    if (!settings_.static_scales) return {};
    entries_.push_back({{module + ".input_scale", floats_, {1}}, What::kInputScale, i});
    if (!settings_.asymmetric) return {};
    entries_.push_back({{module + ".input_zero_point", Format::kI8, {1}}, What::kInputZero, i});
    return {};
  }

  Status floats_of(const Entry& e) {
    if (e.info.shape.rank() != 2 || canonical(e.hf).format != Format::kI8) return hf_.read_f32(e.hf, values_);
    // The head: codes times their row's scale.
    NARROW_TRY(scales_of(e));
    const std::vector<float> scales = values_;
    std::vector<std::byte> codes(static_cast<std::size_t>(e.info.shape.elements()));
    NARROW_TRY(codes_of(e, codes));
    values_.resize(codes.size());
    const auto k = static_cast<std::size_t>(e.info.shape[1]);
    for (std::size_t i = 0; i < codes.size(); ++i) {
      values_[i] = scales[i / k] * static_cast<float>(static_cast<std::int8_t>(codes[i]));
    }
    return {};
  }

  // As int8, in Hugging Face's order of rows.
  Status codes_of(const Entry& e, std::vector<std::byte>& out) {
    const HfExport::Origin from = hf_.origin(e.hf);
    const auto k = static_cast<std::size_t>(e.info.shape[1]);
    std::vector<std::byte> row(row_bytes(source_.tensors()[from.canonical].format, e.info.shape[1]));
    for (std::size_t r = 0; r < from.rows.size(); ++r) {
      std::byte* to = out.data() + r * k;
      NARROW_TRY(source_.read_raw(from.canonical, from.rows[r], from.rows[r] + 1, row.data()));
      if (settings_.weight_bits == 8) {
        std::memcpy(to, row.data(), k);
        continue;
      }
      for (std::size_t b = 0; b < k / kGroup; ++b) {
        const auto* block = reinterpret_cast<const formats::BlockQ4_0*>(row.data()) + b;
        for (std::size_t j = 0; j < kGroup / 2; ++j) {
          to[b * kGroup + j] = static_cast<std::byte>((block->qs[j] & 15) - 8);
          to[b * kGroup + kGroup / 2 + j] = static_cast<std::byte>((block->qs[j] >> 4) - 8);
        }
      }
    }
    return {};
  }

  Status scales_of(const Entry& e) {
    const HfExport::Origin from = hf_.origin(e.hf);
    const TensorInfo& stored = source_.tensors()[from.canonical];
    values_.clear();
    if (stored.format == Format::kQ4_0) {
      std::vector<std::byte> row(row_bytes(stored.format, stored.shape.row_length()));
      for (const std::int64_t r : from.rows) {
        NARROW_TRY(source_.read_raw(from.canonical, r, r + 1, row.data()));
        for (std::size_t b = 0; b < row.size(); b += sizeof(formats::BlockQ4_0)) {
          values_.push_back(to_f32(reinterpret_cast<const formats::BlockQ4_0*>(row.data() + b)->d));
        }
      }
      return {};
    }
    const std::string name = without_weight(stored.name) + std::string(part::kWeightScale);
    NARROW_ASSIGN(const std::size_t index, require(name, Format::kF32, stored.shape.rows()));
    const TensorInfo& scales = source_.tensors()[index];
    std::vector<float> all(static_cast<std::size_t>(scales.shape.elements()));
    NARROW_TRY(source_.read_f32(index, 0, scales.shape.rows(), all.data()));
    for (const std::int64_t r : from.rows) values_.push_back(all[static_cast<std::size_t>(r)]);
    return {};
  }

  Status input_part(const Entry& e, std::string_view suffix, Format format, void* out) {
    const std::string name = without_weight(canonical(e.hf).name) + std::string(suffix);
    // A zero point that is not there is 0.
    if (format == Format::kI32 && !source_.find(name)) return {};
    NARROW_ASSIGN(const std::size_t index, require(name, format, 1));
    return source_.read_raw(index, 0, 1, static_cast<std::byte*>(out));
  }

  Result<std::size_t> require(const std::string& name, Format format, std::int64_t elements) const {
    const std::optional<std::size_t> index = source_.find(name);
    if (index && source_.tensors()[*index].format == format &&
        source_.tensors()[*index].shape.elements() == elements) {
      return *index;
    }
    return make_error(ErrorCode::kCorrupt, "{}: tensor '{}' ({}, {} values) is missing or of another shape",
                      source_.path().string(), name, format_info(format).name, elements);
  }

  const model::ModelSource& source_;
  const HfExport& hf_;
  const model::Int8Settings& settings_;
  Format floats_;
  std::vector<Entry> entries_;
  std::vector<std::string> ignored_ = {"lm_head"};  // a tied one has no tensor, but may be a module
  bool quantized_ = false;
  std::vector<float> values_;
  AlignedBuffer<float> scratch_;
};

}  // namespace

Result<ConvertReport> write_compressed_tensors(std::shared_ptr<const model::ModelSource> source,
                                               const fs::path& output, std::optional<Format> type,
                                               std::uint64_t shard_max_bytes, ProgressSink& progress) {
  const std::string name = source->path().string();
  std::optional<model::Int8Settings> settings;
  if (source->is_gguf()) {
    NARROW_ASSIGN(const io::gguf::Metadata metadata, source->gguf_metadata());
    NARROW_ASSIGN(settings, model::int8_settings(metadata, name));
  }
  if (!settings) {
    return make_error(
        ErrorCode::kUnsupported,
        "{}: holds no int8 products, and only those become a compressed-tensors folder: make it "
        "with `narrow quantize --type w8a8`",
        name);
  }
  const Format floats = type.value_or(Format::kF32);
  NARROW_ASSIGN(const auto hf, HfExport::create(source));
  Exporter exporter(*source, *hf, *settings, floats);
  NARROW_TRY(exporter.plan());
  std::vector<TensorInfo> infos;
  std::uint64_t total = 0, done = 0;
  for (const Entry& e : exporter.entries()) {
    infos.push_back(e.info);
    total += e.info.bytes();
  }
  NARROW_ASSIGN(TempFolder folder, TempFolder::create(output));
  NARROW_TRY(check_free_disk(folder.path(), total));

  ConvertReport report;
  NARROW_TRY(write_hf_sides(*source, hf->config_json(torch_dtype(floats)), exporter.quantization(),
                            folder.path(), report));
  io::safetensors::WriterOptions options;
  if (shard_max_bytes > 0) options.shard_max_bytes = shard_max_bytes;
  NARROW_ASSIGN(const auto writer, io::safetensors::Writer::create(folder.path(), infos, options));
  progress.begin("convert", total / 1'000'000, "MB");
  std::vector<std::byte> bytes;
  for (std::size_t i = 0; i < infos.size(); ++i) {
    if (progress.cancelled()) {
      return make_error(ErrorCode::kCancelled, "cancelled while working on {}; nothing was written",
                        infos[i].name);
    }
    StreamStats stats;
    NARROW_TRY(exporter.fill(exporter.entries()[i], bytes, stats));
    NARROW_TRY(writer->write(i, 0, bytes));
    report.overflowed += stats.overflowed;
    report.flushed += stats.flushed;
    report.bytes += bytes.size();
    done += bytes.size();
    progress.update(done / 1'000'000, infos[i].name);
  }
  NARROW_TRY(writer->finish());
  progress.end();
  report.tensors = infos.size();
  if (floats != Format::kF32) {
    report.notes.push_back(
        fmt::format("scales are rounded to {}: f32 keeps those of {}", format_info(floats).name, name));
  }
  NARROW_TRY(commit_hf_folder(folder, output, report));
  return report;
}

}  // namespace narrow::pipeline
