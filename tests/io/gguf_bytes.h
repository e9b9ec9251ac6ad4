// GGUF files put together field by field, also wrong ones; and a text form of metadata to compare with
// Python's.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>

#include "io/gguf/metadata.h"

namespace narrow::io::gguf {

class Bytes {
 public:
  template <class T>
  Bytes& put(T x) {
    static_assert(std::is_arithmetic_v<T>);
    out_.append(reinterpret_cast<const char*>(&x), sizeof x);
    return *this;
  }
  Bytes& u32(std::uint64_t x) { return put(static_cast<std::uint32_t>(x)); }
  Bytes& u64(std::uint64_t x) { return put(x); }
  Bytes& raw(std::string_view s) {
    out_ += s;
    return *this;
  }
  Bytes& str(std::string_view s) { return u64(s.size()).raw(s); }
  Bytes& preamble(std::uint64_t tensors, std::uint64_t keys, std::uint32_t version = 3) {
    return raw("GGUF").u32(version).u64(tensors).u64(keys);
  }
  Bytes& key(std::string_view name, ValueType type) {
    return str(name).u32(static_cast<std::uint64_t>(type));
  }
  // A tensor info; dims in the stored order.
  Bytes& tensor(std::string_view name, std::initializer_list<std::uint64_t> dims, std::uint32_t type,
                std::uint64_t offset) {
    str(name).u32(dims.size());
    for (const std::uint64_t d : dims) u64(d);
    return u32(type).u64(offset);
  }
  Bytes& pad(std::size_t alignment = 32) {
    out_.resize((out_.size() + alignment - 1) / alignment * alignment, '\0');
    return *this;
  }
  Bytes& zeros(std::size_t n) {
    out_.append(n, '\0');
    return *this;
  }
  const std::string& text() const { return out_; }

 private:
  std::string out_;
};

inline std::string hex(std::string_view bytes) {
  std::string s;
  for (const char c : bytes) s += fmt::format("{:02x}", static_cast<unsigned char>(c));
  return s;
}

template <class T>
std::string describe_item(const T& x) {
  if constexpr (std::is_same_v<T, bool>) {
    return x ? "1" : "0";
  } else if constexpr (std::is_floating_point_v<T>) {
    return hex({reinterpret_cast<const char*>(&x), sizeof x});
  } else if constexpr (std::is_integral_v<T>) {
    return fmt::format("{:d}", x);
  } else if constexpr (std::is_same_v<T, std::string>) {
    return "'" + hex(x) + "'";
  } else {
    static_assert(std::is_same_v<T, Array>);
    return std::visit(
        [&](const auto& items) {
          std::string s = fmt::format("[{}", value_type_name(x.type));
          for (const typename std::decay_t<decltype(items)>::value_type& item : items)
            s += " " + describe_item(item);
          return s + "]";
        },
        x.items);
  }
}

// One line per key: "name type value"; floats and strings as the hex of their bytes.
inline std::string describe(const Metadata& m) {
  std::string s;
  for (const auto& [key, value] : m.entries()) {
    s += fmt::format("{} {} {}\n", key, value_type_name(value.type()),
                     std::visit([](const auto& x) { return describe_item(x); }, value.v));
  }
  return s;
}

// Python: `describe_field(field)` prints the same line for a field of gguf.GGUFReader.
inline constexpr const char* kDescribePython = R"py(
import sys, struct, hashlib, json
import numpy as np
import gguf
NAMES = {'UINT8':'u8','INT8':'i8','UINT16':'u16','INT16':'i16','UINT32':'u32','INT32':'i32','FLOAT32':'f32',
         'BOOL':'bool','STRING':'string','ARRAY':'array','UINT64':'u64','INT64':'i64','FLOAT64':'f64'}
def item(x, t):
    if t == 'bool': return '1' if x else '0'
    if t == 'f32': return struct.pack('<f', x).hex()
    if t == 'f64': return struct.pack('<d', x).hex()
    if t == 'string': return "'" + x.encode('utf-8').hex() + "'"
    return str(int(x))
def line(name, types, value):
    t = [NAMES[x.name] for x in types]
    if t[0] == 'array':
        return f"{name} array [{' '.join([t[1]] + [item(x, t[1]) for x in value])}]"
    return f"{name} {t[0]} {item(value, t[0])}"
def describe_field(f):
    if f.types[0] == gguf.GGUFValueType.ARRAY and f.types[1] == gguf.GGUFValueType.STRING:
        return line(f.name, f.types, [bytes(f.parts[i]).decode('utf-8') for i in f.data])
    if f.types[0] == gguf.GGUFValueType.ARRAY:
        return line(f.name, f.types, [x for i in f.data for x in f.parts[i].tolist()])
    return line(f.name, f.types, f.contents())
)py";

}  // namespace narrow::io::gguf
