#include "formats/unit_codec.h"

#include "formats/iq1_m.h"
#include "formats/iq1_s.h"
#include "formats/iq2_s.h"
#include "formats/iq2_xs.h"
#include "formats/iq2_xxs.h"
#include "formats/iq3_s.h"
#include "formats/iq3_xxs.h"

namespace narrow::formats {

const UnitCodec* unit_codec(Format f) {
  struct Row {
    Format format;
    UnitCodec codec;
  };
  static constexpr Row kRows[] = {
      {Format::kIQ1_S, {8, decide_iq1_s}},     {Format::kIQ1_M, {8, decide_iq1_m, -1}},
      {Format::kIQ2_XXS, {8, decide_iq2_xxs}}, {Format::kIQ2_XS, {8, decide_iq2_xs}},
      {Format::kIQ2_S, {8, decide_iq2_s}},     {Format::kIQ3_XXS, {8, decide_iq3_xxs}},
      {Format::kIQ3_S, {4, decide_iq3_s}},
  };
  for (const Row& row : kRows) {
    if (row.format == f) return &row.codec;
  }
  return nullptr;
}

}  // namespace narrow::formats
