#include "narrow/report.h"

#include <algorithm>
#include <map>

#include "api/engine.h"
#include "api/guard.h"
#include "api/loaded.h"
#include "base/atomic_file.h"
#include "calib/collect.h"
#include "calib/imatrix.h"
#include "eval/evaluate.h"
#include "eval/report/sections.h"
#include "eval/report/stream.h"
#include "eval/report/weights.h"
#include "eval/report/worst_tokens.h"

namespace narrow {
namespace {

namespace report = eval::report;
using Source = std::shared_ptr<const model::ModelSource>;

constexpr std::size_t kCloseUps = 3;

std::string plain_name(const std::filesystem::path& p) {
  const std::filesystem::path name = p.has_filename() ? p.filename() : p.parent_path().filename();
  return name.extension() == ".gguf" ? name.stem().string() : name.string();
}

// Up to the last "-" or "." before the names differ.
std::size_t common_beginning(const std::vector<std::string>& names) {
  std::size_t n = names.front().size();
  for (const std::string& s : names) {
    n = std::min(n, static_cast<std::size_t>(
                        std::mismatch(s.begin(), s.end(), names.front().begin(), names.front().end()).first -
                        s.begin()));
  }
  const std::size_t end = n == 0 ? std::string::npos : names.front().find_last_of("-.", n - 1);
  return end == std::string::npos ? 0 : end + 1;
}

// File names without what all begin with and without endings; with their folders where that is not enough,
// and a number in the last resort.
std::vector<std::string> short_names(const std::vector<std::filesystem::path>& paths) {
  std::vector<std::string> plain, out;
  for (const auto& p : paths) plain.push_back(plain_name(p));
  const std::size_t cut = paths.size() > 1 ? common_beginning(plain) : 0;
  for (std::size_t i = 0; i < paths.size(); ++i) {
    std::string name = plain[i].size() > cut ? plain[i].substr(cut) : plain[i];
    if (std::count(plain.begin(), plain.end(), plain[i]) > 1 && paths[i].has_parent_path()) {
      name = (paths[i].parent_path().filename() / name).string();
    }
    const std::string base = name;
    for (int n = 2; std::find(out.begin(), out.end(), name) != out.end(); ++n)
      name = fmt::format("{} #{}", base, n);
    out.push_back(std::move(name));
  }
  return out;
}

std::vector<std::pair<Format, std::int64_t>> count_types(const std::vector<report::TensorDamage>& tensors) {
  std::vector<std::pair<Format, std::int64_t>> out;
  for (const report::TensorDamage& t : tensors) {
    const auto at = std::find_if(out.begin(), out.end(), [&](const auto& o) { return o.first == t.type; });
    if (at == out.end()) {
      out.emplace_back(t.type, 1);
    } else {
      ++at->second;
    }
  }
  std::stable_sort(out.begin(), out.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
  return out;
}

// Statistics from a file, in the form that the comparison of weights asks for.
class InputTable {
 public:
  void set(const calib::ModelStats& stats) {
    for (const auto& [name, inputs] : stats.inputs) {
      Entry& e = entries_[name];
      for (const calib::Moments& m : calib::moments(inputs)) {
        e.mean_square.insert(e.mean_square.end(), m.mean_square.begin(), m.mean_square.end());
        e.absmax.insert(e.absmax.end(), m.abs_max.begin(), m.abs_max.end());
      }
      if (e.absmax.size() != e.mean_square.size()) e.absmax.clear();  // not known of some experts
    }
  }
  report::InputStatistics find(const std::string& tensor) const {
    const auto at = entries_.find(tensor);
    if (at == entries_.end()) return {};
    return {at->second.mean_square, at->second.absmax};
  }

 private:
  struct Entry {
    std::vector<float> mean_square, absmax;
  };
  std::map<std::string, Entry> entries_;
};

class Reporter {
 public:
  Reporter(const ReportOptions& options, ProgressSink& progress) : o_(options), progress_(progress) {}

  Result<Report> make() {
    NARROW_TRY(open());
    NARROW_ASSIGN(reference_.weights, runtime::LoadedModel::load(reference_.source));
    const std::vector<std::string> names = short_names(o_.models);
    for (std::size_t i = 0; i < sources_.size(); ++i) {
      auto one = measure(sources_[i], names[i]);
      if (!one.ok()) return one.error();
      m_.models.push_back(std::move(*one));
    }
    report::find_front(m_.models);
    std::vector<ReportedModel> models;
    for (const report::ModelMeasurements& one : m_.models) {
      models.push_back({one.name, one.file_bytes, one.bpw, one.scores.perplexity, one.scores.kl_mean,
                        one.scores.kl_se, one.scores.top1_agreement, one.on_front});
    }
    return Report(std::move(models), report::to_json(report::describe(m_)));
  }

 private:
  // Everything that can be refused is refused here.
  Status open() {
    if (o_.models.empty()) {
      return make_error(ErrorCode::kInvalidArgument, "no model to report on: give at least one file");
    }
    if (o_.worst_tokens < 0 || o_.worst_tokens > 1000) {
      return make_error(ErrorCode::kInvalidArgument, "{} worst tokens: give a number from 0 to 1000",
                        o_.worst_tokens);
    }
    NARROW_ASSIGN(const std::string text, read_text_file(o_.text, kMaxTextBytes));
    NARROW_ASSIGN(load_, api::load_options(o_.engine));
    NARROW_ASSIGN(reference_.source, model::ModelSource::open(o_.reference));
    const std::int64_t n_vocab = reference_.source->config().n_vocab;
    NARROW_ASSIGN(tokenizer_, api::open_tokenizer(o_.reference, n_vocab));
    NARROW_ASSIGN(ids_, tokenizer_->encode(text));
    for (const std::filesystem::path& path : o_.models) {
      NARROW_ASSIGN(Source source, model::ModelSource::open(path));
      NARROW_TRY(report::check_same_shapes(*source, *reference_.source));
      NARROW_ASSIGN(const auto tokenizer, api::open_tokenizer(path, n_vocab));
      NARROW_ASSIGN(const std::vector<text::TokenId> ids, tokenizer->encode(text));
      if (ids != ids_) {
        return make_error(ErrorCode::kInvalidArgument,
                          "{} does not belong to the reference {}: it cuts the text into other tokens",
                          path.string(), o_.reference.string());
      }
      for (const std::string& name : o_.tensors) {
        if (!source->find(name)) {
          return make_error(ErrorCode::kNotFound, "{}: no tensor '{}'; `narrow inspect` lists them",
                            path.string(), name);
        }
      }
      sources_.push_back(std::move(source));
    }

    if (!o_.statistics.empty()) {
      NARROW_ASSIGN(calib::ModelStats stats, calib::read_imatrix(o_.statistics));
      NARROW_TRY(calib::check_stats(stats, *reference_.source, o_.statistics.string(), progress_));
      inputs_.set(stats);
      m_.statistics_path = o_.statistics.string();
    }

    protocol_.n_ctx = o_.n_ctx;
    protocol_.max_windows = o_.windows;
    if (tokenizer_->spec().add_bos) protocol_.bos = tokenizer_->spec().bos;
    const auto tokens = static_cast<std::int64_t>(ids_.size());
    NARROW_ASSIGN(const auto windows, eval::cut_windows(tokens, protocol_));
    m_.protocol = eval::describe(protocol_, tokens, windows.size());
    m_.windows = static_cast<std::int64_t>(windows.size());
    const model::ModelConfig& config = reference_.source->config();
    m_.title = config.name.empty() ? plain_name(o_.reference) : config.name;
    m_.architecture = config.arch;
    m_.reference_path = o_.reference.string();
    m_.reference_bytes = reference_.source->file_bytes();
    m_.reference_bpw = api::bits_per_weight(*reference_.source);
    m_.text_path = o_.text.string();
    return {};
  }

  Result<report::ModelMeasurements> measure(const Source& source, const std::string& name) {
    report::ModelMeasurements r;
    r.name = name;
    r.path = source->path().string();
    r.file_bytes = source->file_bytes();
    r.bpw = api::bits_per_weight(*source);
    progress_.note(name);
    NARROW_TRY(run(source, r));
    const auto inputs = [this](const std::string& tensor) { return inputs_.find(tensor); };
    NARROW_ASSIGN(r.tensors, report::compare_weights(*source, *reference_.source, inputs, progress_));
    r.types = count_types(r.tensors);
    NARROW_ASSIGN(r.advice, report::advise(*source, *reference_.source, r.tensors, inputs, progress_));
    std::vector<std::string> shown = o_.tensors;
    if (shown.empty()) shown = report::most_damaged(r.tensors, kCloseUps);
    for (const std::string& tensor : shown) {
      NARROW_ASSIGN(report::CloseUp c, report::close_up(*source, *reference_.source, tensor, inputs));
      r.close_ups.push_back(std::move(c));
    }
    return r;
  }

  // The model beside the reference on the text.
  Status run(const Source& source, report::ModelMeasurements& r) {
    NARROW_ASSIGN(const auto weights, runtime::LoadedModel::load(source, load_));
    const model::ModelConfig& config = weights->config();
    report::StreamComparison stream(config.n_layer, config.n_embd);
    report::WorstTokens worst(static_cast<std::size_t>(o_.worst_tokens));
    NARROW_ASSIGN(runtime::SessionOptions options, api::session_options(o_.engine, o_.n_ctx));
    options.after_layer = stream.model_tap();
    NARROW_ASSIGN(const auto session, runtime::Session::create(weights, options));
    runtime::SessionOptions plain;
    plain.n_ctx = o_.n_ctx;
    plain.after_layer = stream.reference_tap();
    NARROW_ASSIGN(const auto reference, runtime::Session::create(reference_.weights, plain));
    NARROW_ASSIGN(const eval::Evaluation e,
                  eval::evaluate(*session, config.n_vocab, reference.get(), ids_, protocol_, progress_,
                                 [&](const eval::ScoredPosition& p) { worst.observe(p); }));
    r.scores = eval::summarize(e.scores, true);
    r.stream_error = stream.relative_error();
    // Rows of the embedding beyond the tokenizer's vocabulary are tokens without a text.
    const auto known = static_cast<std::int64_t>(tokenizer_->vocab_size());
    r.worst = worst.take(ids_, [&](std::int32_t id) {
      return id < known ? tokenizer_->token_bytes(id) : fmt::format("[{}]", id);
    });
    m_.scored_tokens = static_cast<std::int64_t>(e.scores.size());
    return {};
  }

  const ReportOptions& o_;
  ProgressSink& progress_;
  runtime::LoadOptions load_;
  api::OpenedModel reference_;
  std::shared_ptr<const text::Tokenizer> tokenizer_;
  std::vector<text::TokenId> ids_;
  std::vector<Source> sources_;
  InputTable inputs_;
  eval::Protocol protocol_;
  report::Measurements m_;
};

}  // namespace

Result<Report> make_report(const ReportOptions& options, ProgressSink& progress) {
  return api::guarded([&] { return Reporter(options, progress).make(); });
}

std::string Report::to_html() const { return eval::report::to_html(json_); }

}  // namespace narrow
