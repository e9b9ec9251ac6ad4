#include "pipeline/int8_file.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <map>
#include <optional>

#include "base/atomic_file.h"
#include "base/cpu_features.h"
#include "calib/collect.h"
#include "formats/cast.h"
#include "io/gguf/writer.h"
#include "model/int8_parts.h"
#include "pipeline/calibrated.h"
#include "pipeline/calibration_text.h"
#include "pipeline/int8_inputs.h"
#include "pipeline/int8_layout.h"
#include "pipeline/method_spec.h"
#include "pipeline/plan.h"
#include "pipeline/produce.h"
#include "pipeline/provenance.h"
#include "pipeline/tensor_stream.h"
#include "pipeline/transform.h"
#include "quant/int8.h"
#include "quant/rtn.h"

namespace narrow::pipeline {
namespace {

namespace part = model::int8_part;

constexpr double kInt8Bpw = 8.1, kInt4Bpw = 5.0;  // of a Llama of 8B, without outlier columns
constexpr std::array kTypes = {
    Int8Type{"w8a8", {8, false, false}, kInt8Bpw, "int8 on both sides, a scale per token"},
    Int8Type{"w8a8-static", {8, true, false}, kInt8Bpw, "int8 on both sides, scales from calibration"},
    Int8Type{"w8a8-asymmetric", {8, false, true}, kInt8Bpw, "int8 on both sides, a zero point per token"},
    Int8Type{"w4a8", {4, false, false}, kInt4Bpw, "q4_0 and int8 inputs, a scale per token"},
    Int8Type{"w4a8-static", {4, true, false}, kInt4Bpw, "q4_0 and int8 inputs, scales from calibration"},
};

const Int8Type* find_type(std::string_view name) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
  for (const Int8Type& t : kTypes) {
    if (std::equal(t.name.begin(), t.name.end(), name.begin(), name.end(),
                   [&](char a, char b) { return a == lower(b); })) {
      return &t;
    }
  }
  return nullptr;
}

// Weights of outlier columns [rows, columns] into tensor `to` from `byte_offset` on; they become what is
// stored.
Status write_outlier_weights(io::gguf::Writer& writer, std::size_t to, std::uint64_t byte_offset,
                             std::vector<float>& values) {
  const auto count = static_cast<std::int64_t>(values.size());
  std::vector<std::byte> bytes(row_bytes(Format::kF16, count));
  NARROW_ASSIGN(const auto cast, cast_from_f32(Format::kF16, values.data(), bytes.data(), count));
  if (cast.overflowed > 0) {
    return make_error(ErrorCode::kNumeric,
                      "weights of outlier columns are too large for f16; use --outliers 0");
  }
  format_info(Format::kF16).decode(bytes.data(), values.data(), count);
  return writer.write(to, byte_offset, bytes);
}

// Block matrices that are quantized for what enters them, on their way into the file.
class BlockStore final : public TensorStore, public KeptColumns {
 public:
  BlockStore(const model::ModelSource& source, const Int8Layout& layout, io::gguf::Writer& writer)
      : source_(source), layout_(layout), writer_(writer) {
    for (std::size_t p = 0; p < layout.pieces.size(); ++p) pieces_[layout.pieces[p].source] = p;
  }

  // What is quantized so: the layers' matrices in blocks. A head is rounded.
  Plan plan() const {
    Plan plan;
    for (std::size_t i = 0; i < source_.tensors().size(); ++i) {
      const TensorInfo& t = source_.tensors()[i];
      const std::size_t piece = pieces_.at(i);
      const bool here = layout_.pieces[piece].kind == Int8Kind::kBlocks && t.name.starts_with("blk.");
      plan.types.push_back(here ? layout_.tensors[layout_.first[piece]].format : Format::kF32);
      plan.outputs.push_back({t.name, plan.types.back(), t.shape});
    }
    return plan;
  }

