// The fit of a super-block of an iq format: 256 weights in blocks of 16 or 32 with odd integer scales,
// x = u * step * q with step = 1, 3, 5, ..., u a fixed multiple of the f16 super-block scale, q a codebook
// entry per group. Minimises sum w (x - decoded)^2:
// 1. each block is searched alone over a range of scales; codes found at a scale give a parabola in the
// scale,
//    an upper bound of the block's loss that holds everywhere;
// 2. from the lower envelopes of these parabolas come the best candidates for u and the steps, nearly free;
// 3. each candidate alternates exact codes for (u, steps) with the least-squares u for the codes.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "base/scalar.h"
#include "formats/block.h"
#include "formats/fit.h"
#include "formats/iq_codebook.h"
#include "formats/lanes.h"

namespace narrow::formats {

// The code of 8 weights: places in the codebook's order (one, or two of 4 weights) and signs (bit j: weight j
// is negative). In iq1: the place for each of the two shifts, and in signs the one that is used (0 or 1).
struct IqGroup {
  std::uint16_t place[2] = {};
  std::uint8_t signs = 0;
};

// With weights w, codes q: the scale qx / qq is best and lowers the loss by qx^2 / qq below that of zeros.
struct IqSums {
  float qx = 0, qq = 0;
  float gain(float scale) const { return scale * (2 * qx - scale * qq); }
  float scale() const { return qq > 0 ? qx / qq : 0; }
};

// What a codec's search of a block sees: n / 8 groups.
struct IqTarget {
  const float* x;               // magnitudes where signs are stored apart
  const float* w;               // positive weights
  const std::uint8_t* natural;  // signs per group
};

// Places and signs of 8 magnitudes x * inverse under weights w, and q[8], the levels against x: negative
// where the stored sign is not the natural one. kEven: the number of negative weights must be even.
template <bool kEven>
void find_iq_group(const IqCodebook8& book, const float* x, const float* w, std::uint8_t natural,
                   float inverse, IqGroup* code, float* q);
template <bool kEven>
void find_iq_group(const IqCodebook4& book, const float* x, const float* w, std::uint8_t natural,
                   float inverse, IqGroup* code, float* q);

// Among n magnitudes t under weights w, coded by `level`: the one whose sign costs least to turn.
int cheapest_turn(const float* t, const float* w, const std::int8_t* level, int n);

// iq1: the place whose values plus shift are nearest to x * inverse; `place` is where the search starts.
// Returns the cost.
float find_iq1_place(const float* x, const float* w, float inverse, float shift, std::uint16_t* place);

// A Codec has:
//   static constexpr int kBlock;          weights that share a step: 16 or 32
//   static constexpr int kSteps;          steps are 1, 3, ..., 2 kSteps - 1
//   static constexpr float kUnit;         u = kUnit * d
//   static constexpr float kBottom, kTop;  the least and greatest level
//   static constexpr float kTypical;        rms / scale of a normal block at its best
//   static constexpr bool kSigned;        the search sees x itself, not magnitudes and signs
//   static IqSums find(const IqTarget&, float scale, IqGroup* codes);   best codes of a block
template <class Codec>
class IqSuperBlock {
 public:
  static constexpr int kBlock = Codec::kBlock, kBlocks = kSuperBlock / kBlock, kGroups = kBlock / 8;

  f16 d{};
  int step[kBlocks] = {};  // index n of the step 2 n + 1
  IqGroup code[kSuperBlock / 8] = {};
  bool zero = true;

  IqSuperBlock(const float* x, const float* importance, bool search) {
    norm_ = normalize(x, kSuperBlock, x_);
    if (norm_.zero) return;
    zero = false;
    fill_weights(WeightRule::kMagnitude, x_, search ? importance : nullptr, kSuperBlock, w_);
    // Groups without any importance keep their values too.
    for (float& w : w_) w = search ? w + 1e-8f : 1.0f;
    if constexpr (!Codec::kSigned) {
      for (int g = 0; g < kSuperBlock / 8; ++g) {
        for (int j = 0; j < 8; ++j) natural_[g] |= static_cast<std::uint8_t>((x_[8 * g + j] < 0) << j);
      }
      for (float& v : x_) v = std::fabs(v);
    }
    if (search) {
      run();
    } else {
      plain();
    }
  }

 private:
  static constexpr int kScan = 16, kRefine = 1, kCandidates = 2, kRounds = 3;
  static constexpr int kLines = (kScan + 1 + kRefine + kCandidates * kRounds + 7) / 8 * 8;

  // Parabolas of a block; unused ones are zero, which bounds nothing.
  struct Envelope {
    alignas(32) float qx[kLines] = {}, qq[kLines] = {};
    int n = 0;
    float best_scale = 0, best_gain = 0;  // of the parabola with the greatest gain
    float best_qq = 0;

