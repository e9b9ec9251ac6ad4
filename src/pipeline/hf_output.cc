#include "pipeline/hf_output.h"

#include <unistd.h>

#include <algorithm>
#include <set>
#include <system_error>
#include <vector>

#include "base/atomic_file.h"
#include "io/caps.h"
#include "io/hf_config/hf_folder.h"
#include "io/safetensors/writer.h"
#include "io/tokenizer/tokenizer_files.h"
#include "pipeline/plan.h"
#include "pipeline/tensor_stream.h"

namespace narrow::pipeline {
namespace {

namespace fs = std::filesystem;

// What a folder may hold beside weights and config.json; copied as it is from one folder to another.
constexpr std::string_view kSideFiles[] = {
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
};

Status write_text(const fs::path& path, std::string_view text) {
  NARROW_ASSIGN(AtomicFile file, AtomicFile::create(path));
  NARROW_TRY(file.write(text));
  return file.commit();
}

Status write_json(const fs::path& path, const io::Json& json) {
  return write_text(path, json.dump(2, ' ', false, io::Json::error_handler_t::replace) + "\n");
}

Format folder_format(Format stored, std::optional<Format> type) {
  if (format_info(stored).kind == FormatKind::kInteger) return stored;
  if (type) return *type;
  switch (stored) {
    case Format::kF32:
    case Format::kF16:
    case Format::kBF16:
      return stored;
    default:
      return Format::kF32;
  }
}

// The type that most of the weights have.
Format main_format(const std::vector<TensorInfo>& tensors) {
  std::map<Format, std::int64_t> weights;
  for (const TensorInfo& t : tensors) weights[t.format] += t.shape.elements();
  return std::max_element(weights.begin(), weights.end(),
                          [](const auto& a, const auto& b) { return a.second < b.second; })
      ->first;
}

void add_token_ids(const text::TokenizerSpec& spec, io::Json& json) {
  if (spec.bos) json["bos_token_id"] = *spec.bos;
  if (spec.end_tokens.size() > 1) {
    json["eos_token_id"] = spec.end_tokens;
  } else if (spec.eos) {
    json["eos_token_id"] = *spec.eos;
  }
  if (spec.pad) json["pad_token_id"] = *spec.pad;
}

Status write_tokenizer(const fs::path& folder, const text::TokenizerSpec& spec) {
  NARROW_ASSIGN(const io::Json tokenizer, io::tokenizer_spec_to_json(spec));
  NARROW_TRY(write_json(folder / "tokenizer.json", tokenizer));
  NARROW_TRY(write_json(folder / "tokenizer_config.json", io::tokenizer_spec_to_config_json(spec)));
  io::Json generation;
  add_token_ids(spec, generation);
  if (generation.empty()) return {};
  return write_json(folder / "generation_config.json", generation);
}

Status copy_side_files(const fs::path& from, const fs::path& to) {
  for (const std::string_view name : kSideFiles) {
    std::error_code ec;
    if (!fs::exists(from / name, ec)) continue;
    NARROW_ASSIGN(const std::string text, read_text_file(from / name, io::caps::kMaxJsonBytes));
    NARROW_TRY(write_text(to / name, text));
  }
  return {};
}

Status write_weights(const model::HfExport& hf, const std::string& source_name,
                     const std::vector<TensorInfo>& infos, const fs::path& folder,
                     std::uint64_t shard_max_bytes, ProgressSink& progress, ConvertReport& report) {
  io::safetensors::WriterOptions options;
  if (shard_max_bytes > 0) options.shard_max_bytes = shard_max_bytes;
  NARROW_ASSIGN(const auto writer, io::safetensors::Writer::create(folder, infos, options));
  std::uint64_t total = 0, done = 0;
  for (const TensorInfo& t : infos) total += t.bytes();
  progress.begin("convert", total / 1'000'000, "MB");
  std::vector<float> values;
  AlignedBuffer<float> scratch;
  AlignedBuffer<std::byte> bytes;
  for (std::size_t i = 0; i < infos.size(); ++i) {
    if (progress.cancelled()) {
      return make_error(ErrorCode::kCancelled, "cancelled while working on {}; nothing was written",
                        infos[i].name);
    }
    NARROW_TRY(hf.read_f32(i, values));
    const auto n = static_cast<std::int64_t>(values.size());
    if (const std::int64_t bad = find_non_finite(values.data(), n); bad >= 0) {
      return non_finite_error(source_name, infos[i], bad, values[static_cast<std::size_t>(bad)]);
    }
    StreamStats stats;
    bytes.reserve_at_least(infos[i].bytes());
    NARROW_TRY(cast_values(values.data(), n, infos[i].format, bytes.data(), scratch, stats));
    NARROW_TRY(writer->write(i, 0, {bytes.data(), infos[i].bytes()}));
    report.overflowed += stats.overflowed;
    report.flushed += stats.flushed;
    report.bytes += infos[i].bytes();
    done += infos[i].bytes();
    progress.update(done / 1'000'000, infos[i].name);
  }
  NARROW_TRY(writer->finish());
  progress.end();
  return {};
}

}  // namespace

std::string_view torch_dtype(Format f) {
  switch (f) {
    case Format::kF16:
      return "float16";
    case Format::kBF16:
      return "bfloat16";
    default:
      return "float32";
  }
}

Result<TempFolder> TempFolder::create(const fs::path& final_path) {
  std::error_code ec;
  const fs::path target = final_path.has_filename() ? final_path : final_path.parent_path();
  if (fs::exists(target, ec) && !fs::is_directory(target, ec)) {
    return make_error(ErrorCode::kInvalidArgument,
                      "output {} is a file: name a new folder, or a file that ends in .gguf",
                      final_path.string());
  }
  if (fs::is_directory(target, ec) && !fs::is_empty(target, ec)) {
    return make_error(ErrorCode::kRefused, "output folder {} is not empty: name a new one",
                      final_path.string());
  }
  const fs::path parent = target.parent_path();
  if (!parent.empty() && !fs::is_directory(parent, ec)) {
    return make_error(ErrorCode::kNotFound, "the folder {} for output {} does not exist: make it first",
                      parent.string(), final_path.string());
  }
  fs::path temp = target;
  temp += fmt::format(".tmp-{}", ::getpid());
  if (!fs::create_directory(temp, ec)) {
    return make_error(ErrorCode::kIo, "cannot make the folder {}: {}", temp.string(),
                      ec ? ec.message() : "it exists already");
  }
  return TempFolder(std::move(temp), target);
}

TempFolder::TempFolder(TempFolder&& o) noexcept : temp_(std::move(o.temp_)), final_(std::move(o.final_)) {
  o.temp_.clear();
}

TempFolder::~TempFolder() {
  std::error_code ec;
  if (!temp_.empty()) fs::remove_all(temp_, ec);
}

Status TempFolder::commit() {
  std::error_code ec;
  fs::rename(temp_, final_, ec);  // also over an empty folder
  if (ec)
    return make_error(ErrorCode::kIo, "cannot rename {} to {}: {}", temp_.string(), final_.string(),
                      ec.message());
  temp_.clear();
  return {};
}

Status write_hf_sides(const model::ModelSource& source, const std::string& config_json,
                      const io::Json& quantization, const fs::path& folder, ConvertReport& report) {
  const std::string name = source.path().string();
  io::Json config = io::Json::parse(config_json, nullptr, false);
  if (!config.is_object()) return make_error(ErrorCode::kInternal, "config.json of {} is no JSON", name);
  if (source.is_gguf()) {
    NARROW_ASSIGN(const io::gguf::Metadata metadata, source.gguf_metadata());
    const std::string kind = metadata.get_string("tokenizer.ggml.model").value_or("none");
    if (kind == "none" || kind == "no_vocab") {
      report.notes.push_back(fmt::format("{}: no tokenizer in it: the folder gets none", name));
    } else {
      NARROW_ASSIGN(const text::TokenizerSpec spec, io::tokenizer_spec_from_gguf(metadata));
      NARROW_TRY(write_tokenizer(folder, spec));
      add_token_ids(spec, config);
    }
  } else {
    NARROW_TRY(copy_side_files(source.path(), folder));
  }
  if (!quantization.is_null()) config["quantization_config"] = quantization;
  return write_json(folder / "config.json", config);
}

Status commit_hf_folder(TempFolder& folder, const fs::path& output, ConvertReport& report) {
  std::set<fs::path> names;  // sorted
  for (const auto& entry : fs::directory_iterator(folder.path())) names.insert(entry.path().filename());
  NARROW_TRY(folder.commit());
  for (const fs::path& name : names) report.files.push_back(output / name);
  return {};
}

Result<ConvertReport> write_hf_folder(std::shared_ptr<const model::ModelSource> source,
                                      const fs::path& output, std::optional<Format> type,
                                      std::uint64_t shard_max_bytes, ProgressSink& progress) {
  NARROW_ASSIGN(const auto hf, model::HfExport::create(source));
  std::vector<TensorInfo> infos = hf->tensors();
  if (infos.empty())
    return make_error(ErrorCode::kUnsupported, "{}: no tensors to convert", source->path().string());
  std::uint64_t needed = 0;
  for (TensorInfo& t : infos) {
    t.format = folder_format(t.format, type);
    needed += t.bytes();
  }
  NARROW_ASSIGN(TempFolder folder, TempFolder::create(output));
  NARROW_TRY(check_free_disk(folder.path(), needed));

  ConvertReport report;
  NARROW_TRY(write_hf_sides(*source, hf->config_json(torch_dtype(main_format(infos))), nullptr, folder.path(),
                            report));
  NARROW_TRY(
      write_weights(*hf, source->path().string(), infos, folder.path(), shard_max_bytes, progress, report));
  report.tensors = infos.size();

  NARROW_TRY(commit_hf_folder(folder, output, report));
  return report;
}

}  // namespace narrow::pipeline
