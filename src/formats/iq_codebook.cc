#include "formats/iq_codebook.h"

namespace narrow::formats {
namespace {

constexpr std::array<int, 3> kIQ1Levels = {-1, 0, 1};
constexpr std::array<int, 3> kIQ2Levels = {8, 25, 43};
constexpr std::array<int, 8> kIQ3XXSLevels = {4, 12, 20, 28, 36, 44, 52, 62};
constexpr std::array<int, 8> kIQ3SLevels = {1, 3, 5, 7, 9, 11, 13, 15};

}  // namespace

const IqCodebook8& iq1_codebook() {
  static const IqCodebook8 book(kIQ1Grid, kIQ1Levels);
  return book;
}

const IqCodebook8& iq2_xxs_codebook() {
  static const IqCodebook8 book(kIQ2XXSGrid, kIQ2Levels);
  return book;
}

const IqCodebook8& iq2_xs_codebook() {
  static const IqCodebook8 book(kIQ2XSGrid, kIQ2Levels);
  return book;
}

const IqCodebook8& iq2_s_codebook() {
  static const IqCodebook8 book(kIQ2SGrid, kIQ2Levels);
  return book;
}

const IqCodebook4& iq3_xxs_codebook() {
  static const IqCodebook4 book(kIQ3XXSGrid, kIQ3XXSLevels);
  return book;
}

const IqCodebook4& iq3_s_codebook() {
  static const IqCodebook4 book(kIQ3SGrid, kIQ3SLevels);
  return book;
}

}  // namespace narrow::formats
