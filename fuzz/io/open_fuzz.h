// What both readers are held to: open() gives a reader whose tensors all lie in the file, or an error in one
// line that names the file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "io/memory_file.h"

namespace narrow::io {

inline void require(bool ok) {
  if (!ok) std::abort();
}

template <class Reader>
void open_and_read(const std::uint8_t* data, std::size_t size) {
  static MemoryFile file;
  if (!file.set({reinterpret_cast<const char*>(data), size})) return;
  const auto r = Reader::open(file.path());
  if (!r.ok()) {
    require(r.error().message.find(file.path().string()) != std::string::npos);
    require(r.error().message.find('\n') == std::string::npos);
    return;
  }
  volatile unsigned sum = 0;
  for (const auto& t : r->tensors()) {
    require(r->find(t.info.name) == &t);
    require(t.offset <= size && t.info.bytes() <= size - t.offset);
    const TensorView view = r->view(t);
    for (std::size_t i = 0; i < t.info.bytes(); ++i) sum = sum + static_cast<unsigned>(view.data[i]);
  }
}

}  // namespace narrow::io