  bool finished(std::size_t i) const override { return losses_.contains(i); }
  Status write(std::size_t i, std::uint64_t offset, std::span<const std::byte> data) override {
    return writer_.write(layout_.first[pieces_.at(i)], offset, data);
  }
  Status finish_tensor(std::size_t i, const nlohmann::json& note) override {
    losses_[i] = loss_of(source_.tensors()[i].name, note);
    return {};
  }
  // Only what an earlier run finished is read back, and these files are made in one.
  Status read(std::size_t i, std::byte*) const override {
    return make_error(ErrorCode::kInternal, "tensor {} is in the file, from which nothing is read", i);
  }

  std::span<const std::int32_t> of(std::size_t i) const override {
    return layout_.pieces[pieces_.at(i)].input.outliers;
  }
  Status store(std::size_t i, std::vector<float>& weights) override {
    const auto to = part_of(layout_, pieces_.at(i), part::kOutlierWeight);
    if (!to) return make_error(ErrorCode::kInternal, "tensor {} has no columns apart", i);
    return write_outlier_weights(writer_, *to, 0, weights);
  }
  const TensorLoss& loss(std::size_t i) const { return losses_.at(i); }

 private:
  const model::ModelSource& source_;
  const Int8Layout& layout_;
  io::gguf::Writer& writer_;
  std::map<std::size_t, std::size_t> pieces_;  // by source tensor
  std::map<std::size_t, TensorLoss> losses_;
};

class FileWriter {
 public:
  // `chosen` has written some matrices already.
  FileWriter(const model::ModelSource& source, const Int8Layout& layout, bool search,
             const BlockStore& chosen, io::gguf::Writer& writer, ProgressSink& progress)
      : source_(source),
        layout_(layout),
        chosen_(chosen),
        search_(search),
        writer_(writer),
        progress_(progress),
        stream_(source, quant::find_method("rtn"), search, progress) {}

  Status run(std::vector<TensorLoss>& losses) {
    std::uint64_t total = 0;
    for (const TensorInfo& t : source_.tensors()) total += t.bytes();
    progress_.begin("quantize", total / 1'000'000, "MB");
    for (std::size_t p = 0; p < layout_.pieces.size(); ++p) {
      const Int8Piece& piece = layout_.pieces[p];
      const TensorInfo& t = source_.tensors()[piece.source];
      if (chosen_.finished(piece.source)) {
        losses.push_back(chosen_.loss(piece.source));
      } else {
        quant::WeightError error;
        if (piece.kind == Int8Kind::kStored) {
          NARROW_TRY(stored(p, error));
        } else {
          NARROW_TRY(with_context_of(t, matrix(p, error)));
        }
        if (layout_.tensors[layout_.first[p]].format != t.format) {
          losses.push_back({t.name, error.relative_rms(), error.sqnr_db()});
        }
      }
      NARROW_TRY(input_parts(p));
      done_bytes_ += t.bytes();
      progress_.update(done_bytes_ / 1'000'000, t.name);
      source_.drop(piece.source);
    }
    progress_.end();
    return {};
  }

 private:
  Status with_context_of(const TensorInfo& t, const Status& s) const {
    if (s.ok()) return s;
    return with_context(s.error(), fmt::format("{}: tensor {}", source_.path().string(), t.name));
  }

  Status stored(std::size_t p, quant::WeightError& error) {
    StreamStats stats;
    const std::size_t to = layout_.first[p];
    const auto write = [&](std::uint64_t offset, std::span<const std::byte> data) {
      return writer_.write(to, offset, data);
    };
    NARROW_TRY(stream_.run(layout_.pieces[p].source, layout_.tensors[to].format, write, stats));
    error = stats.error;
    return {};
  }

  template <class T>
  Status write_values(std::size_t tensor, std::uint64_t offset, const std::vector<T>& values) {
    return writer_.write(tensor, offset * sizeof(T), std::as_bytes(std::span<const T>(values)));
  }

