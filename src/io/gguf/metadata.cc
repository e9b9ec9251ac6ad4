#include "io/gguf/metadata.h"

#include <limits>
#include <type_traits>

namespace narrow::io::gguf {
namespace {

template <class T>
std::optional<std::int64_t> widen(T x) {
  if constexpr (std::is_same_v<T, std::uint64_t>) {
    if (x > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) return std::nullopt;
  }
  return static_cast<std::int64_t>(x);
}

template <class T>
inline constexpr bool kIsInteger = std::is_integral_v<T> && !std::is_same_v<T, bool>;

template <class T>
Value array_value(ValueType type, std::vector<T> items) {
  Array a;
  a.type = type;
  a.items = std::move(items);
  return Value{std::move(a)};
}

}  // namespace

std::string_view value_type_name(ValueType t) {
  switch (t) {
    case ValueType::kU8:
      return "u8";
    case ValueType::kI8:
      return "i8";
    case ValueType::kU16:
      return "u16";
    case ValueType::kI16:
      return "i16";
    case ValueType::kU32:
      return "u32";
    case ValueType::kI32:
      return "i32";
    case ValueType::kF32:
      return "f32";
    case ValueType::kBool:
      return "bool";
    case ValueType::kString:
      return "string";
    case ValueType::kArray:
      return "array";
    case ValueType::kU64:
      return "u64";
    case ValueType::kI64:
      return "i64";
    case ValueType::kF64:
      return "f64";
  }
  return "unknown";
}

std::size_t Array::size() const {
  return std::visit([](const auto& v) { return v.size(); }, items);
}

void Metadata::set(std::string key, Value value) {
  const auto it = index_.find(key);
  if (it != index_.end()) {
    entries_[it->second].second = std::move(value);
    return;
  }
  index_.emplace(key, entries_.size());
  entries_.emplace_back(std::move(key), std::move(value));
}

void Metadata::set_strings(std::string key, std::vector<std::string> x) {
  set(std::move(key), array_value(ValueType::kString, std::move(x)));
}
void Metadata::set_i32s(std::string key, std::vector<std::int32_t> x) {
  set(std::move(key), array_value(ValueType::kI32, std::move(x)));
}
void Metadata::set_f32s(std::string key, std::vector<float> x) {
  set(std::move(key), array_value(ValueType::kF32, std::move(x)));
}
void Metadata::set_bools(std::string key, std::vector<bool> x) {
  set(std::move(key), array_value(ValueType::kBool, std::move(x)));
}

void Metadata::erase(std::string_view key) {
  const auto it = index_.find(key);
  if (it == index_.end()) return;
  const std::size_t at = it->second;
  index_.erase(it);
  entries_.erase(entries_.begin() + static_cast<std::ptrdiff_t>(at));
  for (auto& [name, i] : index_) {
    if (i > at) --i;
  }
}

const Value* Metadata::find(std::string_view key) const {
  const auto it = index_.find(key);
  return it == index_.end() ? nullptr : &entries_[it->second].second;
}

std::optional<std::int64_t> Metadata::get_int(std::string_view key) const {
  const Value* value = find(key);
  if (!value) return std::nullopt;
  return std::visit(
      [](const auto& x) -> std::optional<std::int64_t> {
        if constexpr (kIsInteger<std::decay_t<decltype(x)>>) {
          return widen(x);
        } else {
          return std::nullopt;
        }
      },
      value->v);
}

std::optional<double> Metadata::get_float(std::string_view key) const {
  const Value* value = find(key);
  if (!value) return std::nullopt;
  return std::visit(
      [](const auto& x) -> std::optional<double> {
        using T = std::decay_t<decltype(x)>;
        if constexpr (kIsInteger<T> || std::is_floating_point_v<T>) {
          return static_cast<double>(x);
        } else {
          return std::nullopt;
        }
      },
      value->v);
}

std::optional<bool> Metadata::get_bool(std::string_view key) const {
  const Value* value = find(key);
  const bool* x = value ? std::get_if<bool>(&value->v) : nullptr;
  return x ? std::optional<bool>(*x) : std::nullopt;
}

std::optional<std::string> Metadata::get_string(std::string_view key) const {
  const Value* value = find(key);
  const std::string* x = value ? std::get_if<std::string>(&value->v) : nullptr;
  return x ? std::optional<std::string>(*x) : std::nullopt;
}

const std::vector<std::string>* Metadata::get_strings(std::string_view key) const {
  const Value* value = find(key);
  const Array* a = value ? std::get_if<Array>(&value->v) : nullptr;
  return a ? std::get_if<std::vector<std::string>>(&a->items) : nullptr;
}

std::optional<std::vector<std::int64_t>> Metadata::get_ints(std::string_view key) const {
  const Value* value = find(key);
  const Array* a = value ? std::get_if<Array>(&value->v) : nullptr;
  if (!a) return std::nullopt;
  return std::visit(
      [](const auto& items) -> std::optional<std::vector<std::int64_t>> {
        using T = typename std::decay_t<decltype(items)>::value_type;
        if constexpr (kIsInteger<T>) {
          std::vector<std::int64_t> out;
          out.reserve(items.size());
          for (const T x : items) {
            const auto wide = widen(x);
            if (!wide) return std::nullopt;
            out.push_back(*wide);
          }
          return out;
        } else {
          return std::nullopt;
        }
      },
      a->items);
}

std::optional<std::vector<float>> Metadata::get_floats(std::string_view key) const {
  const Value* value = find(key);
  const Array* a = value ? std::get_if<Array>(&value->v) : nullptr;
  if (!a) return std::nullopt;
  return std::visit(
      [](const auto& items) -> std::optional<std::vector<float>> {
        using T = typename std::decay_t<decltype(items)>::value_type;
        if constexpr (std::is_floating_point_v<T>) {
          std::vector<float> out;
          out.reserve(items.size());
          for (const T x : items) out.push_back(static_cast<float>(x));
          return out;
        } else {
          return std::nullopt;
        }
      },
      a->items);
}

std::optional<std::vector<bool>> Metadata::get_bools(std::string_view key) const {
  const Value* value = find(key);
  const Array* a = value ? std::get_if<Array>(&value->v) : nullptr;
  const auto* items = a ? std::get_if<std::vector<bool>>(&a->items) : nullptr;
  return items ? std::optional<std::vector<bool>>(*items) : std::nullopt;
}

}  // namespace narrow::io::gguf
