#include "pipeline/job.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <mutex>
#include <utility>

#include "base/digest.h"
#include "base/file_io.h"
#include "base/mapped_file.h"
#include "base/partial_file.h"
#include "base/thread_team.h"
#include "io/gguf/layout.h"
#include "io/printable.h"
#include "io/tensor_output.h"
#include "io/written_ranges.h"
#include "pipeline/journal.h"

namespace narrow::pipeline {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kMagic = "narrow_job";  // of the journal's first line
constexpr std::string_view kCommit = "commit";     // of its last one, once every file is whole
// What a power cut may cost: data that is younger, or less, may not be on the disk yet.
constexpr std::uint64_t kSyncBytes = 64u << 20;
constexpr std::chrono::seconds kSyncInterval{1};
constexpr std::uint64_t kPieceBytes = 1u << 20;  // of a file that is read back

fs::path journal_path(const fs::path& output) {
  fs::path path = PartialFile::partial_path(output);
  path += ".json";
  return path;
}

// What a journal says.
struct History {
  struct Tensor {
    std::string sha256;
    nlohmann::json note;
  };
  std::string recipe, source, layout;
  std::vector<std::string> files;         // final names, in the output's folder
  std::map<std::size_t, Tensor> tensors;  // that were finished
  std::size_t n_tensors = 0;              // in all
  std::map<std::string, nlohmann::json, std::less<>> state;
  bool started = false, committing = false;
  bool has_work() const { return !tensors.empty() || !state.empty(); }
};

template <class T>
T value_or(const nlohmann::json& object, std::string_view key, T otherwise) {
  const auto it = object.find(key);
  if (it == object.end()) return otherwise;
  if constexpr (std::is_same_v<T, std::string>) return it->is_string() ? it->get<T>() : otherwise;
  if constexpr (std::is_same_v<T, std::size_t>) return it->is_number_unsigned() ? it->get<T>() : otherwise;
}

History read_history(const std::vector<nlohmann::json>& lines) {
  History h;
  if (lines.empty()) return h;
  const nlohmann::json first = lines.front().value(std::string(kMagic), nlohmann::json());
  if (!first.is_object()) return h;
  h.started = true;
  h.recipe = value_or<std::string>(first, "recipe", {});
  h.source = value_or<std::string>(first, "source", {});
  h.layout = value_or<std::string>(first, "layout", {});
  h.n_tensors = value_or<std::size_t>(first, "tensors", 0);
  for (const nlohmann::json& file : first.value("files", nlohmann::json::array())) {
    // Names in this folder only, whatever the journal says.
    if (file.is_string()) h.files.push_back(fs::path(file.get<std::string>()).filename().string());
  }
  for (std::size_t i = 1; i < lines.size(); ++i) {
    const nlohmann::json& line = lines[i];
    if (line.contains("tensor")) {
      const auto index = value_or<std::size_t>(line, "tensor", h.n_tensors);
      if (index >= h.n_tensors) continue;
      h.tensors[index] = {value_or<std::string>(line, "sha256", {}), line.value("note", nlohmann::json())};
    } else if (line.contains("key")) {
      h.state[value_or<std::string>(line, "key", {})] = line.value("value", nlohmann::json());
    } else if (line.contains(kCommit)) {
      h.committing = true;
    }
  }
  return h;
}

bool same_work(const History& h, const JobOptions& o) {
  return h.started && h.recipe == o.recipe && h.source == o.source_digest;
}

// "'type' was "q4_0" and is "q4_k"" for the first option that differs.
std::string difference(const std::string& before, const std::string& now) {
  const nlohmann::json a = nlohmann::json::parse(before, nullptr, false),
                       b = nlohmann::json::parse(now, nullptr, false);
  if (!a.is_object() || !b.is_object()) return "";
  nlohmann::json keys = a;
  keys.update(b);
  for (const auto& [key, unused] : keys.items()) {
    const nlohmann::json was = a.value(key, nlohmann::json()), is = b.value(key, nlohmann::json());
    if (was == is) continue;
    const auto text = [](const nlohmann::json& j) {
      return j.is_null() ? "not set" : j.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
    };
    return fmt::format(" ('{}' was {} and is {})", key, text(was), text(is));
  }
  return "";
}

// What is refused of an earlier run's work, with the ways out.
class EarlierRun {
 public:
  EarlierRun(const History& h, const JobOptions& o) : h_(h), o_(o) {
    const fs::path folder = o.output.parent_path();
    const fs::path partial = PartialFile::partial_path(h.files.empty() ? o.output : folder / h.files.front());
    work_ = fmt::format("{}: an earlier run finished {} of {} tensors", partial.string(), h.tensors.size(),
                        h.n_tensors);
    remove_ =
        fmt::format("remove {}{} and {}", partial.string(), h.files.size() > 1 ? ", its other parts" : "",
                    journal_path(o.output).filename().string());
  }