  // Codes or blocks, some rows at a time, and the outlier columns' weights.
  Status matrix(std::size_t p, quant::WeightError& error) {
    const Int8Piece& piece = layout_.pieces[p];
    const std::size_t to = layout_.first[p];
    const Format format = layout_.tensors[to].format;
    const Shape& shape = source_.tensors()[piece.source].shape;
    const std::int64_t rows = shape.rows(), k = shape.row_length(), chunk = rows_per_chunk(k);
    const std::vector<std::int32_t>& columns = piece.input.outliers;
    const std::size_t stride = row_bytes(format, k);
    std::vector<float> w, scales;
    std::vector<std::byte> out;
    for (std::int64_t begin = 0; begin < rows; begin += chunk) {
      if (progress_.cancelled()) return make_error(ErrorCode::kCancelled, "cancelled; nothing was written");
      const std::int64_t n = std::min(chunk, rows - begin);
      w.resize(static_cast<std::size_t>(n * k));
      out.resize(static_cast<std::size_t>(n) * stride);
      scales.resize(static_cast<std::size_t>(n));
      NARROW_TRY(source_.read_f32(piece.source, begin, begin + n, w.data()));
      NARROW_TRY(outlier_weights(p, begin, n, k, w));
      if (piece.kind == Int8Kind::kCodes) {
        quant::WeightError e;
        NARROW_TRY(quant::quantize_int8_rows(w.data(), n, k, columns, piece.input.mean_square, search_,
                                             reinterpret_cast<std::int8_t*>(out.data()), scales.data(), &e));
        error.add(e);
        NARROW_TRY(write_values(*part_of(layout_, p, part::kWeightScale), static_cast<std::uint64_t>(begin),
                                scales));
      } else {
        NARROW_TRY(blocks(piece, format, n, k, w, out, error));
      }
      NARROW_TRY(writer_.write(to, static_cast<std::uint64_t>(begin) * stride, out));
    }
    return {};
  }

  Status blocks(const Int8Piece& piece, Format format, std::int64_t n, std::int64_t k, std::vector<float>& w,
                std::vector<std::byte>& out, quant::WeightError& error) const {
    for (std::int64_t r = 0; r < n; ++r) {
      for (const std::int32_t c : piece.input.outliers) w[static_cast<std::size_t>(r * k + c)] = 0.0f;
    }
    quant::LayerStats stats;
    stats.mean_square = piece.input.mean_square;
    quant::QuantizeSpec spec;
    spec.format = format;
    spec.search = search_;
    quant::WeightError e;
    NARROW_TRY(quant::quantize_rtn(w.data(), n, k, stats, spec, out.data(), &e));
    error.add(e);
    return {};
  }

  Status outlier_weights(std::size_t p, std::int64_t begin, std::int64_t n, std::int64_t k,
                         const std::vector<float>& w) {
    const std::optional<std::size_t> to = part_of(layout_, p, part::kOutlierWeight);
    if (!to) return {};
    const std::vector<std::int32_t>& columns = layout_.pieces[p].input.outliers;
    std::vector<float> values;
    for (std::int64_t r = 0; r < n; ++r) {
      for (const std::int32_t c : columns) values.push_back(w[static_cast<std::size_t>(r * k + c)]);
    }
    const std::size_t row = row_bytes(Format::kF16, static_cast<std::int64_t>(columns.size()));
    return write_outlier_weights(writer_, *to, static_cast<std::uint64_t>(begin) * row, values);
  }

  Status input_parts(std::size_t p) {
    const Int8Input& input = layout_.pieces[p].input;
    if (const auto to = part_of(layout_, p, part::kInputScale)) {
      NARROW_TRY(write_values(*to, 0, std::vector<float>{input.scale}));
    }
    if (const auto to = part_of(layout_, p, part::kOutlierIndex))
      NARROW_TRY(write_values(*to, 0, input.outliers));
    return {};
  }

