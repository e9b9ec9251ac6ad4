#include "model/int8_parts.h"

namespace narrow::model {

Result<std::optional<Int8Settings>> int8_settings(const io::gguf::Metadata& m, std::string_view file) {
  const std::optional<std::int64_t> version = m.get_int("narrow.int8.version");
  if (!version) return std::optional<Int8Settings>();
  if (*version != kInt8Version) {
    return make_error(ErrorCode::kUnsupported, "{}: int8 layout {}; this narrow knows {}", file, *version,
                      kInt8Version);
  }
  Int8Settings s;
  s.weight_bits = static_cast<int>(m.get_int("narrow.int8.weight_bits").value_or(8));
  if (s.weight_bits != 8 && s.weight_bits != 4) {
    return make_error(ErrorCode::kUnsupported, "{}: int8 products with weights of {} bits; 8 and 4 are known",
                      file, s.weight_bits);
  }
  const std::string activations = m.get_string("narrow.int8.activations").value_or("dynamic");
  if (activations != "dynamic" && activations != "static") {
    return make_error(ErrorCode::kUnsupported, "{}: '{}' activation scales; dynamic and static are known",
                      file, activations);
  }
  s.static_scales = activations == "static";
  s.asymmetric = m.get_bool("narrow.int8.asymmetric").value_or(false);
  if (s.asymmetric && s.weight_bits == 4) {
    return make_error(ErrorCode::kUnsupported, "{}: a zero point of activations needs weights of 8 bits",
                      file);
  }
  return std::optional<Int8Settings>(s);
}

void set_int8_settings(const Int8Settings& s, io::gguf::Metadata& m) {
  m.set_u32("narrow.int8.version", kInt8Version);
  m.set_u32("narrow.int8.weight_bits", static_cast<std::uint32_t>(s.weight_bits));
  m.set_string("narrow.int8.activations", s.static_scales ? "static" : "dynamic");
  m.set_bool("narrow.int8.asymmetric", s.asymmetric);
}

std::optional<std::string> int8_stem(std::string_view name) {
  using namespace int8_part;
  for (const std::string_view part : {kWeightScale, kInputScale, kInputZero, kOutlierIndex, kOutlierWeight}) {
    if (name.ends_with(part)) return std::string(name.substr(0, name.size() - part.size()));
  }
  return std::nullopt;
}

}  // namespace narrow::model
