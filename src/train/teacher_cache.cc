#include "train/teacher_cache.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <nlohmann/json.hpp>

#include "base/file_io.h"

namespace narrow::train {
namespace {

constexpr std::int64_t kHeaderBytes = 256;

// FNV-1a over the ids.
std::uint64_t hash(const at::Tensor& window) {
  const at::Tensor ids = window.contiguous();
  std::uint64_t h = 0xcbf29ce484222325ull;
  for (std::int64_t i = 0; i < ids.numel(); ++i) {
    h = (h ^ static_cast<std::uint64_t>(ids.data_ptr<std::int64_t>()[i])) * 0x100000001b3ull;
  }
  return h;
}

std::string header(const TeacherCacheSpec& spec) {
  std::string line = nlohmann::ordered_json{
      {"narrow", "teacher cache"},
      {"version", 1},
      {"teacher", spec.teacher},
      {"n_ctx", spec.n_ctx},
      {"k", spec.k}}.dump();
  line.resize(static_cast<std::size_t>(kHeaderBytes) - 1, ' ');
  return line + "\n";
}

Status write_all(int fd, const void* data, std::size_t n, std::int64_t offset,
                 const std::filesystem::path& path) {
  const int error =
      write_all_at(fd, static_cast<std::uint64_t>(offset), {static_cast<const std::byte*>(data), n});
  return error == 0 ? Status() : Status(file_error(path, "write", error));
}

Status read_all(int fd, void* data, std::size_t n, std::int64_t offset, const std::filesystem::path& path) {
  const int error = read_all_at(fd, static_cast<std::uint64_t>(offset), {static_cast<std::byte*>(data), n});
  return error == 0 ? Status() : Status(file_error(path, "read", error));
}

}  // namespace

TeacherCache::~TeacherCache() {
  if (fd_ >= 0) ::close(fd_);
}

Result<std::unique_ptr<TeacherCache>> TeacherCache::open(const std::filesystem::path& path,
                                                         const TeacherCacheSpec& spec) {
  if (spec.k < 1) return make_error(ErrorCode::kInvalidArgument, "--teacher-top-k {}: at least 1", spec.k);
  std::unique_ptr<TeacherCache> cache(new TeacherCache(path, spec));
  cache->fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (cache->fd_ < 0) return file_error(path, "open", errno);
  NARROW_TRY(cache->scan());
  return cache;
}

Status TeacherCache::scan() {
  struct stat s {};
  if (::fstat(fd_, &s) != 0) return file_error(path_, "read", errno);
  const std::string want = header(spec_);
  if (s.st_size == 0) return write_all(fd_, want.data(), want.size(), 0, path_);
  std::string found(want.size(), '\0');
  if (s.st_size >= kHeaderBytes) NARROW_TRY(read_all(fd_, found.data(), found.size(), 0, path_));
  if (found != want) {
    return make_error(
        ErrorCode::kRefused,
        "{}: not a cache of this teacher with windows of {} tokens and the {} likeliest; name another file",
        path_.string(), spec_.n_ctx, spec_.k);
  }
  const std::int64_t count = (s.st_size - kHeaderBytes) / record_bytes();
  for (std::int64_t i = 0; i < count; ++i) {
    std::uint64_t h = 0;
    NARROW_TRY(read_all(fd_, &h, sizeof h, kHeaderBytes + i * record_bytes(), path_));
    records_.emplace(h, i);
  }
  return {};
}

bool TeacherCache::holds(const at::Tensor& window) const { return records_.contains(hash(window)); }

Status TeacherCache::read(std::int64_t record, std::int32_t* ids, float* log_probs) const {
  const std::int64_t at = kHeaderBytes + record * record_bytes() + 8;
  const auto bytes = static_cast<std::size_t>(values()) * 4;
  NARROW_TRY(read_all(fd_, ids, bytes, at, path_));
  return read_all(fd_, log_probs, bytes, at + static_cast<std::int64_t>(bytes), path_);
}

Status TeacherCache::add(const at::Tensor& window, Decoder& teacher) {
  const at::NoGradGuard off;
  const at::Device device = teacher.weights().begin()->second.device();
  const at::Tensor hidden = teacher.hidden(window.unsqueeze(0).to(device))[0];
  const at::Tensor ids = at::empty({spec_.n_ctx, spec_.k}, at::kInt),
                   log_probs = at::empty({spec_.n_ctx, spec_.k});
  constexpr std::int64_t kRows = 64;  // of all logits at a time
  for (std::int64_t r = 0; r < spec_.n_ctx; r += kRows) {
    const std::int64_t n = std::min(kRows, spec_.n_ctx - r);
    const at::Tensor all = at::log_softmax(teacher.head(hidden.narrow(0, r, n)).to(at::kCPU, at::kFloat), -1);
    if (spec_.k > all.size(1)) {
      return make_error(ErrorCode::kInvalidArgument, "--teacher-top-k {}: the vocabulary has {}", spec_.k,
                        all.size(1));
    }
    const auto [values, places] = all.topk(spec_.k, -1);
    ids.narrow(0, r, n).copy_(places);
    log_probs.narrow(0, r, n).copy_(values);
  }
  const auto record = static_cast<std::int64_t>(records_.size());
  const std::int64_t at = kHeaderBytes + record * record_bytes();
  const std::uint64_t h = hash(window);
  const auto bytes = static_cast<std::size_t>(values()) * 4;
  // The hash last: a record is there when it is whole.
  NARROW_TRY(write_all(fd_, ids.data_ptr<std::int32_t>(), bytes, at + 8, path_));
  NARROW_TRY(
      write_all(fd_, log_probs.data_ptr<float>(), bytes, at + 8 + static_cast<std::int64_t>(bytes), path_));
  NARROW_TRY(write_all(fd_, &h, sizeof h, at, path_));
  records_.emplace(h, record);
  return {};
}

Result<TeacherTopK> TeacherCache::get(const at::Tensor& windows, Decoder* teacher) {
  const std::int64_t b = windows.size(0);
  TeacherTopK out{at::empty({b * spec_.n_ctx, spec_.k}, at::kInt), at::empty({b * spec_.n_ctx, spec_.k})};
  for (std::int64_t i = 0; i < b; ++i) {
    const at::Tensor window = windows[i];
    if (!holds(window)) {
      if (teacher == nullptr) {
        return make_error(ErrorCode::kNotFound, "{}: holds nothing of a window, and no teacher runs",
                          path_.string());
      }
      NARROW_TRY(add(window, *teacher));
    }
    NARROW_TRY(read(records_.at(hash(window)), out.ids.data_ptr<std::int32_t>() + i * values(),
                    out.log_probs.data_ptr<float>() + i * values()));
  }
  return out;
}

}  // namespace narrow::train
