#include "model/arch/fields.h"

#include <algorithm>
#include <cmath>

namespace narrow::model {
namespace {

// A value for an error message: short, on one line.
std::string shown(const Json& v) {
  std::string s = v.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (s.size() > 60) s = s.substr(0, 57) + "...";
  return s;
}

std::string joined(std::initializer_list<std::string_view> keys) {
  std::string s;
  for (std::string_view k : keys) s += (s.empty() ? "'" : " or '") + std::string(k) + "'";
  return s;
}

}  // namespace

const Json* HfFields::find(std::string_view key) const {
  if (!object_.is_object()) return nullptr;
  const auto it = object_.find(key);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

void HfFields::fail(Error e) {
  if (!root()->error_) root()->error_ = std::move(e);
}

void HfFields::reject(std::string_view key, std::string_view why, ErrorCode code) {
  const Json* v = find(key);
  fail(make_error(code, "{}: '{}{}' is {}: {}", file_, prefix_, key, v ? shown(*v) : "absent", why));
}

std::int64_t HfFields::integer(std::initializer_list<std::string_view> keys, std::int64_t low,
                               std::int64_t high, std::optional<std::int64_t> fallback) {
  for (std::string_view key : keys) {
    const Json* v = find(key);
    if (!v) continue;
    std::int64_t x = 0;
    if (v->is_number_unsigned()) {
      const auto u = v->get<std::uint64_t>();
      x = u > static_cast<std::uint64_t>(INT64_MAX) ? INT64_MAX : static_cast<std::int64_t>(u);
    } else if (v->is_number_integer()) {
      x = v->get<std::int64_t>();
    } else if (v->is_number_float() && std::abs(v->get<double>()) < 9e15 &&
               std::trunc(v->get<double>()) == v->get<double>()) {
      x = static_cast<std::int64_t>(v->get<double>());
    } else {
      reject(key, "an integer is needed");
      return fallback.value_or(low);
    }
    if (x < low || x > high) {
      reject(key, fmt::format("it must be from {} to {}", low, high));
      return fallback.value_or(low);
    }
    return x;
  }
  if (!fallback) fail(make_error(ErrorCode::kCorrupt, "{}: {}{} is missing", file_, prefix_, joined(keys)));
  return fallback.value_or(low);
}

double HfFields::number(std::initializer_list<std::string_view> keys, double low, double high,
                        std::optional<double> fallback) {
  for (std::string_view key : keys) {
    const Json* v = find(key);
    if (!v) continue;
    if (!v->is_number()) {
      reject(key, "a number is needed");
      return fallback.value_or(low);
    }
    const double x = v->get<double>();
    if (!(x >= low && x <= high)) {
      reject(key, fmt::format("it must be from {} to {}", low, high));
      return fallback.value_or(low);
    }
    return x;
  }
  if (!fallback) fail(make_error(ErrorCode::kCorrupt, "{}: {}{} is missing", file_, prefix_, joined(keys)));
  return fallback.value_or(low);
}

bool HfFields::boolean(std::string_view key, bool fallback) {
  const Json* v = find(key);
  if (!v) return fallback;
  if (v->is_boolean()) return v->get<bool>();
  reject(key, "true or false is needed");
  return fallback;
}

std::string HfFields::text(std::initializer_list<std::string_view> keys, std::string_view fallback) {
  for (std::string_view key : keys) {
    const Json* v = find(key);
    if (!v) continue;
    if (v->is_string()) return v->get<std::string>();
    reject(key, "a string is needed");
    break;
  }
  return std::string(fallback);
}

std::vector<double> HfFields::numbers(std::string_view key) {
  const Json* v = find(key);
  if (!v) return {};
  std::vector<double> out;
  if (v->is_array()) {
    for (const Json& item : *v) {
      if (!item.is_number()) break;
      out.push_back(item.get<double>());
    }
  }
  if (!v->is_array() || out.size() != v->size()) {
    reject(key, "a list of numbers is needed");
    return {};
  }
  return out;
}

std::vector<std::string> HfFields::texts(std::string_view key) {
  const Json* v = find(key);
  if (!v) return {};
  std::vector<std::string> out;
  if (v->is_array()) {
    for (const Json& item : *v) {
      if (!item.is_string()) break;
      out.push_back(item.get<std::string>());
    }
  }
  if (!v->is_array() || out.size() != v->size()) {
    reject(key, "a list of strings is needed");
    return {};
  }
  return out;
}

void GgufFields::fail(Error e) {
  if (!error_) error_ = std::move(e);
}

void GgufFields::reject(std::string_view key, std::string_view value, std::string_view why, ErrorCode code) {
  fail(make_error(code, "{}: metadata key '{}' is {}: {}", file_, full(key), value, why));
}

std::int64_t GgufFields::integer(std::string_view key, std::int64_t low, std::int64_t high,
                                 std::optional<std::int64_t> fallback) {
  const std::string name = full(key);
  if (!metadata_.has(name)) {
    if (!fallback) fail(make_error(ErrorCode::kCorrupt, "{}: metadata key '{}' is missing", file_, name));
    return fallback.value_or(low);
  }
  std::optional<std::int64_t> x = metadata_.get_int(name);
  if (!x) {
    const auto list = metadata_.get_ints(name);
    if (list && !list->empty()) {
      if (std::any_of(list->begin(), list->end(), [&](std::int64_t v) { return v != list->front(); })) {
        reject(key, "a list of different numbers", "layers of different sizes are not supported",
               ErrorCode::kUnsupported);
        return fallback.value_or(low);
      }
      x = list->front();
    }
  }
  if (!x) {
    reject(key, "no integer", "an integer is needed");
    return fallback.value_or(low);
  }
  if (*x < low || *x > high) {
    reject(key, fmt::format("{}", *x), fmt::format("it must be from {} to {}", low, high));
    return fallback.value_or(low);
  }
  return *x;
}

double GgufFields::number(std::string_view key, double low, double high, std::optional<double> fallback) {
  const std::string name = full(key);
  if (!metadata_.has(name)) {
    if (!fallback) fail(make_error(ErrorCode::kCorrupt, "{}: metadata key '{}' is missing", file_, name));
    return fallback.value_or(low);
  }
  const auto x = metadata_.get_float(name);
  if (!x) {
    reject(key, "no number", "a number is needed");
    return fallback.value_or(low);
  }
  if (!(*x >= low && *x <= high)) {
    reject(key, fmt::format("{}", *x), fmt::format("it must be from {} to {}", low, high));
    return fallback.value_or(low);
  }
  return *x;
}

bool GgufFields::boolean(std::string_view key, bool fallback) {
  if (!has(key)) return fallback;
  const auto x = metadata_.get_bool(full(key));
  if (!x) reject(key, "no boolean", "true or false is needed");
  return x.value_or(fallback);
}

std::string GgufFields::text(std::string_view key, std::string_view fallback) {
  if (!has(key)) return std::string(fallback);
  const auto x = metadata_.get_string(full(key));
  if (!x) reject(key, "no string", "a string is needed");
  return x.value_or(std::string(fallback));
}

std::vector<bool> GgufFields::booleans(std::string_view key) {
  return metadata_.get_bools(full(key)).value_or(std::vector<bool>());
}

}  // namespace narrow::model