  // As far as is known without the layout.
  Status check() const {
    if (!h_.has_work()) return {};
    if (!o_.resume) {
      return make_error(ErrorCode::kRefused, "{}: add --resume to go on with them, or {} to start again",
                        work_, remove_);
    }
    if (h_.source != o_.source_digest) {
      return make_error(ErrorCode::kRefused,
                        "{} of another source (its checksum differs): go back to that, or {}", work_,
                        remove_);
    }
    if (h_.recipe != o_.recipe) {
      return make_error(ErrorCode::kRefused, "{} with other options{}: repeat those, or {}", work_,
                        difference(h_.recipe, o_.recipe), remove_);
    }
    return {};
  }
  Error other_layout() const {
    return make_error(ErrorCode::kRefused,
                      "{} in another layout (by another version of narrow, or to another plan): {}", work_,
                      remove_);
  }

 private:
  const History& h_;
  const JobOptions& o_;
  std::string work_, remove_;
};

// The errors after which the same command can succeed later.
bool can_go_on_after(ErrorCode code) {
  switch (code) {
    case ErrorCode::kIo:
    case ErrorCode::kNoSpace:
    case ErrorCode::kOutOfMemory:
    case ErrorCode::kCancelled:
    case ErrorCode::kInternal:
      return true;
    default:
      return false;
  }
}

}  // namespace

struct QuantizeJob::Impl {
  struct Slot {  // where a tensor lies
    std::size_t part = 0;
    std::uint64_t offset = 0, bytes = 0;
    io::WrittenRanges written;
    bool finished = false;
    nlohmann::json note;
  };

  Status take_over(const History& h, const JobOptions& o, const std::string& layout, ProgressSink& progress);
  Status open_files(const std::vector<io::gguf::PartLayout>& layout, bool continues);
  Status check_space(const JobOptions& o) const;
  Result<std::string> checksum(const Slot& s) const;
  Status verify(const History& h);
  Status sync_all();
  Status add_line(const nlohmann::json& line);
  Error removed(const Error& e);

  std::optional<Journal> journal;
  std::vector<PartialFile> files;
  std::vector<fs::path> paths;
  std::vector<TensorInfo> tensors;
  std::vector<Slot> slots;
  std::map<std::string, nlohmann::json, std::less<>> state;
  std::uint64_t file_bytes = 0, unsynced_bytes = 0;
  std::size_t n_finished = 0;
  std::chrono::steady_clock::time_point last_sync = std::chrono::steady_clock::now();
  fs::path output;
  bool open = false;  // the files are this object's to keep or to remove
  mutable std::mutex mutex;
};

// Whether the history may be gone on with; removes what is worth nothing.
Status QuantizeJob::Impl::take_over(const History& h, const JobOptions& o, const std::string& layout,
                                    ProgressSink& progress) {
  const EarlierRun earlier(h, o);
  NARROW_TRY(earlier.check());
  if (h.has_work()) return h.layout == layout ? Status() : earlier.other_layout();
  const fs::path folder = o.output.parent_path();
  if (o.resume) progress.note(fmt::format("{}: nothing to resume: starting afresh", o.output.string()));
  if (!h.started) return {};
  for (const std::string& name : h.files) {
    std::error_code ec;
    fs::remove(PartialFile::partial_path(folder / name), ec);
  }
  return journal->clear();
}

// Headers are written again: they are short, and the last run may have been killed before it wrote them.
Status QuantizeJob::Impl::open_files(const std::vector<io::gguf::PartLayout>& layout, bool continues) {
  for (std::size_t p = 0; p < layout.size(); ++p) {
    NARROW_ASSIGN(PartialFile file, PartialFile::open(paths[p], layout[p].total_bytes, continues));
    files.push_back(std::move(file));
    NARROW_TRY(files[p].write_at(0, std::as_bytes(std::span(layout[p].header))));
    file_bytes += layout[p].total_bytes;
  }
  return {};
}

