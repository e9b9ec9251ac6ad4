// Owned memory aligned to 64 bytes (a cache line, and the widest vector load).
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>
#include <span>

namespace narrow {

inline constexpr std::size_t kBufferAlignment = 64;

// Uninitialised array of a trivial T.
template <class T>
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(std::size_t n) { resize(n); }
  // Old contents are lost. Throws std::bad_alloc, which the API layer turns into kOutOfMemory.
  void resize(std::size_t n) {
    if (n == size_) return;
    data_.reset();
    size_ = 0;
    if (n == 0) return;
    const std::size_t bytes = (n * sizeof(T) + kBufferAlignment - 1) / kBufferAlignment * kBufferAlignment;
    data_.reset(static_cast<T*>(std::aligned_alloc(kBufferAlignment, bytes)));
    if (!data_) throw std::bad_alloc();
    size_ = n;
  }
  // Grows if needed, never shrinks; old contents are lost when it grows.
  void reserve_at_least(std::size_t n) {
    if (n > size_) resize(n);
  }
  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  std::size_t size() const { return size_; }
  T& operator[](std::size_t i) { return data_.get()[i]; }
  const T& operator[](std::size_t i) const { return data_.get()[i]; }
  std::span<T> span() { return {data_.get(), size_}; }
  std::span<const T> span() const { return {data_.get(), size_}; }

 private:
  struct Free {
    void operator()(T* p) const { std::free(p); }
  };
  std::unique_ptr<T, Free> data_;
  std::size_t size_ = 0;
};

}  // namespace narrow
