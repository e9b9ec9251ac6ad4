// Whole reads and writes at a place in a file, and errors that say which file and why.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>

#include "base/result.h"

namespace narrow {

// "FILE: cannot WHAT: ..." for an errno: kNoSpace when the disk or a size limit is the reason, then with
// `full_tail` at the end; else kIo.
Error file_error(const std::filesystem::path& path, std::string_view what, int error,
                 std::string_view full_tail = "");

// All of `data` at `offset`, or an errno; 0 is success.
int write_all_at(int fd, std::uint64_t offset, std::span<const std::byte> data);
// All of `out` from `offset` on, or an errno; a file that ends before is EIO.
int read_all_at(int fd, std::uint64_t offset, std::span<std::byte> out);

// New and renamed entries of the folder that holds `path` reach the disk. Does nothing where the file system
// cannot do it.
void sync_folder_of(const std::filesystem::path& path);

// kInvalidArgument for an empty path, a folder, or what is no regular file: renaming over a device or a pipe
// (/dev/null, /dev/stdout) would replace it by a file.
Status check_replaceable(const std::filesystem::path& path);

}  // namespace narrow
