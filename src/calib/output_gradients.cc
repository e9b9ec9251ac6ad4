#include "calib/output_gradients.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>

#include "io/gguf/writer.h"
#include "io/printable.h"

namespace narrow::calib {
namespace {

namespace gguf = io::gguf;

constexpr std::string_view kKind = "general.type", kOurKind = "gradients",
                           kTokenCount = "narrow.gradients.tokens", kGradientSuffix = ".out_grad2";

}  // namespace

bool has_output_gradients(const std::string& name) {
  return name.starts_with("blk.") &&
         (name.ends_with(".attn_output.weight") || name.ends_with(".ffn_down.weight"));
}

Status write_output_gradients(const OutputGradients& gradients, const std::filesystem::path& path) {
  gguf::Metadata metadata;
  metadata.set_string(std::string(kKind), std::string(kOurKind));
  metadata.set_u32(std::string(kTokenCount),
                   static_cast<std::uint32_t>(std::min<std::int64_t>(gradients.tokens, INT32_MAX)));
  std::vector<TensorInfo> infos;
  for (const auto& [name, values] : gradients.matrices) {
    const auto n = std::llround(std::sqrt(static_cast<double>(values.size())));
    infos.push_back({name + std::string(kGradientSuffix), Format::kF32, Shape{n, n}});
  }
  NARROW_ASSIGN(const auto writer, gguf::Writer::create(path, metadata, infos));
  std::size_t i = 0;
  for (const auto& [name, values] : gradients.matrices) {
    NARROW_TRY(writer->write(i++, 0, std::as_bytes(std::span(values))));
  }
  return writer->finish();
}

Result<GradientFile> GradientFile::open(const std::filesystem::path& path, const model::ModelSource& source) {
  const std::string file = path.string();
  const auto refuse = [&](const std::string& what) {
    return make_error(ErrorCode::kInvalidArgument,
                      "{}: {}: give a file that `narrow gradients` made of this model", file, what);
  };
  if (std::error_code ec; std::filesystem::is_regular_file(path, ec) && !gguf::Reader::is_gguf(path)) {
    return refuse("no GGUF");
  }
  NARROW_ASSIGN(gguf::Reader reader, gguf::Reader::open(path));
  const std::string type = reader.metadata().get_string(kKind).value_or("model");
  if (type != kOurKind) return refuse("general.type is '" + io::printable(type) + "', not 'gradients'");
  bool any = false;
  for (const gguf::StoredTensor& t : reader.tensors()) {
    const std::string& name = t.info.name;
    if (!name.ends_with(kGradientSuffix)) continue;
    if (t.info.format != Format::kF32 || t.info.shape.rank() != 2 || t.info.shape[0] != t.info.shape[1]) {
      return make_error(ErrorCode::kCorrupt,
                        "{}: '{}' is {} of {}, gradients are square and f32: make them again", file,
                        io::printable(name), format_info(t.info.format).name, t.info.shape.text());
    }
    const auto i = source.find(name.substr(0, name.size() - kGradientSuffix.size()));
    if (!i) continue;
    any = true;
    const Shape& shape = source.tensors()[*i].shape;
    if (shape.rank() != 2 || shape[0] != t.info.shape[0]) {
      return refuse(fmt::format("'{}' is {}, for a matrix of {}", io::printable(name), t.info.shape.text(),
                                shape.text()));
    }
  }
  if (!any) return refuse("no matrix of this model in it");
  return GradientFile(std::move(reader), file);
}

Result<std::vector<float>> GradientFile::of(const std::string& name) const {
  const gguf::StoredTensor* t = reader_.find(name + std::string(kGradientSuffix));
  if (t == nullptr) return std::vector<float>();
  std::vector<float> x(static_cast<std::size_t>(t->info.shape.elements()));
  std::memcpy(x.data(), reader_.view(*t).data, x.size() * sizeof(float));
  const auto n = static_cast<std::size_t>(t->info.shape[0]);
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (std::isfinite(x[i]) && (i / n != i % n || x[i] >= 0.0f)) continue;
    return make_error(ErrorCode::kNumeric, "{}: '{}' has {} at row {}, column {}: make the gradients again",
                      file_, io::printable(t->info.name), x[i], i / n, i % n);
  }
  return x;
}

}  // namespace narrow::calib
