// SHA-256 of bytes or files (through OpenSSL), as lower-case hex.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "base/mapped_file.h"
#include "base/result.h"

namespace narrow {

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;
  void update(std::span<const std::byte> data);
  std::string hex();  // ends the digest; call once

 private:
  void* ctx_;
};

// Adds a whole file, whose pages may then leave memory.
void update(Sha256& hash, const MappedFile& file);

// Of a whole file, 64 digits. Errors as of MappedFile::open.
Result<std::string> file_sha256(const std::filesystem::path& path);

}  // namespace narrow
