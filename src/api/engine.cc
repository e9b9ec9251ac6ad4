#include "api/engine.h"

#include "formats/format.h"

namespace narrow::api {
namespace {

constexpr std::string_view kFloat = "float";

Status parse_cache_type(const std::string& name, std::string_view option, std::optional<Format>& out) {
  if (name.empty()) return {};
  const FormatInfo* info = find_format(std::string_view(name));
  if (info != nullptr) {
    switch (info->format) {
      case Format::kF32:
      case Format::kF16:
      case Format::kQ8_0:
      case Format::kQ4_0:
        out = info->format;
        return {};
      default:
        break;
    }
  }
  return make_error(ErrorCode::kInvalidArgument, "{} '{}': use f32, f16, q8_0 or q4_0", option, name);
}

}  // namespace

Result<runtime::LoadOptions> load_options(const EngineOptions& options) {
  runtime::LoadOptions out;
  if (options.compute == "w8a8") {
    out.compute = runtime::Compute::kW8A8;
  } else if (options.compute == "w8a8-asymmetric") {
    out.compute = runtime::Compute::kW8A8Asymmetric;
  } else if (options.compute == "simulate") {
    out.compute = runtime::Compute::kSimulate;
  } else if (options.compute == kFloat) {
    out.compute = runtime::Compute::kFloat;
  } else if (options.compute != "stored") {
    return make_error(ErrorCode::kInvalidArgument,
                      "--compute '{}': use stored, w8a8, w8a8-asymmetric, simulate or float",
                      options.compute);
  }
  return out;
}

Result<runtime::SessionOptions> session_options(const EngineOptions& options, std::int64_t n_ctx) {
  runtime::SessionOptions out;
  out.n_ctx = n_ctx;
  if (options.compute == kFloat) out.cache_keys = out.cache_values = Format::kF32;
  NARROW_TRY(parse_cache_type(options.cache_type_k, "--cache-type-k", out.cache_keys));
  NARROW_TRY(parse_cache_type(options.cache_type_v, "--cache-type-v", out.cache_values));
  out.rotate_keys = options.rotate_keys;
  return out;
}

}  // namespace narrow::api