    void add(IqSums s) {
      qx[n] = s.qx;
      qq[n++] = s.qq;
      const float gain = s.qx * s.scale();
      if (s.qx > 0 && gain > best_gain) {
        best_gain = gain;
        best_scale = s.scale();
        best_qq = s.qq;
      }
    }
    float gain(float scale) const {
      const Lanes s = splat(scale);
      Lanes best{};
      for (int i = 0; i < kLines; i += 8) {
        best = max_lanes(best, s * ((load_lanes(qx + i) + load_lanes(qx + i)) - s * load_lanes(qq + i)));
      }
      const Lanes other = {best[4], best[5], best[6], best[7], 0, 0, 0, 0};
      best = max_lanes(best, other);
      return std::max(std::max(best[0], best[1]), std::max(best[2], best[3]));
    }
  };

  IqSums find(int b, float scale, IqGroup* codes) const {
    return Codec::find({x_ + kBlock * b, w_ + kBlock * b, natural_ + kGroups * b}, scale,
                       codes + kGroups * b);
  }

  static int clamp_step(float ratio) {
    return static_cast<int>(
        std::clamp(std::floor(ratio * 0.5f), 0.0f, static_cast<float>(Codec::kSteps - 1)));
  }

  // The textbook: the greatest magnitude of each block, and of the super-block, meets the end of its range.
  void plain() {
    float wanted[kBlocks], top = 0;
    for (int b = 0; b < kBlocks; ++b) {
      float m = 0;
      for (int j = 0; j < kBlock; ++j) m = std::max(m, std::fabs(x_[kBlock * b + j]));
      wanted[b] = m / Codec::kTop;
      top = std::max(top, wanted[b]);
    }
    d = norm_.store(top / (Codec::kUnit * static_cast<float>(2 * Codec::kSteps - 1)));
    const float u = norm_.load(d) * Codec::kUnit;
    if (!(u > 0)) return;
    for (int b = 0; b < kBlocks; ++b) {
      step[b] = clamp_step(wanted[b] / u);
      find(b, u * static_cast<float>(2 * step[b] + 1), code);
    }
  }

  void scan(int b, Envelope* lines) {
    const float* x = x_ + kBlock * b;
    const float* w = w_ + kBlock * b;
    float top = 0, sum = 0, sum_w = 0;
    for (int j = 0; j < kBlock; ++j) {
      top = std::max(top, std::fabs(x[j]));
      sum += w[j] * x[j] * x[j];
      sum_w += w[j];
    }
    if (!(top > 0)) return;
    const float rms = std::sqrt(sum / sum_w);
    // The scale of a normal block is near rms / kTypical; spikes and flat blocks lie farther out.
    const float low = 0.6f * std::min(rms, top) / Codec::kTypical;
    const float high =
        std::max(1.15f * low, std::min(1.7f * rms / Codec::kTypical, 1.2f * top / Codec::kTop));
    const float ratio = std::pow(high / low, 1.0f / (kScan - 1));
    float s = low;
    for (int i = 0; i < kScan; ++i, s *= ratio) lines->add(find(b, s, work_));
    lines->add(find(b, rms / Codec::kBottom, work_));
    for (int i = 0; i < kRefine; ++i) {
      if (lines->best_scale > 0) lines->add(find(b, lines->best_scale, work_));
    }
  }

  // The step index with the greatest envelope among those around the wanted scale.
  static int best_step(const Envelope& lines, float u, float* gain) {
    const int centre = clamp_step(lines.best_scale / u);
    int best = centre;
    *gain = lines.gain(u * static_cast<float>(2 * centre + 1));
    for (const int n : {centre - 1, centre + 1}) {
      if (n < 0 || n >= Codec::kSteps) continue;
      const float g = lines.gain(u * static_cast<float>(2 * n + 1));
      if (g > *gain) {
        *gain = g;
        best = n;
      }
    }
    return best;
  }

  void run() {
    Envelope lines[kBlocks];
    float top = 0;
    double gains = 0, squares = 0;
    for (int b = 0; b < kBlocks; ++b) {
      scan(b, &lines[b]);
      top = std::max(top, lines[b].best_scale);
      gains += static_cast<double>(lines[b].best_gain);
      squares += static_cast<double>(lines[b].best_qq);
    }
    if (!(top > 0) || !(squares > 0)) return;
    // From "the greatest block takes the last step" to where steps get coarse.
    constexpr int kGrid = 48;
    constexpr float kLast = 2 * Codec::kSteps - 1;
    const float low = std::min(top, 1.2f * static_cast<float>(std::sqrt(gains / squares))) / (kLast * 1.1f);
    const float ratio = std::pow(top / (kLast * 0.35f) / low, 1.0f / (kGrid - 1));
    float unit[kGrid], total[kGrid];
    float u = low;
    for (int i = 0; i < kGrid; ++i, u *= ratio) {
      unit[i] = u;
      total[i] = 0;
      for (int b = 0; b < kBlocks; ++b) {
        float gain;
        best_step(lines[b], u, &gain);
        total[i] += gain;
      }
    }
    double best_gain = 0;
    for (int c = 0; c < kCandidates; ++c) {
      int at = -1;
      for (int i = 0; i < kGrid; ++i) {
        const bool peak = (i == 0 || total[i] >= total[i - 1]) && (i == kGrid - 1 || total[i] > total[i + 1]);
        if (peak && (at < 0 || total[i] > total[at])) at = i;
      }
      if (at < 0) break;
      refine(unit[at], lines, &best_gain);
      total[at] = -1;
    }
  }

