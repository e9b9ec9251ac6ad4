#include "pipeline/trained_file.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "formats/format.h"
#include "io/gguf/reader.h"
#include "io/gguf/split_name.h"
#include "io/gguf/writer.h"
#include "io/printable.h"
#include "pipeline/plan.h"
#include "pipeline/provenance.h"
#include "pipeline/tensor_stream.h"

namespace narrow::pipeline {
namespace {

namespace fs = std::filesystem;

// Which of `trained` each tensor of the file is replaced by; null: kept.
using Replacements = std::map<std::string, const TrainedTensor*, std::less<>>;

Result<Replacements> match(const io::gguf::Reader& start, const fs::path& path,
                           std::span<const TrainedTensor> trained) {
  Replacements out;
  for (const TrainedTensor& t : trained) {
    const io::gguf::StoredTensor* stored = start.find(t.name);
    if (stored == nullptr) {
      return make_error(ErrorCode::kNotFound, "{}: has no tensor '{}' to replace by a trained one",
                        path.string(), io::printable(t.name));
    }
    const TensorInfo& info = stored->info;
    if (t.bytes.size() != info.bytes()) {
      return make_error(ErrorCode::kInvalidArgument,
                        "{}: tensor '{}' ({} {}) has {} bytes, the trained one has {}", path.string(),
                        io::printable(t.name), format_info(info.format).name, info.shape.text(), info.bytes(),
                        t.bytes.size());
    }
    if (!out.emplace(t.name, &t).second) {
      return make_error(ErrorCode::kInvalidArgument, "tensor '{}' was trained twice", io::printable(t.name));
    }
  }
  return out;
}

// Codes of a block format are finite for any bits, its scales are not.
Status check_finite(const fs::path& path, const TensorInfo& info, const std::vector<std::byte>& bytes) {
  if (format_info(info.format).decode == nullptr) return {};
  const std::int64_t k = info.shape.row_length(), rows = info.shape.rows();
  const std::size_t stride = row_bytes(info.format, k);
  std::vector<float> row(static_cast<std::size_t>(k));
  for (std::int64_t r = 0; r < rows; ++r) {
    NARROW_TRY(decode_row(info.format, bytes.data() + static_cast<std::size_t>(r) * stride, row.data(), k));
    if (const std::int64_t bad = find_non_finite(row.data(), k); bad >= 0) {
      return non_finite_error("the trained " + path.string(), info, r * k + bad,
                              row[static_cast<std::size_t>(bad)]);
    }
  }
  return {};
}

// `recipe` with what made the start file, which add_provenance() would otherwise forget.
std::string recipe_with_base(const nlohmann::json& recipe, const io::gguf::Metadata& start) {
  nlohmann::json out = recipe.is_object() ? recipe : nlohmann::json::object();
  nlohmann::json base = nlohmann::json::parse(start.get_string("narrow.recipe").value_or(""), nullptr, false);
  if (!base.is_object()) base = nlohmann::json::object();
  for (const char* key : {"narrow.source.name", "narrow.source.sha256"}) {
    if (const auto value = start.get_string(key)) base[key] = *value;
  }
  if (!base.empty()) out["base"] = std::move(base);
  return out.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

Status write_tensors(const io::gguf::Reader& start, const Replacements& trained, io::gguf::Writer& writer,
                     ProgressSink& progress) {
  constexpr std::size_t kPiece = 16u << 20;
  std::uint64_t total = 0, done = 0;
  for (const io::gguf::StoredTensor& t : start.tensors()) total += t.info.bytes();
  progress.begin("write", total / 1'000'000, "MB");
  for (std::size_t i = 0; i < start.tensors().size(); ++i) {
    const io::gguf::StoredTensor& t = start.tensors()[i];
    if (progress.cancelled()) {
      return make_error(ErrorCode::kCancelled, "cancelled while writing {}; nothing was written",
                        t.info.name);
    }
    const auto it = trained.find(t.info.name);
    const std::span<const std::byte> bytes =
        it != trained.end() ? std::span<const std::byte>(it->second->bytes)
                            : std::span<const std::byte>(start.view(t).data, t.info.bytes());
    for (std::size_t at = 0; at < bytes.size(); at += kPiece) {
      NARROW_TRY(writer.write(i, at, bytes.subspan(at, std::min(kPiece, bytes.size() - at))));
    }
    start.drop(t);
    done += bytes.size();
    progress.update(done / 1'000'000, t.info.name);
  }
  NARROW_TRY(writer.finish());
  progress.end();
  return {};
}

}  // namespace

Status write_trained(const fs::path& start, const fs::path& output, std::span<const TrainedTensor> trained,
                     const nlohmann::json& recipe, ProgressSink& progress) {
  NARROW_TRY(check_output_path(output, true));
  NARROW_TRY(refuse_same_file(start, output));
  if (io::gguf::parse_split_name(output)) {
    return make_error(ErrorCode::kInvalidArgument,
                      "output {} is named like a part of a split file, and training writes one file: choose "
                      "another name",
                      output.string());
  }
  NARROW_ASSIGN(const io::gguf::Reader reader, io::gguf::Reader::open(start));
  NARROW_ASSIGN(const Replacements replacements, match(reader, start, trained));
  for (const TrainedTensor& t : trained) {
    NARROW_TRY(check_finite(output, reader.find(t.name)->info, t.bytes));
  }
  NARROW_ASSIGN(const auto source, model::ModelSource::open(start));
  NARROW_ASSIGN(const std::string digest, source->digest());
  io::gguf::Metadata metadata = reader.metadata();
  const std::string full_recipe = recipe_with_base(recipe, metadata);
  metadata.erase("general.alignment");  // the writer's own default holds
  add_provenance(start, digest, full_recipe, metadata);
  std::vector<TensorInfo> infos;
  for (const io::gguf::StoredTensor& t : reader.tensors()) infos.push_back(t.info);
  NARROW_TRY(check_free_disk(output, io::gguf::planned_file_bytes(metadata, infos)));
  NARROW_ASSIGN(const auto writer, io::gguf::Writer::create(output, metadata, infos));
  return write_tensors(reader, replacements, *writer, progress);
}

}  // namespace narrow::pipeline
