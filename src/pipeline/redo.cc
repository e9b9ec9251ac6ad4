#include "pipeline/redo.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/digest.h"
#include "io/gguf/split_name.h"
#include "io/printable.h"
#include "pipeline/pattern.h"
#include "pipeline/transform.h"

namespace narrow::pipeline {
namespace {

using Json = nlohmann::ordered_json;

// Transforms change the weights of several tensors together: one of them alone cannot be made again.
Status refuse_transforms(std::string_view method, const std::string& who) {
  for (std::size_t begin = 0; begin <= method.size();) {
    const std::size_t end = std::min(method.find('+', begin), method.size());
    const std::string_view part = method.substr(begin, end - begin);
    begin = end + 1;
    if (!is_transform(part)) continue;
    return make_error(ErrorCode::kInvalidArgument,
                      "--only: {} method '{}' changes tensors together with their neighbours: make the whole "
                      "file again",
                      who, part);
  }
  return {};
}

Json parsed_recipe(const io::gguf::Metadata& m) {
  Json recipe = Json::parse(m.get_string("narrow.recipe").value_or(""), nullptr, false);
  return recipe.is_object() ? recipe : Json();
}

}  // namespace

Result<Redo> Redo::open(const model::ModelSource& source, const QuantizeOptions& o) {
  const std::string file = o.output.string();
  auto pattern = Pattern::compile(o.only);
  if (!pattern.ok()) return with_context(pattern.error(), "--only");
  if (o.split_max_bytes > 0 || io::gguf::parse_split_name(o.output)) {
    return make_error(ErrorCode::kInvalidArgument,
                      "--only: {}: split files cannot be redone in part: write one file", file);
  }
  auto reader = io::gguf::Reader::open(o.output);
  if (!reader.ok()) return with_context(reader.error(), "--only, in an existing output");
  Redo redo(std::move(*reader), o);

  for (const io::gguf::StoredTensor& t : redo.reader_.tensors()) {
    if (source.find(t.info.name)) continue;
    return make_error(ErrorCode::kInvalidArgument, "--only: {} is of another model: {} has no tensor '{}'",
                      file, source.path().string(), io::printable(t.info.name));
  }
  bool any = false;
  for (const TensorInfo& t : source.tensors()) {
    const io::gguf::StoredTensor* there = redo.reader_.find(t.name);
    if (there == nullptr) {
      return make_error(ErrorCode::kInvalidArgument,
                        "--only: {} is of another model: it has no tensor '{}' as {} has", file,
                        io::printable(t.name), source.path().string());
    }
    if (there->info.shape.dims() != t.shape.dims()) {
      return make_error(
          ErrorCode::kInvalidArgument, "--only: {} is of another model: its '{}' is {}, that of {} is {}",
          file, io::printable(t.name), there->info.shape.text(), source.path().string(), t.shape.text());
    }
    redo.place_.push_back(static_cast<std::size_t>(there - redo.reader_.tensors().data()));
    redo.redone_.push_back(pattern->found_in(t.name));
    any = any || redo.redone_.back();
  }
  if (!any) {
    return make_error(ErrorCode::kInvalidArgument,
                      "--only '{}' matches no tensor; `narrow inspect` lists the names", o.only);
  }
  NARROW_TRY(refuse_transforms(o.method, "this run's"));
  const Json recipe = parsed_recipe(redo.reader_.metadata());
  for (const Json* r = &recipe; r->is_object();) {
    if (r->contains("method") && (*r)["method"].is_string()) {
      NARROW_TRY(refuse_transforms((*r)["method"].get<std::string>(), file + "'s"));
    }
    if (!r->contains("base")) break;
    r = &(*r)["base"];
  }
  return redo;
}

void Redo::keep_types(Plan& plan) const {
  QuantizePlan& report = plan.report;
  std::uint64_t bytes = 0;
  report.fallbacks = 0;
  for (std::size_t i = 0; i < plan.outputs.size(); ++i) {
    PlannedTensor& p = report.tensors[i];
    if (!redone_[i]) {
      const Format kept = stored(i).info.format;
      plan.types[i] = plan.outputs[i].format = kept;
      p.to_type = std::string(format_info(kept).name);
      p.to_bytes = plan.outputs[i].bytes();
      p.fallback = false;
      p.reason = "kept: --only";
    }
    report.fallbacks += p.fallback ? 1 : 0;
    bytes += p.to_bytes;
  }
  if (report.parameters > 0) {
    report.bpw = 8.0 * static_cast<double>(bytes) / static_cast<double>(report.parameters);
  }
}

std::string Redo::recipe_with_base(const std::string& recipe, const std::string& digest) const {
  Json now = Json::parse(recipe, nullptr, false);
  Json base = parsed_recipe(reader_.metadata());
  if (!base.is_object()) base = Json::object();
  base["sha256"] = digest;
  now["base"] = std::move(base);
  return now.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Result<std::string> Redo::digest() const { return file_sha256(path_); }

Status Redo::copy_kept(QuantizeJob& job, ProgressSink& progress) const {
  constexpr std::size_t kPiece = 16u << 20;
  std::uint64_t total = 0, done = 0;
  for (std::size_t i = 0; i < redone_.size(); ++i) {
    total += redone_[i] || job.finished(i) ? 0 : stored(i).info.bytes();
  }
  progress.begin("copy", total / 1'000'000, "MB");
  for (std::size_t i = 0; i < redone_.size(); ++i) {
    if (redone_[i] || job.finished(i)) continue;
    const io::gguf::StoredTensor& t = stored(i);
    if (progress.cancelled()) {
      return make_error(ErrorCode::kCancelled, "cancelled while copying {}", t.info.name);
    }
    const std::span<const std::byte> bytes(reader_.view(t).data, t.info.bytes());
    for (std::size_t at = 0; at < bytes.size(); at += kPiece) {
      NARROW_TRY(job.write(i, at, bytes.subspan(at, std::min(kPiece, bytes.size() - at))));
    }
    NARROW_TRY(job.finish_tensor(i));
    reader_.drop(t);
    done += bytes.size();
    progress.update(done / 1'000'000, t.info.name);
  }
  progress.end();
  return {};
}

}  // namespace narrow::pipeline
