#include "pipeline/convert.h"

#include <algorithm>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "io/gguf/writer.h"
#include "model/source.h"
#include "pipeline/compressed_tensors.h"
#include "pipeline/hf_output.h"
#include "pipeline/int8_file.h"
#include "pipeline/mixes.h"
#include "pipeline/plan.h"
#include "pipeline/provenance.h"
#include "pipeline/tensor_stream.h"

namespace narrow::pipeline {
namespace {

bool wants_gguf(const std::filesystem::path& output) {
  std::string ending = output.extension().string();
  for (char& c : ending) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return ending == ".gguf";
}

Result<std::optional<Format>> parse_type(const std::string& name) {
  if (name.empty()) return std::optional<Format>();
  const FormatInfo* f = find_format(name);
  if (f != nullptr &&
      (f->format == Format::kF32 || f->format == Format::kF16 || f->format == Format::kBF16)) {
    return std::optional<Format>(f->format);
  }
  return make_error(
      ErrorCode::kInvalidArgument,
      "convert writes f32, f16 or bf16, not '{}'; `narrow quantize --type {}` is for other types", name,
      name);
}

Format gguf_format(const TensorInfo& t, std::optional<Format> type, bool from_gguf) {
  const FormatInfo& f = format_info(t.format);
  if (f.kind == FormatKind::kInteger) return t.format;
  if (model::is_quantizable(t)) {
    if (type) return *type;
    const bool usable = f.kind == FormatKind::kQuantized || t.format == Format::kF32 ||
                        t.format == Format::kF16 || t.format == Format::kBF16;
    return usable ? t.format : Format::kF32;
  }
  // Small and sensitive; llama.cpp's operations on them take f32 only.
  return from_gguf && !type ? t.format : Format::kF32;
}

// general.file_type of what most weights are stored in.
std::uint32_t file_type(const std::vector<TensorInfo>& tensors) {
  std::map<Format, std::int64_t> weights;
  for (const TensorInfo& t : tensors) {
    if (model::is_quantizable(t)) weights[t.format] += t.shape.elements();
  }
  if (weights.empty()) return 0;
  const Format most = std::max_element(weights.begin(), weights.end(), [](const auto& a, const auto& b) {
                        return a.second < b.second;
                      })->first;
  const auto mixes = all_mixes();
  const auto mix = std::find_if(mixes.begin(), mixes.end(), [&](const Mix& m) { return m.base == most; });
  return mix == mixes.end() ? 0 : mix->file_type;
}

Result<ConvertReport> write_gguf(const model::ModelSource& source, const ConvertOptions& o,
                                 std::optional<Format> type, nlohmann::ordered_json recipe,
                                 ProgressSink& progress) {
  NARROW_TRY(refuse_same_file(o.source, o.output));
  NARROW_TRY(check_output_path(o.output, true));
  std::vector<TensorInfo> outputs = source.tensors();
  std::uint64_t total = 0;
  bool quantized = false;
  for (TensorInfo& t : outputs) {
    total += t.bytes();
    t.format = gguf_format(t, type, source.is_gguf());
    quantized = quantized || format_info(t.format).kind == FormatKind::kQuantized;
  }
  NARROW_ASSIGN(io::gguf::Metadata metadata, base_metadata(source, progress));
  metadata.set_u32("general.file_type", file_type(outputs));
  if (quantized) metadata.set_u32("general.quantization_version", kQuantizationVersion);
  if (type) recipe["type"] = format_info(*type).name;
  io::gguf::WriterOptions options;
  options.split_max_bytes = o.split_max_bytes;
  NARROW_TRY(check_free_disk(o.output, io::gguf::planned_file_bytes(metadata, outputs, options)));
  NARROW_ASSIGN(const std::string digest, source.digest());
  add_provenance(o.source, digest, recipe.dump(), metadata);
  NARROW_ASSIGN(const auto writer, io::gguf::Writer::create(o.output, metadata, outputs, options));
  for (const auto& path : writer->paths()) NARROW_TRY(refuse_same_file(o.source, path));

  ConvertReport report;
  TensorStream stream(source, nullptr, true, progress);
  progress.begin("convert", total / 1'000'000, "MB");
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    StreamStats stats;
    const auto write = [&](std::uint64_t offset, std::span<const std::byte> data) {
      return writer->write(i, offset, data);
    };
    NARROW_TRY(stream.run(i, outputs[i].format, write, stats));
    report.overflowed += stats.overflowed;
    report.flushed += stats.flushed;
  }
  NARROW_TRY(writer->finish());
  progress.end();
  report.files = writer->paths();
  report.bytes = writer->file_bytes();
  report.tensors = outputs.size();
  return report;
}

Status check_options(const ConvertOptions& o) {
  NARROW_TRY(parse_type(o.type).status());
  if (!o.output.empty()) return {};
  return make_error(ErrorCode::kInvalidArgument, "no output given: say -o FILE.gguf, or -o FOLDER");
}

}  // namespace

Result<ConvertReport> run_convert(const ConvertOptions& o, ProgressSink& progress) {
  NARROW_TRY(check_options(o));  // wrong usage first: nothing is read yet
  NARROW_ASSIGN(const auto source, model::ModelSource::open(o.source));
  return convert_source(source, o, {{"command", "convert"}}, progress);
}

Result<ConvertReport> convert_source(const std::shared_ptr<const model::ModelSource>& source,
                                     const ConvertOptions& o, const nlohmann::ordered_json& recipe,
                                     ProgressSink& progress) {
  NARROW_TRY(check_options(o));
  NARROW_ASSIGN(const std::optional<Format> type, parse_type(o.type));
  const bool gguf = wants_gguf(o.output);
  const Status int8 = refuse_int8_file(*source);
  if (gguf) NARROW_TRY(int8);
  auto report = gguf        ? write_gguf(*source, o, type, recipe, progress)
                : int8.ok() ? write_hf_folder(source, o.output, type, o.split_max_bytes, progress)
                            : write_compressed_tensors(source, o.output, type, o.split_max_bytes, progress);
  if (!report.ok()) return report;
  const std::string_view name = type ? format_info(*type).name : "the type";
  if (report->overflowed > 0) {
    report->notes.push_back(
        fmt::format("{} values are too large for {} and became infinite: bf16 and f32 hold them",
                    report->overflowed, name));
  }
  if (report->flushed > 0) {
    report->notes.push_back(
        fmt::format("{} values are too small for {} and became zero", report->flushed, name));
  }
  return report;
}

}  // namespace narrow::pipeline
