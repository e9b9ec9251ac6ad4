#include "pipeline/plan.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <optional>
#include <system_error>

#include "base/atomic_file.h"
#include "io/gguf/split_name.h"
#include "io/gguf/writer.h"
#include "pipeline/pattern.h"

namespace narrow::pipeline {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kChunkElements = std::int64_t{8} << 20;  // 32 MB of fp32
constexpr std::uint64_t kBaseMemoryBytes = 96u << 20;           // program, libraries, metadata

struct CompiledRule {
  Pattern pattern;
  Format format;
  std::optional<std::size_t> blocked_by;  // an earlier rule that took a tensor this one matches
};

Result<std::vector<CompiledRule>> compile_rules(const std::vector<TensorRule>& rules) {
  std::vector<CompiledRule> out;
  for (const TensorRule& r : rules) {
    const std::string option = fmt::format("rule '{}={}'", r.pattern, r.type);
    auto pattern = Pattern::compile(r.pattern);
    if (!pattern.ok()) return with_context(pattern.error(), option);
    NARROW_ASSIGN(const Format format, require_tensor_type(option, r.type));
    out.push_back({std::move(*pattern), format, std::nullopt});
  }
  return out;
}

std::string_view kept_reason(const TensorInfo& t) {
  const std::string_view n = t.name;
  const auto has = [&](std::string_view part) { return n.find(part) != std::string_view::npos; };
  if (has("norm")) return "kept: norm";
  if (n.ends_with(".bias")) return "kept: bias";
  if (has("ffn_gate_inp")) return "kept: router";
  if (has("position_embd")) return "kept: positions";
  if (has("rope_")) return "kept: rope factors";
  return "kept: not a weight matrix";
}

const FormatInfo& info(Format f) { return format_info(f); }

Status check_rules_applied(const std::vector<RuleReport>& reports, const std::vector<CompiledRule>& rules) {
  for (std::size_t i = 0; i < reports.size(); ++i) {
    const RuleReport& r = reports[i];
    if (r.matched == 0) {
      return make_error(ErrorCode::kInvalidArgument,
                        "rule '{}={}' matches no tensor; `narrow inspect` lists the names", r.pattern,
                        r.type);
    }
    if (r.applied > 0) continue;
    if (rules[i].blocked_by) {
      const RuleReport& first = reports[*rules[i].blocked_by];
      return make_error(
          ErrorCode::kInvalidArgument,
          "rule '{}={}' was never applied: rule '{}={}' comes first and takes its tensors; put the special "
          "rule before the general one",
          r.pattern, r.type, first.pattern, first.type);
    }
    return make_error(ErrorCode::kInvalidArgument,
                      "rule '{}={}' was never applied: it matches {} tensors, none of them a weight matrix",
                      r.pattern, r.type, r.matched);
  }
  return {};
}

Status check_fallbacks(const QuantizePlan& plan, bool strict) {
  if (!strict || plan.fallbacks == 0) return {};
  const auto first = std::find_if(plan.tensors.begin(), plan.tensors.end(),
                                  [](const PlannedTensor& t) { return t.fallback; });
  return make_error(
      ErrorCode::kRefused,
      "--strict: {} tensors cannot hold their type, e.g. {} would become {} ({}); choose a type with smaller "
      "blocks or leave --strict out",
      plan.fallbacks, first->name, first->to_type, first->reason);
}

// Peak resident memory while one tensor streams: its mapped source pages, and the chunk (or, for methods that
// look at a whole matrix, the matrix) decoded and encoded.
std::uint64_t peak_estimate(std::span<const TensorInfo> tensors, std::span<const TensorInfo> outputs,
                            bool row_independent) {
  std::uint64_t most = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const std::int64_t rows = tensors[i].shape.rows(), k = tensors[i].shape.row_length();
    const std::int64_t chunk = row_independent ? std::min(rows, rows_per_chunk(k)) : rows;
    const auto decoded = static_cast<std::uint64_t>(chunk) * static_cast<std::uint64_t>(k) * sizeof(float);
    const std::uint64_t encoded = static_cast<std::uint64_t>(chunk) * row_bytes(outputs[i].format, k);
    most = std::max(most, tensors[i].bytes() + decoded + encoded);
  }
  return kBaseMemoryBytes + most;
}

}  // namespace

std::int64_t rows_per_chunk(std::int64_t row_length) {
  return std::max<std::int64_t>(1, kChunkElements / std::max<std::int64_t>(1, row_length));
}

ModelTraits traits_of(const model::ModelConfig& c) {
  return {c.arch, c.n_layer, c.n_head, c.n_head_kv, c.n_expert};
}

