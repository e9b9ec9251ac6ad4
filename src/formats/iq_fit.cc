#include "formats/iq_fit.h"

#include <bit>

namespace narrow::formats {
namespace {

bool odd(std::uint32_t signs) { return (std::popcount(signs) & 1) != 0; }

void copy_levels(const std::int8_t* level, int n, float* q) {
  for (int j = 0; j < n; ++j) q[j] = static_cast<float>(level[j]);
}

}  // namespace

int cheapest_turn(const float* t, const float* w, const std::int8_t* level, int n) {
  int best = 0;
  float least = std::numeric_limits<float>::infinity();
  for (int j = 0; j < n; ++j) {
    const float c = w[j] * t[j] * static_cast<float>(level[j]);
    if (c < least) {
      least = c;
      best = j;
    }
  }
  return best;
}

template <bool kEven>
void find_iq_group(const IqCodebook8& book, const float* x, const float* w, std::uint8_t natural,
                   float inverse, IqGroup* code, float* q) {
  alignas(32) float t[8];
  const Lanes tv = load_lanes(x) * splat(inverse);
  std::memcpy(t, &tv, sizeof(t));
  IqCodebook8::Costs plain, flipped;
  IqCodebook8::Best best;
  best.place = code->place[0];
  if (!kEven || !odd(natural)) {
    book.tabulate(t, w, &plain, nullptr);
    book.nearest(plain.low, plain.high, &best);
    code->place[0] = static_cast<std::uint16_t>(best.place);
    code->signs = natural;
    copy_levels(book.values(best.place), 8, q);
    return;
  }
  book.tabulate(t, w, &plain, &flipped);
  book.nearest(flipped.low, plain.high, &best);
  const float in_low = best.cost;
  book.nearest(plain.low, flipped.high, &best);
  const int begin = best.cost < in_low ? 4 : 0;
  const std::int8_t* level = book.values(best.place);
  const int flip = begin + cheapest_turn(t + begin, w + begin, level + begin, 4);
  code->place[0] = static_cast<std::uint16_t>(best.place);
  code->signs = static_cast<std::uint8_t>(natural ^ (1u << flip));
  copy_levels(level, 8, q);
  q[flip] = -q[flip];
}

template <bool kEven>
void find_iq_group(const IqCodebook4& book, const float* x, const float* w, std::uint8_t natural,
                   float inverse, IqGroup* code, float* q) {
  alignas(32) float t[8];
  const Lanes tv = load_lanes(x) * splat(inverse);
  std::memcpy(t, &tv, sizeof(t));
  const bool flip = kEven && odd(natural);
  IqCodebook4::Best best[2], turned[2];
  int turned_at[2] = {};
  code->signs = natural;
  for (int h = 0; h < 2; ++h) {
    IqCodebook4::Costs plain, flipped;
    best[h].place = code->place[h];
    book.tabulate(t + 4 * h, w + 4 * h, &plain, flip ? &flipped : nullptr);
    book.nearest(plain.low, plain.high, &best[h]);
    if (!flip) continue;
    turned[h].place = best[h].place;
    book.nearest(flipped.low, plain.high, &turned[h]);
    const float in_low = turned[h].cost;
    book.nearest(plain.low, flipped.high, &turned[h]);
    turned_at[h] = turned[h].cost < in_low ? 2 : 0;
  }
  // One of the two entries carries the turned sign.
  const int which = flip ? (turned[0].cost + best[1].cost <= best[0].cost + turned[1].cost ? 0 : 1) : -1;
  for (int h = 0; h < 2; ++h) {
    const int place = which == h ? turned[h].place : best[h].place;
    const std::int8_t* level = book.values(place);
    code->place[h] = static_cast<std::uint16_t>(place);
    copy_levels(level, 4, q + 4 * h);
    if (which != h) continue;
    const int begin = turned_at[h];
    const int j = 4 * h + begin + cheapest_turn(t + 4 * h + begin, w + 4 * h + begin, level + begin, 2);
    code->signs = static_cast<std::uint8_t>(natural ^ (1u << j));
    q[j] = -q[j];
  }
}

float find_iq1_place(const float* x, const float* w, float inverse, float shift, std::uint16_t* place) {
  alignas(32) float t[8];
  const Lanes tv = load_lanes(x) * splat(inverse) - splat(shift);
  std::memcpy(t, &tv, sizeof(t));
  IqCodebook8::Costs costs;
  IqCodebook8::Best best;
  best.place = *place;
  const IqCodebook8& book = iq1_codebook();
  book.tabulate(t, w, &costs, nullptr);
  book.nearest(costs.low, costs.high, &best);
  *place = static_cast<std::uint16_t>(best.place);
  return best.cost;
}

template void find_iq_group<true>(const IqCodebook8&, const float*, const float*, std::uint8_t, float,
                                  IqGroup*, float*);
template void find_iq_group<false>(const IqCodebook8&, const float*, const float*, std::uint8_t, float,
                                   IqGroup*, float*);
template void find_iq_group<true>(const IqCodebook4&, const float*, const float*, std::uint8_t, float,
                                  IqGroup*, float*);
template void find_iq_group<false>(const IqCodebook4&, const float*, const float*, std::uint8_t, float,
                                   IqGroup*, float*);

}  // namespace narrow::formats
