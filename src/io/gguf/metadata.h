// GGUF metadata: ordered key -> typed value, as https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/result.h"

namespace narrow::io::gguf {

// On-disk value type ids.
enum class ValueType : std::uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};
std::string_view value_type_name(ValueType t);  // "u32", "string", ...

struct Value;
// Homogeneous. Scalars of one type are kept in a vector of that type.
struct Array {
  ValueType type = ValueType::kU32;  // of the items
  std::variant<std::vector<std::uint8_t>, std::vector<std::int8_t>, std::vector<std::uint16_t>,
               std::vector<std::int16_t>, std::vector<std::uint32_t>, std::vector<std::int32_t>,
               std::vector<float>, std::vector<bool>, std::vector<std::string>, std::vector<Array>,
               std::vector<std::uint64_t>, std::vector<std::int64_t>, std::vector<double>>
      items;  // alternative index == on-disk type id
  std::size_t size() const;
};

struct Value {
  std::variant<std::uint8_t, std::int8_t, std::uint16_t, std::int16_t, std::uint32_t, std::int32_t, float,
               bool, std::string, Array, std::uint64_t, std::int64_t, double>
      v;  // alternative index == on-disk type id
  ValueType type() const { return static_cast<ValueType>(v.index()); }
};

// Keeps insertion order; a key is there once. Typed getters accept any integer width that holds the value.
class Metadata {
 public:
  void set(std::string key, Value value);  // replaces in place
  void set_u32(std::string key, std::uint32_t x) { set(std::move(key), Value{x}); }
  void set_i32(std::string key, std::int32_t x) { set(std::move(key), Value{x}); }
  void set_u64(std::string key, std::uint64_t x) { set(std::move(key), Value{x}); }
  void set_f32(std::string key, float x) { set(std::move(key), Value{x}); }
  void set_bool(std::string key, bool x) { set(std::move(key), Value{x}); }
  void set_string(std::string key, std::string x) { set(std::move(key), Value{std::move(x)}); }
  void set_strings(std::string key, std::vector<std::string> x);
  void set_i32s(std::string key, std::vector<std::int32_t> x);
  void set_f32s(std::string key, std::vector<float> x);
  void set_bools(std::string key, std::vector<bool> x);
  void erase(std::string_view key);

  const Value* find(std::string_view key) const;
  bool has(std::string_view key) const { return find(key) != nullptr; }
  // nullopt when absent or of another kind.
  std::optional<std::int64_t> get_int(std::string_view key) const;
  std::optional<double> get_float(std::string_view key) const;  // also from integers
  std::optional<bool> get_bool(std::string_view key) const;
  std::optional<std::string> get_string(std::string_view key) const;
  // Null when absent or of another kind. Lists of integers widen to i64, of floats to f32.
  const std::vector<std::string>* get_strings(std::string_view key) const;
  std::optional<std::vector<std::int64_t>> get_ints(std::string_view key) const;
  std::optional<std::vector<float>> get_floats(std::string_view key) const;
  std::optional<std::vector<bool>> get_bools(std::string_view key) const;

  const std::vector<std::pair<std::string, Value>>& entries() const { return entries_; }

 private:
  std::vector<std::pair<std::string, Value>> entries_;
  std::map<std::string, std::size_t, std::less<>> index_;
};

}  // namespace narrow::io::gguf