Status QuantizeJob::Impl::check_space(const JobOptions& o) const {
  std::uint64_t needed = file_bytes;
  for (const Slot& s : slots) needed -= s.finished ? s.bytes : 0;
  return io::TensorOutput::check_space(o.output.parent_path(), needed);
}

Result<std::string> QuantizeJob::Impl::checksum(const Slot& s) const {
  Sha256 hash;
  std::vector<std::byte> piece(std::min(kPieceBytes, s.bytes));
  for (std::uint64_t at = 0; at < s.bytes; at += piece.size()) {
    const std::span<std::byte> part(piece.data(), std::min<std::uint64_t>(piece.size(), s.bytes - at));
    NARROW_TRY(files[s.part].read_at(s.offset + at, part));
    hash.update(part);
  }
  return hash.hex();
}

// Marks as finished what is stored as the journal says.
Status QuantizeJob::Impl::verify(const History& h) {
  std::vector<std::pair<std::size_t, const History::Tensor*>> claims;
  for (const auto& [index, tensor] : h.tensors) {
    if (index < slots.size() && files[slots[index].part].had_content()) claims.push_back({index, &tensor});
  }
  std::vector<Status> results(claims.size());
  parallel_for(static_cast<std::int64_t>(claims.size()), [&](std::int64_t c, int) {
    const auto& [index, tensor] = claims[static_cast<std::size_t>(c)];
    Slot& s = slots[index];
    const auto sum = checksum(s);
    if (!sum.ok()) {
      results[static_cast<std::size_t>(c)] = sum.error();
    } else if (*sum == tensor->sha256) {
      s.finished = true;
      s.note = tensor->note;
    }
  });
  for (const Status& s : results) NARROW_TRY(s);
  n_finished = static_cast<std::size_t>(
      std::count_if(slots.begin(), slots.end(), [](const Slot& s) { return s.finished; }));
  return {};
}

Status QuantizeJob::Impl::sync_all() {
  for (PartialFile& f : files) NARROW_TRY(f.sync());
  NARROW_TRY(journal->sync());
  unsynced_bytes = 0;
  last_sync = std::chrono::steady_clock::now();
  return {};
}

Status QuantizeJob::Impl::add_line(const nlohmann::json& line) {
  NARROW_TRY(journal->append(line));
  const bool due =
      unsynced_bytes >= kSyncBytes || std::chrono::steady_clock::now() - last_sync > kSyncInterval;
  return due ? sync_all() : Status();
}

Error QuantizeJob::Impl::removed(const Error& e) {
  for (PartialFile& f : files) f.remove();
  journal->remove();
  open = false;
  return e;
}