Result<Format> require_tensor_type(std::string_view option, std::string_view name) {
  const auto usable = [](const FormatInfo& f) {
    return f.in_gguf() && f.can_encode() &&
           (f.kind == FormatKind::kQuantized || f.format == Format::kF32 || f.format == Format::kF16 ||
            f.format == Format::kBF16);
  };
  const FormatInfo* f = find_format(name);
  if (f != nullptr && usable(*f)) return f->format;
  std::vector<std::string_view> known;
  for (const FormatInfo& each : all_formats()) {
    if (usable(each)) known.push_back(each.name);
  }
  if (f != nullptr && f->in_gguf()) {
    return make_error(ErrorCode::kUnsupported,
                      "{}: type '{}' can be read but not written; types that can be written: {}", option,
                      name, fmt::join(known, ", "));
  }
  return make_error(ErrorCode::kInvalidArgument, "{}: unknown type '{}'; known types: {}", option, name,
                    fmt::join(known, ", "));
}

Error requantize_error(std::string_view source_name, Format from) {
  return make_error(
      ErrorCode::kRefused,
      "{}: is already quantized ({}): quantizing it again adds its loss to the new one; start from the "
      "f32/f16/bf16 model, or say --allow-requantize",
      source_name, format_info(from).name);
}

Result<Plan> decide_types(std::string_view source_name, const ModelTraits& traits,
                          std::span<const TensorInfo> tensors, const QuantizeOptions& o) {
  Plan plan;
  NARROW_ASSIGN(plan.mix, require_mix(o.type));
  NARROW_ASSIGN(plan.method, parse_method(o.method));
  NARROW_ASSIGN(std::vector<CompiledRule> rules, compile_rules(o.rules));
  std::optional<Format> embedding, output;
  if (!o.embedding_type.empty()) {
    NARROW_ASSIGN(embedding, require_tensor_type("--embedding-type", o.embedding_type));
  }
  if (!o.output_type.empty()) {
    NARROW_ASSIGN(output, require_tensor_type("--output-type", o.output_type));
  }
  for (const TensorRule& r : o.rules) plan.report.rules.push_back({r.pattern, r.type, 0, 0});

  std::vector<TensorInfo> matrices;
  std::vector<std::size_t> matrix_of(tensors.size(), tensors.size());
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    if (!model::is_quantizable(tensors[i])) continue;
    matrix_of[i] = matrices.size();
    matrices.push_back(tensors[i]);
  }
  const bool tied = std::none_of(tensors.begin(), tensors.end(),
                                 [](const TensorInfo& t) { return tensor_role(t.name) == Role::kHead; });
  if (tied && embedding && output && *embedding != *output) {
    return make_error(ErrorCode::kInvalidArgument,
                      "--output-type {} cannot be applied: the head of {} is its embedding, which "
                      "--embedding-type makes {}",
                      o.output_type, source_name, o.embedding_type);
  }
  const std::vector<Format> mixed = mix_types(*plan.mix, traits, matrices, tied, !o.calibration.empty());

  std::uint64_t stored_bytes = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const TensorInfo& t = tensors[i];
    PlannedTensor p;
    p.name = t.name;
    p.shape = t.shape.dims();
    p.from_type = std::string(info(t.format).name);
    p.from_bytes = t.bytes();
    const bool matrix = matrix_of[i] < tensors.size();
    Format to = t.format;
    bool given = false;

    std::optional<std::size_t> rule;
    for (std::size_t r = 0; r < rules.size(); ++r) {
      if (!rules[r].pattern.found_in(t.name)) continue;
      ++plan.report.rules[r].matched;
      if (!rule) {
        rule = r;
      } else {
        rules[r].blocked_by = rule;
      }
    }
    const Role role = tensor_role(t.name);
    if (!matrix) {
      // Small and sensitive; llama.cpp's operations on them take f32 only.
      to = info(t.format).kind == FormatKind::kInteger ? t.format : Format::kF32;
      p.reason = kept_reason(t);
    } else {
      if (rule) {
        to = rules[*rule].format;
        given = true;
        ++plan.report.rules[*rule].applied;
        p.reason = fmt::format("rule '{}'", o.rules[*rule].pattern);
        if (t.shape.row_length() % info(to).block_size != 0) {
          return make_error(
              ErrorCode::kInvalidArgument,
              "rule '{}={}' cannot be applied to {}: its rows of {} are no multiple of {}'s blocks of {}",
              o.rules[*rule].pattern, o.rules[*rule].type, t.name, t.shape.row_length(), info(to).name,
              info(to).block_size);
        }
      } else if (role == Role::kEmbedding && embedding) {
        to = *embedding;
        given = true;
        p.reason = "--embedding-type";
      } else if (output && (role == Role::kHead || (role == Role::kEmbedding && tied))) {
        to = *output;
        given = true;
        p.reason = "--output-type";
      } else if (o.pure) {
        to = plan.mix->base;
        p.reason = "--pure";
      } else {
        to = mixed[matrix_of[i]];
        p.reason = fmt::format("mix {}", plan.mix->name);
      }
      const Format fitting = fitting_format(to, t.shape.row_length());
      if (fitting != to) {
        p.fallback = true;
        ++plan.report.fallbacks;
        p.reason = fmt::format("fallback: rows of {} are no multiple of {}'s {}", t.shape.row_length(),
                               info(to).name, info(to).block_size);
        to = fitting;
      }
      if (info(t.format).kind == FormatKind::kQuantized && to != t.format &&
          info(to).kind == FormatKind::kQuantized && !o.allow_requantize) {
        return requantize_error(source_name, t.format);
      }
    }
    p.to_type = std::string(info(to).name);
    const TensorInfo out{t.name, to, t.shape};
    p.to_bytes = out.bytes();
    stored_bytes += p.to_bytes;
    plan.report.parameters += static_cast<std::uint64_t>(t.shape.elements());
    plan.types.push_back(to);
    plan.asked.push_back(given);
    plan.outputs.push_back(out);
    plan.report.tensors.push_back(std::move(p));
  }
  NARROW_TRY(check_rules_applied(plan.report.rules, rules));
  NARROW_TRY(check_fallbacks(plan.report, o.strict));
  if (plan.report.parameters > 0) {
    plan.report.bpw = 8.0 * static_cast<double>(stored_bytes) / static_cast<double>(plan.report.parameters);
  }
  plan.report.output_bytes = stored_bytes;
  // What running the model on texts takes hangs on how many there are.
  const bool runs_the_model = plan.method.needs_windows() || !o.calibration.texts.empty();
  if (!runs_the_model) {
    plan.report.peak_memory_bytes =
        peak_estimate(tensors, plan.outputs, plan.method.encoder->row_independent);
  }
  plan.report.file_type_name = std::string(plan.mix->name);
  return plan;
}

