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
  using Turn = IqCodebook8::Turn;
  alignas(32) float t[8];
  const Lanes tv = load_lanes(x) * splat(inverse);
  std::memcpy(t, &tv, sizeof(t));
  const bool turn = kEven && odd(natural);
  IqCodebook8::Costs costs;
  IqCodebook8::Best best;
  best.place = code->place[0];
  book.tabulate(t, w, turn, &costs);
  int from = -1;
  if (!turn) {
    book.nearest(costs, Turn::kNone, &best);
  } else {
    book.nearest(costs, Turn::kLow, &best);
    const float in_low = best.cost;
    book.nearest(costs, Turn::kHigh, &best);
    from = best.cost < in_low ? 4 : 0;
  }
  const std::int8_t* level = book.values(best.place);
  code->place[0] = static_cast<std::uint16_t>(best.place);
  code->signs = natural;
  copy_levels(level, 8, q);
  if (from < 0) return;
  const int j = from + cheapest_turn(t + from, w + from, level + from, 4);
  code->signs = static_cast<std::uint8_t>(natural ^ (1u << j));
  q[j] = -q[j];
}

template <bool kEven>
void find_iq_group(const IqCodebook4& book, const float* x, const float* w, std::uint8_t natural,
                   float inverse, IqGroup* code, float* q) {
  using Turn = IqCodebook4::Turn;
  alignas(32) float t[8];
  const Lanes tv = load_lanes(x) * splat(inverse);
  std::memcpy(t, &tv, sizeof(t));
  const bool turn = kEven && odd(natural);
  IqCodebook4::Costs costs[2];
  IqCodebook4::Best best[2];
  for (int h = 0; h < 2; ++h) {
    best[h].place = code->place[h];
    book.tabulate(t + 4 * h, w + 4 * h, turn, &costs[h]);
    book.nearest(costs[h], Turn::kNone, &best[h]);
  }
  code->signs = natural;
  int which = -1, from = 0;
  if (turn) {
    // One of the two entries carries the turned sign; what that costs in the first bounds the second.
    float extra = std::numeric_limits<float>::infinity();
    IqCodebook4::Best chosen;
    for (int h = 0; h < 2; ++h) {
      for (const Turn half : {Turn::kLow, Turn::kHigh}) {
        IqCodebook4::Best turned{best[h].cost + extra, best[h].place};
        book.nearest(costs[h], half, &turned);
        if (!(turned.cost < best[h].cost + extra)) continue;
        extra = turned.cost - best[h].cost;
        chosen = turned;
        which = h;
        from = half == Turn::kLow ? 0 : 2;
      }
    }
    // Costs beyond float compare with nothing; the signs must be even all the same.
    if (which >= 0) {
      best[which] = chosen;
    } else {
      which = 0;
    }
  }
  for (int h = 0; h < 2; ++h) {
    code->place[h] = static_cast<std::uint16_t>(best[h].place);
    copy_levels(book.values(best[h].place), 4, q + 4 * h);
  }
  if (which < 0) return;
  const int begin = 4 * which + from;
  const int j = begin + cheapest_turn(t + begin, w + begin, book.values(best[which].place) + from, 2);
  code->signs = static_cast<std::uint8_t>(natural ^ (1u << j));
  q[j] = -q[j];
}

float find_iq1_place(const float* x, const float* w, float inverse, float shift, std::uint16_t* place) {
  alignas(32) float t[8];
  const Lanes tv = load_lanes(x) * splat(inverse) - splat(shift);
  std::memcpy(t, &tv, sizeof(t));
  IqCodebook8::Costs costs;
  IqCodebook8::Best best;
  best.place = *place;
  const IqCodebook8& book = iq1_codebook();
  book.tabulate(t, w, false, &costs);
  book.nearest(costs, IqCodebook8::Turn::kNone, &best);
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
