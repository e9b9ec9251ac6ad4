#include "base/digest.h"

#include <openssl/evp.h>

#include <algorithm>
#include <new>

namespace narrow {

Sha256::Sha256() : ctx_(EVP_MD_CTX_new()) {
  if (!ctx_) throw std::bad_alloc();
  EVP_DigestInit_ex(static_cast<EVP_MD_CTX*>(ctx_), EVP_sha256(), nullptr);
}

Sha256::~Sha256() { EVP_MD_CTX_free(static_cast<EVP_MD_CTX*>(ctx_)); }

void Sha256::update(std::span<const std::byte> data) {
  EVP_DigestUpdate(static_cast<EVP_MD_CTX*>(ctx_), data.data(), data.size());
}

std::string Sha256::hex() {
  unsigned char md[EVP_MAX_MD_SIZE];
  unsigned int n = 0;
  EVP_DigestFinal_ex(static_cast<EVP_MD_CTX*>(ctx_), md, &n);
  std::string s;
  for (unsigned int i = 0; i < n; ++i) s += fmt::format("{:02x}", md[i]);
  return s;
}

void update(Sha256& hash, const MappedFile& file) {
  constexpr std::size_t kPiece = 8u << 20;
  for (std::size_t at = 0; at < file.bytes().size(); at += kPiece) {
    const std::size_t n = std::min(kPiece, file.bytes().size() - at);
    hash.update(file.bytes().subspan(at, n));
    file.drop(at, n);
  }
}

Result<std::string> file_sha256(const std::filesystem::path& path) {
  NARROW_ASSIGN(const MappedFile file, MappedFile::open(path));
  Sha256 hash;
  update(hash, file);
  return hash.hex();
}

}  // namespace narrow