  void refine(float u, Envelope* lines, double* best_gain) {
    f16 stored = norm_.store(u / Codec::kUnit);
    int steps[kBlocks];
    for (int round = 0; round < kRounds; ++round) {
      u = norm_.load(stored) * Codec::kUnit;
      if (!(u > 0)) return;
      double gain = 0, qx = 0, qq = 0;
      for (int b = 0; b < kBlocks; ++b) {
        float bound;
        steps[b] = best_step(lines[b], u, &bound);
        const float multiple = static_cast<float>(2 * steps[b] + 1);
        const IqSums s = find(b, u * multiple, work_);
        lines[b].add(s);
        gain += static_cast<double>(s.gain(u * multiple));
        qx += static_cast<double>(multiple * s.qx);
        qq += static_cast<double>(multiple * multiple * s.qq);
      }
      if (gain > *best_gain) {
        *best_gain = gain;
        d = stored;
        std::copy(steps, steps + kBlocks, step);
        std::copy(work_, work_ + kSuperBlock / 8, code);
      }
      const f16 next = norm_.store(static_cast<float>(qx / qq) / Codec::kUnit);
      if (next.bits == stored.bits) return;
      stored = next;
    }
  }

  Normalizer norm_;
  alignas(32) float x_[kSuperBlock];
  alignas(32) float w_[kSuperBlock];
  std::uint8_t natural_[kSuperBlock / 8] = {};
  IqGroup work_[kSuperBlock / 8] = {};  // codes of the last search, where the next one starts
};

// The find() of iq1 codecs, whose groups are shifted in runs of kShared (1 or 4) that share a sign.
template <int kShared>
IqSums find_iq1_block(int n, const IqTarget& t, float scale, IqGroup* codes) {
  const float inverse = 1.0f / scale;
  Lanes qx{}, qq{};
  for (int first = 0; first < n / 8; first += kShared) {
    std::uint16_t place[2][kShared];
    float cost[2] = {};
    for (int s = 0; s < 2; ++s) {
      for (int g = 0; g < kShared; ++g) {
        place[s][g] = codes[first + g].place[s];
        const int at = 8 * (first + g);
        cost[s] += find_iq1_place(t.x + at, t.w + at, inverse, s == 0 ? kIQ1Delta : -kIQ1Delta, &place[s][g]);
      }
    }
    const int chosen = cost[1] < cost[0] ? 1 : 0;
    for (int g = 0; g < kShared; ++g) {
      IqGroup& c = codes[first + g];
      c = {{place[0][g], place[1][g]}, static_cast<std::uint8_t>(chosen)};
      alignas(32) float q[8];
      const std::int8_t* level = iq1_codebook().values(place[chosen][g]);
      for (int j = 0; j < 8; ++j)
        q[j] = static_cast<float>(level[j]) + (chosen == 0 ? kIQ1Delta : -kIQ1Delta);
      const int at = 8 * (first + g);
      const Lanes qv = load_lanes(q), wq = load_lanes(t.w + at) * qv;
      qx += wq * load_lanes(t.x + at);
      qq += wq * qv;
    }
  }
  return {sum_lanes(qx), sum_lanes(qq)};
}

// The find() of codecs with magnitudes and signs.
template <bool kEven, class Book>
IqSums find_signed_block(const Book& book, int n, const IqTarget& t, float scale, IqGroup* codes) {
  const float inverse = 1.0f / scale;
  Lanes qx{}, qq{};
  for (int g = 0; g < n / 8; ++g) {
    alignas(32) float q[8];
    find_iq_group<kEven>(book, t.x + 8 * g, t.w + 8 * g, t.natural[g], inverse, codes + g, q);
    const Lanes qv = load_lanes(q), wq = load_lanes(t.w + 8 * g) * qv;
    qx += wq * load_lanes(t.x + 8 * g);
    qq += wq * qv;
  }
  return {sum_lanes(qx), sum_lanes(qq)};
}

}  // namespace narrow::formats
