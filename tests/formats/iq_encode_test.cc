// The searches behind the iq encoders beside brute force over every entry and sign pattern.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#include "base/rng.h"
#include "formats/iq_codebook.h"
#include "formats/iq_fit.h"
#include "testing/testing.h"

namespace narrow::formats {
namespace {

// Targets that fall between, on and beyond the levels; weights over six decades.
struct Draw {
  float x[8], w[8];
  explicit Draw(Rng& rng, float size) {
    for (float& v : x) v = std::fabs(size * rng.normal());
    for (float& v : w) v = std::exp(2.5f * rng.normal());
  }
};

template <class Book>
constexpr int kWidth = 8;
template <>
constexpr int kWidth<IqCodebook4> = 4;

// The least cost of 8 magnitudes over all entries, with an odd (true) number of signs turned or none.
template <class Book>
double brute_force(const Book& book, const Draw& t, bool turn) {
  constexpr int kN = kWidth<Book>;
  const double inf = std::numeric_limits<double>::infinity();
  double straight = 0, turned = inf;  // over the parts so far
  for (int part = 0; part < 8 / kN; ++part) {
    double best = inf, best_turned = inf;
    for (int e = 0; e < book.size(); ++e) {
      double cost = 0, extra = inf;
      for (int j = 0; j < kN; ++j) {
        const double x = t.x[kN * part + j], w = t.w[kN * part + j], q = book.values(e)[j];
        cost += w * (x - q) * (x - q);
        extra = std::min(extra, w * ((x + q) * (x + q) - (x - q) * (x - q)));
      }
      best = std::min(best, cost);
      best_turned = std::min(best_turned, cost + extra);
    }
    turned = std::min(turned + best, straight + best_turned);
    straight += best;
  }
  return turn ? turned : straight;
}

template <bool kEven, class Book>
void expect_best(const char* name, const Book& book, float size) {
  Rng rng(3);
  IqGroup code;  // keeps its places: a search starts where the last one ended
  for (int i = 0; i < 400; ++i) {
    const Draw t(rng, size);
    const auto natural = static_cast<std::uint8_t>(rng.next_u64() & 0xff);
    const bool odd = std::popcount(natural) % 2 != 0;
    float q[8];
    find_iq_group<kEven>(book, t.x, t.w, natural, 1.0f, &code, q);
    double cost = 0;
    for (int j = 0; j < 8; ++j) {
      const double r = static_cast<double>(t.x[j]) - static_cast<double>(q[j]);
      cost += static_cast<double>(t.w[j]) * r * r;
      const int level = book.values(code.place[j / kWidth<Book>])[j % kWidth<Book>];
      const bool turned = (((code.signs ^ natural) >> j) & 1) != 0;
      EXPECT_EQ(q[j], static_cast<float>(turned ? -level : level)) << name << ": levels and code differ";
    }
    if (kEven) {
      EXPECT_EQ(std::popcount(code.signs) % 2, 0) << name;
    } else {
      EXPECT_EQ(code.signs, natural) << name;
    }
    const double best = brute_force(book, t, kEven && odd);
    EXPECT_NEAR(cost, best, 1e-4 * best + 1e-6) << name << " draw " << i;
  }
}

TEST(IqEncode, GroupsAreTheBestOfAllEntriesAndSigns) {
  expect_best<true>("iq2_xxs", iq2_xxs_codebook(), 20);
  expect_best<true>("iq2_xs", iq2_xs_codebook(), 20);
  expect_best<false>("iq2_s", iq2_s_codebook(), 20);
  expect_best<true>("iq3_xxs", iq3_xxs_codebook(), 25);
  expect_best<false>("iq3_s", iq3_s_codebook(), 6);
}

TEST(IqEncode, ShiftedGroupsAreTheBestOfAllEntries) {
  Rng rng(4);
  const IqCodebook8& book = iq1_codebook();
  std::uint16_t place = 0;
  for (int i = 0; i < 300; ++i) {
    Draw t(rng, 1);
    for (float& v : t.x) v = rng.normal();
    const float shift = i % 2 == 0 ? kIQ1Delta : -kIQ1Delta;
    const auto cost_of = [&](int e) {
      double cost = 0;
      for (int j = 0; j < 8; ++j) {
        const double r = static_cast<double>(t.x[j]) - static_cast<double>(shift) - book.values(e)[j];
        cost += static_cast<double>(t.w[j]) * r * r;
      }
      return cost;
    };
    const float cost = find_iq1_place(t.x, t.w, 1.0f, shift, &place);
    double best = cost_of(0);
    for (int e = 1; e < book.size(); ++e) best = std::min(best, cost_of(e));
    EXPECT_NEAR(static_cast<double>(cost), best, 1e-4 * best + 1e-6);
    EXPECT_NEAR(cost_of(place), best, 1e-4 * best + 1e-6);
  }
}

TEST(IqEncode, TheCheapestFewAreInOrderAndComplete) {
  Rng rng(5);
  const IqCodebook4& book = iq3_s_codebook();
  for (int i = 0; i < 100; ++i) {
    const Draw t(rng, 6);
    IqCodebook4::Costs costs;
    book.tabulate(t.x, t.w, false, &costs);
    IqCodebook4::Best few[12];
    ASSERT_EQ(book.nearest_few(costs, IqCodebook4::Turn::kNone, 12, 1e9f, few), 12);
    std::vector<double> all;
    for (int e = 0; e < book.size(); ++e) {
      double cost = 0;
      for (int j = 0; j < 4; ++j) {
        const double r = static_cast<double>(t.x[j]) - book.values(e)[j];
        cost += static_cast<double>(t.w[j]) * r * r;
      }
      all.push_back(cost);
    }
    std::sort(all.begin(), all.end());
    for (std::size_t n = 0; n < 12; ++n) {
      EXPECT_NEAR(static_cast<double>(few[n].cost), all[n], 1e-4 * all[n] + 1e-6);
    }
  }
}

}  // namespace
}  // namespace narrow::formats
