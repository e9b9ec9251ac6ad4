// The second level of a super-block's scales: whole multiples of its f16 factors.
#pragma once

#include "base/scalar.h"

namespace narrow::formats {

// Of group g: scale = d * sc[g], min = -dmin * mn[g]. 8 or 16 groups are used.
struct SubScales {
  f16 d, dmin;
  int sc[16] = {}, mn[16] = {};
};

}  // namespace narrow::formats
