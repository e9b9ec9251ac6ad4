#include "formats/iq_grids.h"

#include <gtest/gtest.h>

#include <sstream>
#include <string>

#include "testing/testing.h"

namespace narrow::formats {
namespace {

constexpr const char* kPython = R"py(
import gguf.quants as q
for name in ("IQ1_S", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"):
    cls = getattr(q, name)
    cls.init_grid()
    print(" ".join(str(int(v)) for v in cls.grid.ravel()))
print(" ".join(str(b) for b in q.IQ2_XXS.ksigns))
)py";

template <class Grid>
void expect_line(std::istream& in, const Grid& grid, const char* name) {
  std::string line;
  ASSERT_TRUE(std::getline(in, line)) << name;
  std::istringstream values(line);
  std::size_t i = 0;
  for (const auto& entry : grid) {
    for (const std::int8_t v : entry) {
      int want = 0;
      ASSERT_TRUE(values >> want) << name << " ends at value " << i;
      ASSERT_EQ(static_cast<int>(v), want) << name << " value " << i;
      ++i;
    }
  }
  int extra = 0;
  EXPECT_FALSE(values >> extra) << name << " has more values than " << i;
}

TEST(IqGrids, EqualThoseOfGguf) {
  NARROW_REQUIRE_PYTHON();
  std::istringstream in(testing::run_python(kPython));
  expect_line(in, kIQ1Grid, "iq1");
  expect_line(in, kIQ2XXSGrid, "iq2_xxs");
  expect_line(in, kIQ2XSGrid, "iq2_xs");
  expect_line(in, kIQ2SGrid, "iq2_s");
  expect_line(in, kIQ3XXSGrid, "iq3_xxs");
  expect_line(in, kIQ3SGrid, "iq3_s");
  for (std::uint32_t i = 0; i < 128; ++i) {
    int want = 0;
    ASSERT_TRUE(in >> want);
    EXPECT_EQ(static_cast<int>(iq_signs(i)), want) << "sign index " << i;
  }
}

}  // namespace
}  // namespace narrow::formats
