#include "pipeline/provenance.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "base/digest.h"
#include "io/tokenizer/tokenizer_files.h"
#include "text/tokenizer.h"

namespace narrow::pipeline {
namespace {

constexpr std::string_view kDigestPrefix = "sha256:";

std::string bare_digest(const std::string& digest) {
  return digest.starts_with(kDigestPrefix) ? digest.substr(kDigestPrefix.size()) : digest;
}

// "models/SmolLM2/" and "models/SmolLM2" are both called "SmolLM2".
std::string base_name(const std::filesystem::path& path) {
  std::error_code ec;
  const std::filesystem::path full = std::filesystem::absolute(path, ec).lexically_normal();
  const std::filesystem::path name = full.has_filename() ? full.filename() : full.parent_path().filename();
  return name.string();
}

Status add_tokenizer(const model::ModelSource& source, ProgressSink& progress, io::gguf::Metadata& metadata) {
  const std::string path = source.path().string();
  const std::int64_t n_vocab = source.config().n_vocab;
  auto spec = io::tokenizer_spec_from_folder(source.path());
  if (!spec.ok()) {
    if (spec.error().code != ErrorCode::kNotFound) return spec.error();
    progress.note(
        fmt::format("{}: no tokenizer files: the output has none either, and reads token ids only", path));
    metadata.set_string("tokenizer.ggml.model", "none");
    const std::string key = source.config().arch + ".vocab_size";
    if (!metadata.has(key)) metadata.set_u32(key, static_cast<std::uint32_t>(n_vocab));
    return {};
  }
  const auto n_tokens = static_cast<std::int64_t>(spec->tokens.size());
  if (n_tokens > n_vocab) {
    return make_error(
        ErrorCode::kCorrupt,
        "{}: its tokenizer has {} tokens and its embedding {} rows: the tokenizer belongs to another model",
        path, n_tokens, n_vocab);
  }
  // A tokenizer that cannot be built would only fail later, in the finished file.
  auto checked = text::Tokenizer::create(*spec);
  if (!checked.ok()) return with_context(checked.error(), path);
  return io::tokenizer_spec_to_gguf(*spec, n_vocab, metadata);
}

// Only these GGUF architectures have a window in llama.cpp; for others narrow writes a key that llama.cpp
// ignores.
constexpr std::array<std::string_view, 3> kWindowArchs = {"gemma2", "gemma3", "phi3"};

void note_lost_window(const model::ModelConfig& c, ProgressSink& progress) {
  const bool slides = std::any_of(c.layers.begin(), c.layers.end(), [](const auto& l) { return l.sliding; });
  if (!slides || std::find(kWindowArchs.begin(), kWindowArchs.end(), c.arch) != kWindowArchs.end()) return;
  progress.note(fmt::format(
      "llama.cpp knows no sliding window for {}: past {} tokens it will attend to more than narrow does",
      c.arch, c.sliding_window));
}

}  // namespace

Result<io::gguf::Metadata> base_metadata(const model::ModelSource& source, ProgressSink& progress) {
  NARROW_ASSIGN(io::gguf::Metadata metadata, source.gguf_metadata());
  if (!source.is_gguf()) {
    NARROW_TRY(add_tokenizer(source, progress, metadata));
    note_lost_window(source.config(), progress);
  }
  metadata.erase("general.alignment");  // the writer's own default holds
  return metadata;
}

void add_provenance(const std::filesystem::path& source, const std::string& digest, const std::string& recipe,
                    io::gguf::Metadata& metadata) {
  metadata.set_string("narrow.version", NARROW_VERSION);
  metadata.set_string("narrow.source.name", base_name(source));
  metadata.set_string("narrow.source.sha256", bare_digest(digest));
  metadata.set_string("narrow.recipe", recipe);
}

Result<std::string> quantize_recipe(const QuantizeOptions& o, std::string_view mix_name, bool planning) {
  const auto digest = [&](const std::filesystem::path& file) -> Result<std::string> {
    return planning ? Result<std::string>(placeholder_sha256()) : file_sha256(file);
  };
  nlohmann::ordered_json j;
  j["command"] = "quantize";
  j["type"] = mix_name;
  j["method"] = o.method;
  j["pure"] = o.pure;
  j["search"] = o.search;
  for (const TensorRule& r : o.rules) j["rules"].push_back({{"pattern", r.pattern}, {"type", r.type}});
  if (!o.embedding_type.empty()) j["embedding_type"] = o.embedding_type;
  if (!o.output_type.empty()) j["output_type"] = o.output_type;
  if (o.allow_requantize) j["allow_requantize"] = true;
  if (!o.only.empty()) j["only"] = o.only;
  if (o.target_bytes > 0) j["target_bytes"] = o.target_bytes;
  if (o.target_bpw > 0) j["target_bpw"] = o.target_bpw;
  if (o.target_kl > 0) j["target_kl"] = o.target_kl;
  if (o.fit_context > 0) j["fit_context"] = o.fit_context;
  if (!o.plan.empty()) {
    NARROW_ASSIGN(j["plan"], digest(o.plan));
  }
  if (!o.gradients.empty()) {
    NARROW_ASSIGN(j["gradients"], digest(o.gradients));
  }
  if (o.damping > 0) j["damping"] = o.damping;
  if (o.seed > 0) j["seed"] = o.seed;
  if (!o.calibration.empty()) {
    nlohmann::ordered_json& c = j["calibration"];
    for (const auto& text : o.calibration.texts) {
      NARROW_ASSIGN(std::string sum, digest(text));
      c["texts"].push_back(std::move(sum));
    }
    if (!o.calibration.texts.empty()) {
      c["n_ctx"] = o.calibration.n_ctx;
      c["max_tokens"] = o.calibration.max_tokens;
    }
    if (!o.calibration.stats.empty()) {
      NARROW_ASSIGN(c["stats"], digest(o.calibration.stats));
    }
    c["sequential"] = o.sequential;
  }
  // A pattern may hold bytes that are no UTF-8; replacing them is better than refusing the job.
  return j.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

std::string placeholder_sha256() { return std::string(64, '0'); }
std::string placeholder_digest() { return std::string(kDigestPrefix) + placeholder_sha256(); }

std::uint32_t float_file_type(Format f) {
  switch (f) {
    case Format::kF16:
      return 1;
    case Format::kBF16:
      return 32;
    default:
      return 0;
  }
}

}  // namespace narrow::pipeline
