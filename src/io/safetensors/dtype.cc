#include "io/safetensors/dtype.h"

namespace narrow::io::safetensors {
namespace {

struct Row {
  std::string_view dtype;
  Format format;
};
constexpr Row kRows[] = {
    {"F64", Format::kF64},   {"F32", Format::kF32},         {"F16", Format::kF16},
    {"BF16", Format::kBF16}, {"F8_E4M3", Format::kF8_E4M3}, {"F8_E5M2", Format::kF8_E5M2},
    {"I64", Format::kI64},   {"I32", Format::kI32},         {"I16", Format::kI16},
    {"I8", Format::kI8},     {"U64", Format::kU64},         {"U32", Format::kU32},
    {"U16", Format::kU16},   {"U8", Format::kU8},           {"BOOL", Format::kBool},
};

}  // namespace

std::optional<Format> format_of_dtype(std::string_view dtype) {
  for (const Row& r : kRows) {
    if (r.dtype == dtype) return r.format;
  }
  return std::nullopt;
}

std::optional<std::string_view> dtype_of_format(Format format) {
  for (const Row& r : kRows) {
    if (r.format == format) return r.dtype;
  }
  return std::nullopt;
}

}  // namespace narrow::io::safetensors