Result<Plan> make_plan(const model::ModelSource& source, const QuantizeOptions& o,
                       const io::gguf::Metadata& metadata) {
  NARROW_ASSIGN(Plan plan,
                decide_types(source.path().string(), traits_of(source.config()), source.tensors(), o));
  plan.report.source_bytes = source.file_bytes();
  io::gguf::WriterOptions writer;
  writer.split_max_bytes = o.split_max_bytes;
  plan.report.output_bytes = io::gguf::planned_file_bytes(metadata, plan.outputs, writer);
  NARROW_ASSIGN(plan.report.free_disk_bytes, free_disk_bytes(o.output.empty() ? fs::path(".") : o.output));
  return plan;
}

Status refuse_same_file(const fs::path& source, const fs::path& output) {
  const auto refuse = [&](const fs::path& file) {
    return make_error(
        ErrorCode::kInvalidArgument,
        "output {} and source {} are the same file: the source would be destroyed; choose another output",
        output.string(), file.string());
  };
  std::error_code ec;
  if (same_file(source, output)) return refuse(source);
  if (const auto part = io::gguf::parse_split_name(source)) {
    for (int no = 0; no < part->count; ++no) {
      const fs::path file = io::gguf::split_part_path(part->prefix, no, part->count);
      if (same_file(file, output)) return refuse(file);
    }
  }
  if (!fs::is_directory(source, ec)) return {};
  for (fs::directory_iterator it(source, ec), end; !ec && it != end; it.increment(ec)) {
    if (same_file(it->path(), output)) return refuse(it->path());
  }
  return {};
}

Status check_output_path(const fs::path& output, bool overwrite) {
  std::error_code ec;
  if (output.empty())
    return make_error(ErrorCode::kInvalidArgument, "no output file given: say -o FILE.gguf");
  if (fs::is_directory(output, ec)) {
    return make_error(ErrorCode::kInvalidArgument, "output {} is a folder: name a file in it",
                      output.string());
  }
  const fs::path parent = output.parent_path();
  if (!parent.empty() && !fs::is_directory(parent, ec)) {
    return make_error(ErrorCode::kNotFound, "the folder {} for output {} does not exist: make it first",
                      parent.string(), output.string());
  }
  if (!overwrite && fs::exists(output, ec)) {
    return make_error(ErrorCode::kRefused, "output {} exists already and is not to be overwritten",
                      output.string());
  }
  return {};
}

Status check_free_disk(const fs::path& output, std::uint64_t needed) {
  NARROW_ASSIGN(const std::uint64_t available, free_disk_bytes(output));
  if (needed <= available) return {};
  return make_error(ErrorCode::kNoSpace,
                    "{} needs {:.1f} MB and its disk has {:.1f} MB free: make room or write elsewhere",
                    output.string(), static_cast<double>(needed) / 1e6, static_cast<double>(available) / 1e6);
}

}  // namespace narrow::pipeline
