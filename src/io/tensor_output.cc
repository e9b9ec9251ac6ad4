#include "io/tensor_output.h"

#include "io/caps.h"
#include "io/printable.h"

namespace narrow::io {

Result<std::uint64_t> checked_tensor_bytes(const TensorInfo& info) {
  std::uint64_t elements = 1;
  for (const std::int64_t dim : info.shape.dims()) {
    const bool bad = dim < 0 || static_cast<std::uint64_t>(dim) > caps::kMaxElements ||
                     __builtin_mul_overflow(elements, static_cast<std::uint64_t>(dim), &elements) ||
                     elements > caps::kMaxElements;
    if (bad) {
      return make_error(ErrorCode::kInvalidArgument,
                        "tensor '{}': the shape {} is negative or over {} elements", printable(info.name),
                        info.shape.text(), caps::kMaxElements);
    }
  }
  const FormatInfo& format = format_info(info.format);
  if (info.shape.row_length() % format.block_size != 0) {
    return make_error(ErrorCode::kInvalidArgument,
                      "tensor '{}': rows of {} elements are not a multiple of {}'s block of {}",
                      printable(info.name), info.shape.row_length(), format.name, format.block_size);
  }
  return elements / static_cast<std::uint64_t>(format.block_size) *
         static_cast<std::uint64_t>(format.block_bytes);
}

Status TensorOutput::check_space(const std::filesystem::path& folder, std::uint64_t total_bytes) {
  const auto free_bytes = free_disk_bytes(folder.empty() ? "." : folder);
  if (free_bytes.ok() && *free_bytes < total_bytes) {
    return make_error(
        ErrorCode::kNoSpace,
        "{}: {} bytes are needed, but the disk has {} free; nothing was written: make room or choose "
        "another folder",
        folder.string(), total_bytes, *free_bytes);
  }
  return {};
}

Status TensorOutput::add_file(const std::filesystem::path& path, std::string_view header,
                              std::uint64_t total_bytes) {
  NARROW_ASSIGN(AtomicFile file, AtomicFile::create(path));
  NARROW_TRY(file.write(header));
  if (total_bytes > header.size()) {
    // The full size at once: padding after the last tensor exists, and a size limit shows before the work is
    // done.
    const std::byte zero{0};
    NARROW_TRY(file.write_at(total_bytes - 1, {&zero, 1}));
  }
  files_.push_back(std::move(file));
  paths_.push_back(path);
  file_bytes_ += total_bytes;
  return {};
}

void TensorOutput::add_tensor(std::string name, std::size_t file, std::uint64_t offset, std::uint64_t bytes) {
  tensors_.push_back({std::move(name), file, offset, bytes, {}});
}

Status TensorOutput::fail(const Error& e) {
  const std::lock_guard lock(mutex_);
  if (!failure_) failure_ = e;
  return *failure_;
}

Status TensorOutput::write(std::size_t index, std::uint64_t byte_offset, std::span<const std::byte> data) {
  if (index >= tensors_.size()) {
    return fail(make_error(ErrorCode::kInternal, "write to tensor {} of {}", index, tensors_.size()));
  }
  Tensor& t = tensors_[index];
  if (byte_offset > t.bytes || data.size() > t.bytes - byte_offset) {
    return fail(make_error(ErrorCode::kInternal, "write of {} bytes at {} to tensor '{}' of {} bytes",
                           data.size(), byte_offset, printable(t.name), t.bytes));
  }
  {
    const std::lock_guard lock(mutex_);
    if (failure_) return *failure_;
  }
  if (files_.empty())
    return make_error(ErrorCode::kInternal, "write to tensor '{}' after finish", printable(t.name));
  if (data.empty()) return {};
  if (const Status s = files_[t.file].write_at(t.offset + byte_offset, data); !s.ok()) return fail(s.error());
  const std::lock_guard lock(mutex_);
  t.written.add(byte_offset, byte_offset + data.size());
  return {};
}

Status TensorOutput::finish() {
  const std::lock_guard lock(mutex_);
  std::vector<AtomicFile> files = std::move(files_);  // those not committed below remove themselves
  files_.clear();
  if (failure_) return *failure_;
  if (files.empty()) return make_error(ErrorCode::kInternal, "finished twice");
  for (const Tensor& t : tensors_) {
    const std::uint64_t n = t.written.bytes();
    if (n == t.bytes) continue;
    return make_error(ErrorCode::kInternal,
                      "{}: of tensor '{}' only {} of {} bytes were written; nothing was kept",
                      paths_[t.file].string(), printable(t.name), n, t.bytes);
  }
  for (std::size_t i = 0; i < files.size(); ++i) {
    const Status s = files[i].commit();
    if (s.ok()) continue;
    std::error_code ec;
    for (std::size_t k = 0; k < i; ++k) std::filesystem::remove(paths_[k], ec);
    return s;
  }
  return {};
}

}  // namespace narrow::io
