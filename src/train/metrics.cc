#include "train/metrics.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <utility>

#include "base/atomic_file.h"
#include "base/file_io.h"
#include "io/hf_config/json_text.h"

namespace narrow::train {
namespace {

constexpr std::uint64_t kMaxBytes = 1ull << 30;

// Bytes of the lines of steps up to `step`.
Result<std::uint64_t> kept_bytes(const std::filesystem::path& path, std::int64_t step) {
  std::error_code ec;
  if (!std::filesystem::exists(path, ec)) return 0;
  NARROW_TRY(check_replaceable(path));
  NARROW_ASSIGN(const std::string text, read_text_file(path, kMaxBytes));
  std::size_t begin = 0;
  while (begin < text.size()) {
    const std::size_t end = text.find('\n', begin);
    const std::string_view line = std::string_view(text).substr(begin, end - begin);
    const auto j = io::parse_json(line, path.string());
    const bool ours = j.ok() && j->is_object() && j->contains("step") && (*j)["step"].is_number_integer();
    if (end == std::string::npos && (ours || line.starts_with("{\""))) break;  // it was being written
    if (!ours) {
      return make_error(
          ErrorCode::kRefused,
          "{}: not a file of metrics (JSON lines with a \"step\"): it is not overwritten; choose another "
          "name",
          path.string());
    }
    if ((*j)["step"].get<std::int64_t>() > step) break;
    begin = end + 1;
  }
  return begin;
}

}  // namespace

Result<MetricsLog> MetricsLog::open(const std::filesystem::path& path, std::int64_t step) {
  MetricsLog out;
  if (path.empty()) return out;
  // A run that begins writes its line of step 0 anew.
  NARROW_ASSIGN(const std::uint64_t keep, kept_bytes(path, step == 0 ? -1 : step));
  out.path_ = path;
  out.fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (out.fd_ < 0) return file_error(path, "open", errno);
  if (::ftruncate(out.fd_, static_cast<off_t>(keep)) != 0) return file_error(path, "shorten", errno);
  out.end_ = keep;
  return out;
}

Status MetricsLog::append(const nlohmann::ordered_json& line) {
  if (fd_ < 0) return {};
  const std::string text = line.dump() + "\n";
  if (const int e = write_all_at(fd_, end_, std::as_bytes(std::span(text))); e != 0) {
    return file_error(path_, "write", e);
  }
  end_ += text.size();
  return {};
}

MetricsLog& MetricsLog::operator=(MetricsLog&& o) noexcept {
  std::swap(path_, o.path_);
  std::swap(fd_, o.fd_);
  std::swap(end_, o.end_);
  return *this;
}

MetricsLog::~MetricsLog() {
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace narrow::train