QuantizeJob::QuantizeJob(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

QuantizeJob::~QuantizeJob() {
  if (!impl_->open) return;
  if (impl_->n_finished == 0 && impl_->state.empty()) {
    (void)impl_->removed({});
    return;
  }
  (void)impl_->sync_all();  // a failure costs work of the next run, nothing else
}

Result<std::unique_ptr<QuantizeJob>> QuantizeJob::open(const JobOptions& o,
                                                       const io::gguf::Metadata& metadata,
                                                       std::vector<TensorInfo> tensors,
                                                       ProgressSink& progress) {
  NARROW_TRY(check_replaceable(o.output));
  io::gguf::WriterOptions layout_options;
  layout_options.split_max_bytes = o.split_max_bytes;
  const auto layout = io::gguf::lay_out(metadata, tensors, layout_options);
  if (!layout.ok()) return with_context(layout.error(), o.output.string());
  NARROW_TRY(settle_commit(o, nullptr).status());

  auto impl = std::make_unique<Impl>();
  impl->output = o.output;
  impl->paths = io::gguf::part_paths(o.output, layout->size(), layout_options);
  impl->tensors = std::move(tensors);
  Sha256 hash;
  nlohmann::json names = nlohmann::json::array();
  for (std::size_t p = 0; p < layout->size(); ++p) {
    const io::gguf::PartLayout& part = (*layout)[p];
    hash.update(std::as_bytes(std::span(part.header)));
    names.push_back(impl->paths[p].filename().string());
    for (std::size_t i = 0; i < part.bytes.size(); ++i) {
      impl->slots.push_back({p, part.offsets[i], part.bytes[i], {}, false, {}});
    }
  }
  const std::string layout_digest = hash.hex();

  NARROW_ASSIGN(impl->journal, Journal::open(journal_path(o.output), kMagic));
  const History history = read_history(impl->journal->lines());
  const bool continues = history.has_work();
  const auto begin = [&]() -> Status {
    NARROW_TRY(impl->take_over(history, o, layout_digest, progress));
    if (!continues) {
      // Before the files, and on the disk: none is ever there that no journal speaks of.
      const nlohmann::json first = {{"recipe", o.recipe},
                                    {"source", o.source_digest},
                                    {"layout", layout_digest},
                                    {"files", names},
                                    {"tensors", impl->slots.size()}};
      NARROW_TRY(impl->journal->append({{std::string(kMagic), first}}));
      NARROW_TRY(impl->journal->sync());
    }
    impl->open = true;
    NARROW_TRY(impl->open_files(*layout, continues));
    if (continues) {
      impl->state = history.state;
      NARROW_TRY(impl->verify(history));
    }
    return impl->check_space(o);
  };
  if (const Status s = begin(); !s.ok()) {
    if (!continues) return impl->removed(s.error());
    return s.error();
  }
  if (continues) {
    progress.note(fmt::format("{}: {} of {} tensors are finished: going on with the others",
                              PartialFile::partial_path(impl->paths.front()).string(), impl->n_finished,
                              impl->slots.size()));
  }
  return std::unique_ptr<QuantizeJob>(new QuantizeJob(std::move(impl)));
}

const std::vector<TensorInfo>& QuantizeJob::tensors() const { return impl_->tensors; }
const std::vector<fs::path>& QuantizeJob::paths() const { return impl_->paths; }
std::uint64_t QuantizeJob::file_bytes() const { return impl_->file_bytes; }

bool QuantizeJob::finished(std::size_t index) const {
  const std::lock_guard lock(impl_->mutex);
  return index < impl_->slots.size() && impl_->slots[index].finished;
}

std::size_t QuantizeJob::finished_count() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->n_finished;
}

Status QuantizeJob::write(std::size_t index, std::uint64_t byte_offset, std::span<const std::byte> data) {
  Impl& m = *impl_;
  if (!m.open || index >= m.slots.size()) {
    return make_error(ErrorCode::kInternal, "{}: write to tensor {} of {}", m.output.string(), index,
                      m.slots.size());
  }
  Impl::Slot& s = m.slots[index];
  if (byte_offset > s.bytes || data.size() > s.bytes - byte_offset || finished(index)) {
    return make_error(ErrorCode::kInternal, "write of {} bytes at {} to {} tensor '{}' of {} bytes",
                      data.size(), byte_offset, finished(index) ? "the finished" : "the",
                      io::printable(m.tensors[index].name), s.bytes);
  }
  NARROW_TRY(m.files[s.part].write_at(s.offset + byte_offset, data));
  const std::lock_guard lock(m.mutex);
  s.written.add(byte_offset, byte_offset + data.size());
  return {};
}

Status QuantizeJob::finish_tensor(std::size_t index, const nlohmann::json& note) {
  Impl& m = *impl_;
  if (!m.open || index >= m.slots.size()) {
    return make_error(ErrorCode::kInternal, "{}: tensor {} of {} finished", m.output.string(), index,
                      m.slots.size());
  }
  Impl::Slot& s = m.slots[index];
  if (const std::uint64_t n = s.written.bytes(); n != s.bytes) {
    return make_error(ErrorCode::kInternal, "{}: of tensor '{}' only {} of {} bytes were written",
                      m.output.string(), io::printable(m.tensors[index].name), n, s.bytes);
  }
  NARROW_ASSIGN(const std::string sum, m.checksum(s));
  const std::lock_guard lock(m.mutex);
  if (s.finished) return {};
  m.unsynced_bytes += s.bytes;
  nlohmann::json line = {{"tensor", index}, {"name", m.tensors[index].name}, {"sha256", sum}};
  if (!note.is_null()) line["note"] = note;
  NARROW_TRY(m.add_line(line));
  s.finished = true;
  s.note = note;
  ++m.n_finished;
  return {};
}

nlohmann::json QuantizeJob::note(std::size_t index) const {
  const std::lock_guard lock(impl_->mutex);
  return index < impl_->slots.size() ? impl_->slots[index].note : nlohmann::json();
}