  const model::ModelSource& source_;
  const Int8Layout& layout_;
  const BlockStore& chosen_;
  bool search_;
  io::gguf::Writer& writer_;
  ProgressSink& progress_;
  TensorStream stream_;
  std::uint64_t done_bytes_ = 0;
};

// `auto`, where there is a text to look at: inputs are evened out for static scales, and 4-bit codes chosen
// for what meets them. 8-bit ones lose next to nothing by rounding.
Result<MethodSpec> method_of(const QuantizeOptions& o, const Int8Type& type) {
  if (o.method != "auto") return parse_method(o.method);
  if (o.calibration.texts.empty()) return parse_method("rtn");
  const bool equalizes = type.settings.static_scales, chooses = type.settings.weight_bits == 4;
  return parse_method(fmt::format("{}{}", equalizes ? "equalize+" : "", chooses ? "auto" : "rtn"));
}

// The method, once all options are known to say something here: none must be ignored.
Result<MethodSpec> checked_method(const QuantizeOptions& o, const Int8Type& type) {
  const auto refuse = [&](std::string_view option) {
    return make_error(ErrorCode::kUnsupported,
                      "{} cannot be used with --type {}, which decides every tensor itself", option, o.type);
  };
  if (!o.rules.empty()) return refuse("--tensor");
  if (!o.embedding_type.empty()) return refuse("--embedding-type");
  if (!o.output_type.empty()) return refuse("--output-type");
  if (!o.only.empty()) return refuse("--only");
  if (!o.gradients.empty()) return refuse("--gradients");
  NARROW_ASSIGN(MethodSpec method, method_of(o, type));
  const bool rounds = method.encoder->name == "rtn";
  const bool chooses = type.settings.weight_bits == 4 && method.encoder->needs == quant::Needs::kHessian;
  if (method.norms || !(rounds || chooses) || method.has_transform("awq")) {
    return make_error(
        ErrorCode::kUnsupported,
        "--method {} cannot be used with --type {}; auto, rtn, rotate, smoothquant{} equalize{} can",
        o.method, o.type, type.settings.weight_bits == 4 ? "," : " and",
        type.settings.weight_bits == 4 ? ", gptq and autoround" : "");
  }
  if (o.compare_rounding) return refuse("--compare-rounding");
  if ((method.needs_statistics() || method.needs_windows()) && o.calibration.texts.empty()) {
    return make_error(ErrorCode::kInvalidArgument, "--method {} needs calibration: name texts", o.method);
  }
  if (o.resume) return refuse("--resume");
  if (!o.calibration.stats.empty()) return refuse("a file of statistics (only texts can)");
  return method;
}

struct Prepared {
  const Int8Type* type = nullptr;
  MethodSpec method;
  std::shared_ptr<const model::ModelSource> source;
  io::gguf::Metadata metadata;
};

Result<Prepared> prepare(const QuantizeOptions& o, ProgressSink& progress) {
  Prepared p;
  p.type = find_type(o.type);
  NARROW_ASSIGN(p.method, checked_method(o, *p.type));
  NARROW_ASSIGN(p.source, model::ModelSource::open(o.source));
  if (!o.output.empty()) NARROW_TRY(refuse_same_file(o.source, o.output));
  NARROW_ASSIGN(p.metadata, base_metadata(*p.source, progress));
  NARROW_TRY(refuse_int8_file(*p.source));
  model::set_int8_settings(p.type->settings, p.metadata);
  p.metadata.set_u32("general.quantization_version", kQuantizationVersion);
  p.metadata.set_i32("narrow.int8.outliers", static_cast<std::int32_t>(o.outliers));
  NARROW_ASSIGN(const std::string recipe, quantize_recipe(o, p.type->name, true));
  add_provenance(o.source, placeholder_digest(), recipe, p.metadata);
  return p;
}

// One transform after the other, each with statistics of what the ones before made.
Result<std::shared_ptr<const model::ModelSource>> transformed(
    std::shared_ptr<const model::ModelSource> source, const MethodSpec& method, int weight_bits,
    const QuantizeOptions& o, const calib::TokenWindows& windows, ProgressSink& progress) {
  TransformOptions options;
  options.types.assign(source->tensors().size(), weight_bits == 8 ? Format::kI8 : Format::kQ4_0);
  options.search = o.search;
  options.seed = o.seed;
  for (const std::string& name : method.transforms) {
    std::optional<calib::ModelStats> stats;
    if (needs_statistics(name)) {
      NARROW_ASSIGN(stats, calib::collect(source, windows, progress));
    }
    NARROW_ASSIGN(source, transform(source, {&name, 1}, stats ? &*stats : nullptr, options, progress));
  }
  return source;
}

io::gguf::WriterOptions writer_options(const QuantizeOptions& o) {
  io::gguf::WriterOptions w;
  w.split_max_bytes = o.split_max_bytes;
  return w;
}

}  // namespace

