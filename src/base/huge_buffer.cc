#include "base/huge_buffer.h"

#include <sys/mman.h>

#include <cstdint>
#include <new>
#include <utility>

namespace narrow {
namespace {
constexpr std::size_t kHugePage = std::size_t{2} << 20;
}

HugeBuffer::HugeBuffer(std::size_t bytes) {
  if (bytes == 0) return;
  mapping_bytes_ = bytes + kHugePage;  // room to start on a huge page
  mapping_ = mmap(nullptr, mapping_bytes_, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping_ == MAP_FAILED) {
    mapping_ = nullptr;
    throw std::bad_alloc();
  }
  const auto start = reinterpret_cast<std::uintptr_t>(mapping_);
  data_ = reinterpret_cast<std::byte*>((start + kHugePage - 1) / kHugePage * kHugePage);
  size_ = bytes;
  // Only the whole huge pages: the tail must not make resident what nobody asked for.
  madvise(data_, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
}

HugeBuffer::~HugeBuffer() {
  if (mapping_ != nullptr) munmap(mapping_, mapping_bytes_);
}

void HugeBuffer::swap(HugeBuffer& o) noexcept {
  std::swap(data_, o.data_);
  std::swap(size_, o.size_);
  std::swap(mapping_, o.mapping_);
  std::swap(mapping_bytes_, o.mapping_bytes_);
}

}  // namespace narrow
