// Memory for what is streamed through again and again: whole pages straight from the system, huge ones where
// it has them, so that address translation does not cost a large part of the read bandwidth.
#pragma once

#include <cstddef>

namespace narrow {

class HugeBuffer {
 public:
  HugeBuffer() = default;
  // Zeroed. Throws std::bad_alloc.
  explicit HugeBuffer(std::size_t bytes);
  HugeBuffer(HugeBuffer&& o) noexcept { swap(o); }
  HugeBuffer& operator=(HugeBuffer&& o) noexcept {
    swap(o);
    return *this;
  }
  HugeBuffer(const HugeBuffer&) = delete;
  HugeBuffer& operator=(const HugeBuffer&) = delete;
  ~HugeBuffer();

  std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }

 private:
  void swap(HugeBuffer& o) noexcept;

  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  void* mapping_ = nullptr;
  std::size_t mapping_bytes_ = 0;
};

}  // namespace narrow