Status QuantizeJob::read(std::size_t index, std::byte* out) const {
  if (!finished(index)) {
    return make_error(ErrorCode::kInternal, "{}: tensor {} is read before it is finished",
                      impl_->output.string(), index);
  }
  const Impl::Slot& s = impl_->slots[index];
  return impl_->files[s.part].read_at(s.offset, {out, s.bytes});
}

Status QuantizeJob::put(const std::string& key, nlohmann::json value) {
  const std::lock_guard lock(impl_->mutex);
  if (!impl_->open) {
    return make_error(ErrorCode::kInternal, "{}: state after the end", impl_->output.string());
  }
  NARROW_TRY(impl_->add_line({{"key", key}, {"value", value}}));
  impl_->state[key] = std::move(value);
  return {};
}

std::optional<nlohmann::json> QuantizeJob::get(std::string_view key) const {
  const std::lock_guard lock(impl_->mutex);
  const auto it = impl_->state.find(key);
  return it == impl_->state.end() ? std::nullopt : std::optional<nlohmann::json>(it->second);
}

Result<std::vector<fs::path>> QuantizeJob::commit() {
  Impl& m = *impl_;
  const std::lock_guard lock(m.mutex);
  if (!m.open) return make_error(ErrorCode::kInternal, "{}: committed twice", m.output.string());
  if (m.n_finished != m.slots.size()) {
    return make_error(ErrorCode::kInternal, "{}: only {} of {} tensors are finished", m.output.string(),
                      m.n_finished, m.slots.size());
  }
  NARROW_TRY(m.sync_all());
  NARROW_TRY(m.journal->append({{std::string(kCommit), true}}));
  NARROW_TRY(m.journal->sync());
  m.open = false;  // from here on settle_commit() can do the rest
  for (PartialFile& f : m.files) NARROW_TRY(f.commit());
  sync_folder_of(m.output);
  m.journal->remove();
  return m.paths;
}

Error QuantizeJob::abandon(const Error& e) {
  Impl& m = *impl_;
  if (!m.open) return e;
  const bool has_work = m.n_finished > 0 || !m.state.empty();
  if (!has_work || !can_go_on_after(e.code)) {
    const bool said = e.code != ErrorCode::kCancelled && e.code != ErrorCode::kNoSpace;
    return m.removed(said ? e : Error{e.code, e.message + "; nothing was kept"});
  }
  (void)m.sync_all();
  m.open = false;
  m.files.clear();
  m.journal.reset();
  return {e.code,
          fmt::format("{}; {} of {} tensors are finished in {}: --resume goes on with them", e.message,
                      m.n_finished, m.slots.size(), PartialFile::partial_path(m.paths.front()).string())};
}

Status check_earlier_run(const JobOptions& o) {
  std::error_code ec;
  if (!fs::exists(journal_path(o.output), ec)) return {};
  NARROW_ASSIGN(const Journal journal, Journal::open(journal_path(o.output), kMagic));
  const History h = read_history(journal.lines());
  return h.committing ? Status() : EarlierRun(h, o).check();
}

std::optional<nlohmann::json> stored_state(const JobOptions& o, std::string_view key) {
  const auto file = MappedFile::open(journal_path(o.output));
  if (!file.ok()) return std::nullopt;
  std::uint64_t used = 0;
  const std::string_view text(reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size());
  const History h = read_history(journal_lines(text, &used));
  const auto it = h.state.find(key);
  return !same_work(h, o) || it == h.state.end() ? std::nullopt : std::optional<nlohmann::json>(it->second);
}

Result<bool> settle_commit(const JobOptions& o, std::vector<fs::path>* files) {
  const fs::path path = journal_path(o.output);
  std::error_code ec;
  if (!fs::exists(path, ec)) return false;
  NARROW_ASSIGN(Journal journal, Journal::open(path, kMagic));
  const History h = read_history(journal.lines());
  if (!h.committing) return false;
  for (const std::string& name : h.files) {
    const fs::path final_path = o.output.parent_path() / name;
    const fs::path partial = PartialFile::partial_path(final_path);
    if (files != nullptr) files->push_back(final_path);
    if (!fs::exists(partial, ec)) continue;  // has its name already
    fs::rename(partial, final_path, ec);
    if (ec) return file_error(final_path, "rename into place", ec.value());
  }
  sync_folder_of(o.output);
  journal.remove();
  return same_work(h, o);
}

}  // namespace narrow::pipeline
