// Models whose products run on int8 activations (docs/formats/int8.md): what the file says about them, and
// the tensors beside a weight "<stem>.weight".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "io/gguf/metadata.h"

namespace narrow::model {

inline constexpr std::uint32_t kInt8Version = 1;

struct Int8Settings {
  int weight_bits = 8;  // 8: int8 codes with a scale per output feature; 4: blocks of a 4-bit format
  bool static_scales = false;
  bool asymmetric = false;  // activations with a zero point
};

// nullopt for any other file. kUnsupported: a version or setting that this narrow does not know.
Result<std::optional<Int8Settings>> int8_settings(const io::gguf::Metadata& metadata, std::string_view file);
void set_int8_settings(const Int8Settings& settings, io::gguf::Metadata& metadata);

namespace int8_part {
inline constexpr std::string_view kWeightScale = ".weight_scale";    // f32 [n] or [n_expert, n]
inline constexpr std::string_view kInputScale = ".input_scale";      // f32 [1], static
inline constexpr std::string_view kInputZero = ".input_zero_point";  // i32 [1], static and asymmetric
inline constexpr std::string_view kOutlierIndex = ".outlier_index";  // i32 [c]
inline constexpr std::string_view kOutlierWeight =
    ".outlier_weight";  // f16 or f32 [n, c] or [n_expert, n, c]
}  // namespace int8_part

// "blk.0.attn_q" of "blk.0.attn_q.weight_scale"; nullopt for a tensor that is none of these parts.
std::optional<std::string> int8_stem(std::string_view tensor_name);

}  // namespace narrow::model
