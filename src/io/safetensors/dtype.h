// The dtype names of safetensors headers.
#pragma once

#include <optional>
#include <string_view>

#include "formats/format.h"

namespace narrow::io::safetensors {

std::optional<Format> format_of_dtype(std::string_view dtype);
std::optional<std::string_view> dtype_of_format(Format format);  // nullopt: safetensors has no such dtype

}  // namespace narrow::io::safetensors