bool is_int8_type(std::string_view type) { return find_type(type) != nullptr; }

std::span<const Int8Type> int8_types() { return kTypes; }

Status refuse_int8_file(const model::ModelSource& source) {
  if (!source.is_gguf()) return {};
  NARROW_ASSIGN(const io::gguf::Metadata metadata, source.gguf_metadata());
  NARROW_ASSIGN(const auto int8, model::int8_settings(metadata, source.path().string()));
  if (!int8) return {};
  return make_error(ErrorCode::kUnsupported,
                    "{}: holds int8 products, which only run; start from the model it was made from",
                    source.path().string());
}

Result<QuantizePlan> plan_int8(const QuantizeOptions& o) {
  NARROW_ASSIGN(Prepared p, prepare(o, null_progress()));
  NARROW_ASSIGN(Int8Layout layout, plan_int8_layout(*p.source, o, *p.type, nullptr));
  layout.report.output_bytes = io::gguf::planned_file_bytes(p.metadata, layout.tensors, writer_options(o));
  NARROW_ASSIGN(layout.report.free_disk_bytes, free_disk_bytes(o.output.empty() ? "." : o.output));
  return std::move(layout.report);
}

Result<QuantizeReport> run_int8(const QuantizeOptions& o, ProgressSink& progress) {
  const auto start = std::chrono::steady_clock::now();
  NARROW_ASSIGN(Prepared p, prepare(o, progress));
  NARROW_TRY(check_output_path(o.output, o.overwrite));
  NARROW_ASSIGN(const std::string digest, p.source->digest());
  NARROW_ASSIGN(const std::string recipe, quantize_recipe(o, p.type->name, false));
  add_provenance(o.source, digest, recipe, p.metadata);

  calib::TokenWindows windows;
  if (o.calibration.texts.empty()) {
    windows = random_windows(*p.source, o.seed);
    progress.note(fmt::format("no text to calibrate on: {} random tokens choose outlier columns{}",
                              windows.size(), p.type->settings.static_scales ? " and static scales" : ""));
  } else {
    NARROW_ASSIGN(windows, calibration_windows(o.calibration, *p.source, progress));
  }
  Int8InputOptions input_options;
  input_options.outliers = o.outliers;
  input_options.static_scales = p.type->settings.static_scales;
  NARROW_ASSIGN(p.source,
                transformed(p.source, p.method, p.type->settings.weight_bits, o, windows, progress));
  NARROW_ASSIGN(const auto inputs, choose_int8_inputs(p.source, windows, input_options, progress));

  NARROW_ASSIGN(Int8Layout layout, plan_int8_layout(*p.source, o, *p.type, &inputs));
  layout.report.output_bytes = io::gguf::planned_file_bytes(p.metadata, layout.tensors, writer_options(o));
  NARROW_TRY(check_free_disk(o.output, layout.report.output_bytes));
  NARROW_ASSIGN(const auto writer,
                io::gguf::Writer::create(o.output, p.metadata, layout.tensors, writer_options(o)));
  for (const auto& path : writer->paths()) {
    NARROW_TRY(refuse_same_file(o.source, path));
    NARROW_TRY(check_output_path(path, o.overwrite));
  }
  QuantizeReport report;
  BlockStore blocks(*p.source, layout, *writer);
  if (p.method.needs_windows()) {
    const Plan plan = blocks.plan();
    NARROW_TRY(
        produce_calibrated({p.source, &plan, &p.method, &windows, &o, nullptr, &blocks}, blocks, progress));
  }
  NARROW_TRY(FileWriter(*p.source, layout, o.search, blocks, *writer, progress).run(report.losses));
  NARROW_TRY(writer->finish());
  report.files = writer->paths();
  report.plan = std::move(layout.report);
  report.peak_memory_bytes = peak_resident_bytes();
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace narrow::pipeline
