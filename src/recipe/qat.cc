#include <algorithm>
#include <set>

#include "pipeline/convert.h"
#include "pipeline/quantize.h"
#include "pipeline/trained_file.h"
#include "recipe/encode_trained.h"
#include "recipe/options.h"
#include "recipe/processes.h"
#include "recipe/run.h"
#include "train/blocks.h"
#include "train/prepare.h"
#include "train/teacher_cache.h"

namespace narrow::recipe {
namespace {

using Source = std::shared_ptr<const model::ModelSource>;

Result<Format> cache_format(const std::string& name, const char* option) {
  if (name.empty()) return Format::kF32;
  const FormatInfo* f = find_format(name);
  if (f != nullptr && (f->format == Format::kQ8_0 || f->format == Format::kQ4_0)) return f->format;
  return make_error(ErrorCode::kInvalidArgument, "{} '{}': q8_0 or q4_0", option, name);
}

Status check(const QatOptions& o) {
  const auto bad = [](const std::string& what) {
    return make_error(ErrorCode::kInvalidArgument, "{}", what);
  };
  if (o.source.empty() || o.output.empty())
    return bad("say which model to train and where the result goes (-o)");
  if (o.start.empty() && o.type.empty()) return bad("say --type, or give a quantized file by --start");
  if (!o.start.empty() && !o.type.empty())
    return bad("--type and --start say different things: the file has its types");
  static const std::set<std::string> kTrain = {"all", "scales", "lora", "blocks", "blocks+all"};
  if (!kTrain.contains(o.train))
    return bad(fmt::format("--train '{}': all, scales, lora, blocks or blocks+all", o.train));
  static const std::set<std::string> kActivations = {"file", "none", "engine"};
  if (!kActivations.contains(o.activations))
    return bad(fmt::format("--activations '{}': file, none or engine", o.activations));
  if (o.hidden_weight > 0 && (o.kl_weight == 0 || !o.teacher_cache.empty())) {
    return bad(
        fmt::format("--hidden-weight {}: needs the source beside the student: --kl-weight above 0, and no "
                    "--teacher-cache, which keeps its answers only",
                    o.hidden_weight));
  }
  if (o.loop.dtype != "f32") {
    return make_error(ErrorCode::kUnsupported, "--dtype {}: qat trains in f32, in which its grids are exact",
                      o.loop.dtype);
  }
  return {};
}

std::filesystem::path start_path(const QatOptions& o) {
  return o.start.empty() ? std::filesystem::path(o.output.string() + ".start.gguf") : o.start;
}

// The quantized file to improve: given, left by an earlier run, or made now.
Result<std::filesystem::path> start_file(const QatOptions& o, ProgressSink& progress) {
  const std::filesystem::path path = start_path(o);
  std::error_code ec;
  if (!o.start.empty() || (o.loop.resume && std::filesystem::exists(path, ec))) return path;
  QuantizeOptions q;
  q.source = o.source;
  q.output = path;
  q.type = o.type;
  q.calibration = o.calibration;
  if (q.calibration.empty()) q.calibration.texts = o.loop.texts;
  q.method = o.method;
  q.seed = o.loop.seed;
  q.resume = o.loop.resume;
  NARROW_TRY(pipeline::run_quantize(q, progress).status());
  return path;
}

// The student with its nodes, and what they are.
struct Student {
  std::unique_ptr<train::Decoder> decoder;
  std::vector<TrainNode> nodes;
};

Result<train::PrepareOptions> prepare_options(const QatOptions& o) {
  train::PrepareOptions p;
  p.what = train::TrainWhat::kAll;
  if (o.train == "scales") p.what = train::TrainWhat::kScales;
  if (o.train == "lora") p.what = train::TrainWhat::kLora;
  p.learn_scales = o.learn_scales;
  p.activations = o.activations == "none"     ? train::Activations::kNone
                  : o.activations == "engine" ? train::Activations::kEngine
                                              : train::Activations::kAsFile;
  // Embeddings are large and lose little; whoever says what to freeze decides about them too.
  std::function<bool(const std::string&)> usual;
  if (o.loop.freeze.empty()) usual = [](const std::string& name) { return name == "token_embd.weight"; };
  NARROW_ASSIGN(p.is_frozen, frozen_names(o.loop, usual));
  NARROW_ASSIGN(p.cache_keys, cache_format(o.cache_type_k, "--cache-type-k"));
  NARROW_ASSIGN(p.cache_values, cache_format(o.cache_type_v, "--cache-type-v"));
  return p;
}

Result<Student> make_student(const QatOptions& o, const Source& reference, const Source& start,
                             at::Device device) {
  Student s;
  NARROW_ASSIGN(s.decoder, train::Decoder::create(*reference));
  NARROW_ASSIGN(const train::PrepareOptions options, prepare_options(o));
  NARROW_ASSIGN(const std::vector<train::GraphRow> rows, train::prepare(*s.decoder, *start, options));
  for (const train::GraphRow& r : rows) s.nodes.push_back({r.name, r.shape, r.weight, r.input, r.trained});
  if (o.train == "lora") {
    NARROW_ASSIGN(const train::LoraSpec lora, lora_spec(o.lora, o.loop, options.is_frozen));
    NARROW_TRY(train::add_loras(*s.decoder, lora));
  }
  s.decoder->set_checkpointing(o.loop.checkpointing);
  s.decoder->to(device);
  return s;
}

Result<QatReport> run(const QatOptions& o, ProgressSink& progress) {
  NARROW_TRY(check(o));
  prepare_torch();
  NARROW_ASSIGN(const at::Device asked, device_named(o.loop.device));
  NARROW_ASSIGN(const Processes processes, Processes::join(asked));
  const at::Device device = processes.device();
  NARROW_ASSIGN(const Source reference, model::ModelSource::open(o.source));
  const nlohmann::ordered_json recipe = to_json(o, true);
  NARROW_ASSIGN(train::TrainerOptions trainer_opts,
                trainer_options(o.loop, {o.kl_weight, o.ce_weight, o.temperature}, o.output, recipe,
                                processes.rank(), processes.world()));
  trainer_opts.rates = {o.loop.lr, o.lr_scales, o.lr_inputs};
  trainer_opts.hidden_weight = o.hidden_weight;
  trainer_opts.observe_steps = o.observe_steps;
  trainer_opts.freeze_step = o.freeze_step;
  // Texts first: they are where most mistakes are, and a start file may take minutes.
  NARROW_ASSIGN(const train::Dataset data,
                training_data(text_options(o.loop), o.source, reference->config(), progress));
  std::filesystem::path start_name = start_path(o);
  if (processes.leads()) NARROW_TRY(start_file(o, progress).status());
  NARROW_TRY(processes.wait());
  NARROW_ASSIGN(const Source start, model::ModelSource::open(start_name));
  NARROW_ASSIGN(Student student, make_student(o, reference, start, device));
  std::unique_ptr<train::TeacherCache> cache;
  if (o.kl_weight > 0 && !o.teacher_cache.empty()) {
    if (processes.world() > 1) {
      return make_error(ErrorCode::kUnsupported,
                        "--teacher-cache: for one process; several would write the same file");
    }
    train::TeacherCacheSpec spec;
    NARROW_ASSIGN(spec.teacher, reference->digest());
    spec.n_ctx = data.n_ctx();
    spec.k = o.teacher_top_k;
    NARROW_ASSIGN(cache, train::TeacherCache::open(o.teacher_cache, spec));
    trainer_opts.teacher_cache = cache.get();
  }
  std::unique_ptr<train::Decoder> teacher;
  if (o.kl_weight > 0 || o.train.rfind("blocks", 0) == 0) {
    NARROW_ASSIGN(teacher, train::Decoder::create(*reference));
    teacher->to(device);
  }
  if (o.train.rfind("blocks", 0) == 0 && !trainer_opts.resume) {
    train::BlockOptions blocks;
    blocks.steps = o.block_steps;
    blocks.rates = trainer_opts.rates;
    blocks.clip_norm = o.loop.clip;
    blocks.seed = o.loop.seed;
    NARROW_TRY(train::train_blocks(*student.decoder, *teacher, data, blocks, progress));
  }
  QatReport report;
  report.nodes = student.nodes;
  if (o.train != "blocks") {
    NARROW_ASSIGN(const auto trainer, train::Trainer::create(*student.decoder, teacher.get(), data,
                                                             trainer_opts, processes.group()));
    NARROW_ASSIGN(const train::TrainerReport trained, trainer->run(progress));
    fill(trained, report);
  }
  teacher.reset();
  if (!processes.leads()) return report;
  {
    const at::NoGradGuard off;
    student.decoder->to(at::kCPU);
    student.decoder->merge_loras();
    NARROW_ASSIGN(const std::vector<pipeline::TrainedTensor> tensors,
                  encode_trained(*student.decoder, *start));
    NARROW_TRY(pipeline::write_trained(start_name, o.output, tensors, nlohmann::json(recipe), progress));
  }
  report.files.push_back(o.output);
  if (!o.hf_output.empty()) {
    ConvertOptions folder;
    folder.source = o.output;
    folder.output = o.hf_output;
    NARROW_ASSIGN(const ConvertReport converted, pipeline::run_convert(folder, progress));
    report.files.insert(report.files.end(), converted.files.begin(), converted.files.end());
  }
  std::error_code ec;
  if (o.start.empty()) std::filesystem::remove(start_name, ec);
  std::filesystem::remove(trainer_opts.checkpoint, ec);
  NARROW_TRY(finish_report("Quantization-aware training", recipe, o.loop, report));
  return report;
}

Result<std::vector<TrainNode>> graph(const QatOptions& o, ProgressSink& progress) {
  NARROW_TRY(check(o));
  NARROW_ASSIGN(const Source reference, model::ModelSource::open(o.source));
  NARROW_ASSIGN(const std::filesystem::path start_name, start_file(o, progress));
  NARROW_ASSIGN(const Source start, model::ModelSource::open(start_name));
  NARROW_ASSIGN(Student student, make_student(o, reference, start, at::kCPU));
  return student.nodes;
}

}  // namespace
}  // namespace narrow::recipe

namespace narrow {

Result<QatReport> qat(const QatOptions& options, ProgressSink& progress) {
  return recipe::guarded([&] { return recipe::run(options, progress); });
}

Result<std::vector<TrainNode>> qat_graph(const QatOptions& options, ProgressSink& progress) {
  return recipe::guarded([&] { return recipe::graph(options, progress); });
}

}  // namespace narrow
