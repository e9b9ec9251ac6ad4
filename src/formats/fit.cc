#include "formats/fit.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "formats/lanes.h"

namespace narrow::formats {

namespace {

constexpr float kGreatestHalf = 65504.0f;
// Below half of the smallest half, 2^-25, a weight is nearest to zero in every format with f16 scales.
constexpr float kVanishes = 0x1p-26f;

float greatest_magnitude(const float* x, int n) {
  float m = 0;
  for (int i = 0; i < n; ++i) m = std::max(m, std::fabs(x[i]));
  return m;
}

}  // namespace

void fill_weights(WeightRule rule, const float* x, const float* importance, int n, float* w) {
  const float top_importance = importance != nullptr ? greatest_magnitude(importance, n) : 0.0f;
  if (top_importance > 0) {
    for (int i = 0; i < n; ++i) w[i] = importance[i] / top_importance;
    return;
  }
  const float top = rule == WeightRule::kMagnitude ? greatest_magnitude(x, n) : 0.0f;
  if (top == 0) {
    std::fill(w, w + n, 1.0f);
    return;
  }
  float sum_squares = 0;
  for (int i = 0; i < n; ++i) sum_squares += (x[i] / top) * (x[i] / top);
  const float mean_square = sum_squares / static_cast<float>(n);
  for (int i = 0; i < n; ++i) w[i] = std::sqrt(mean_square + (x[i] / top) * (x[i] / top));
}

f16 Normalizer::store(float fitted) const {
  // The product overflows for the largest floats; the clamp turns that into the greatest half as well.
  return to_f16(std::clamp(fitted * up, -kGreatestHalf, kGreatestHalf));
}

Normalizer normalize(const float* x, int n, float* fitted) {
  const float top = greatest_magnitude(x, n);
  Normalizer s;
  if (top < kVanishes) {
    std::fill(fitted, fitted + n, 0.0f);
    return s;
  }
  s.zero = false;
  const int exponent = std::ilogb(top) - 1;  // top * 2^-exponent in [2, 4); exponent in [-27, 126]
  s.up = std::ldexp(1.0f, exponent);
  s.down = std::ldexp(1.0f, -exponent);
  for (int i = 0; i < n; ++i) fitted[i] = x[i] * s.down;
  return s;
}

// ---- Symmetric: x = scale * q ----

template <int N>
SymmetricSums symmetric_sums(const float* x, const float* w, float scale, int lo, int hi) {
  const Lanes inverse = splat(scale != 0 ? 1 / scale : 0), s = splat(scale);
  const Lanes low = splat(static_cast<float>(lo)), high = splat(static_cast<float>(hi));
  Lanes rr{}, rq{}, qq{};
  for (int i = 0; i < N; i += 8) {
    const Lanes xv = load_lanes(x + i), wv = load_lanes(w + i);
    const Lanes q = round_lanes(min_lanes(max_lanes(xv * inverse, low), high));
    const Lanes r = xv - s * q;
    const Lanes wr = wv * r;
    rr += wr * r;
    rq += wr * q;
    qq += wv * q * q;
  }
  return {sum_lanes(rr), sum_lanes(rq), sum_lanes(qq)};
}

namespace {

// Codes for a scale, then the least-squares scale for those codes.
template <int N>
SymmetricFit refit_symmetric(const float* x, const float* w, float scale, int lo, int hi) {
  const SymmetricSums s = symmetric_sums<N>(x, w, scale, lo, hi);
  if (!(s.qq > 0)) return {scale, s.rr};
  // Residuals of the given scale, not raw moments: no cancellation when the loss is small.
  return {scale + s.rq / s.qq, std::max(s.rr - s.rq * s.rq / s.qq, 0.0f)};
}

}  // namespace

template <int N>
float symmetric_loss(const float* x, const float* w, float scale, int lo, int hi) {
  const Lanes inverse = splat(scale != 0 ? 1 / scale : 0), s = splat(scale);
  const Lanes low = splat(static_cast<float>(lo)), high = splat(static_cast<float>(hi));
  Lanes rr{};
  for (int i = 0; i < N; i += 8) {
    const Lanes xv = load_lanes(x + i);
    const Lanes r = xv - s * round_lanes(min_lanes(max_lanes(xv * inverse, low), high));
    rr += load_lanes(w + i) * r * r;
  }
  return sum_lanes(rr);
}

template <int N>
void symmetric_codes(const float* x, float scale, int lo, int hi, std::int8_t* q) {
  const float inverse = scale != 0 ? 1 / scale : 0;
  const Lanes low = splat(static_cast<float>(lo)), high = splat(static_cast<float>(hi));
  for (int i = 0; i < N; i += 8) {
    const Lanes v = round_lanes(min_lanes(max_lanes(load_lanes(x + i) * splat(inverse), low), high));
    for (int j = 0; j < 8; ++j) q[i + j] = static_cast<std::int8_t>(v[j]);
  }
}

// The grid runs over the code that the greatest weight gets, from above the end of the range (where it is cut
// off and the others gain resolution) down to well inside.
template <int N>
SymmetricFit fit_symmetric(const float* x, const float* w, int lo, int hi) {
  float top = 0;
  for (int i = 0; i < N; ++i) {
    if (std::fabs(x[i]) > std::fabs(top)) top = x[i];
  }
  if (top == 0) return {0, 0};
  const float reach = static_cast<float>(std::max(-lo, hi));
  constexpr int kSteps = 36;
  const float first = -0.12f * reach - 0.6f, last = std::min(0.35f * reach, 2.0f) + 0.5f;
  SymmetricFit best{0, std::numeric_limits<float>::max()};
  const int signs = -lo == hi ? 1 : 2;
  for (int sign = 0; sign < signs; ++sign) {
    const float end = sign == 0 ? -top : top;
    for (int step = 0; step <= kSteps; ++step) {
      const float code = reach + first + (last - first) * static_cast<float>(step) / kSteps;
      const SymmetricFit f = refit_symmetric<N>(x, w, end / code, lo, hi);
      if (f.loss < best.loss) best = f;
    }
  }
  for (int round = 0; round < 3; ++round) {
    const SymmetricFit f = refit_symmetric<N>(x, w, best.scale, lo, hi);
    if (!(f.loss < best.loss)) break;
    best = f;
  }
  return best;
}

SymmetricBlock encode_symmetric_block(const float* x, const float* importance, int lo, int hi,
                                      WeightRule rule, bool search) {
  constexpr int kN = 32;
  SymmetricBlock out{};
  float xs[kN], w[kN];
  const Normalizer norm = normalize(x, kN, xs);
  if (norm.zero) return out;
  float top = 0;
  for (float v : xs) {
    if (std::fabs(v) > std::fabs(top)) top = v;
  }
  // The textbook scale: the greatest weight meets the longer end of the range.
  out.d = norm.store(-lo > hi ? top / static_cast<float>(lo) : std::fabs(top) / static_cast<float>(hi));
  if (search) {
    fill_weights(rule, xs, importance, kN, w);
    float best = symmetric_loss<kN>(xs, w, norm.load(out.d), lo, hi);
    const f16 fitted = norm.store(fit_symmetric<kN>(xs, w, lo, hi).scale);
    // Rounding to f16 moves the scale off its optimum: try the neighbours as well.
    for (int step = -1; step <= 1; ++step) {
      const f16 d{static_cast<std::uint16_t>(fitted.bits + step)};
      if ((d.bits & 0x7c00) == 0x7c00) continue;
      const float loss = symmetric_loss<kN>(xs, w, norm.load(d), lo, hi);
      if (loss < best) {
        best = loss;
        out.d = d;
      }
    }
  }
  symmetric_codes<kN>(xs, norm.load(out.d), lo, hi, out.q);
  return out;
}

// ---- Affine: x = scale * q + min ----

template <int N>
AffineSums affine_sums(const float* x, const float* w, float scale, float min, int hi) {
  const Lanes inverse = splat(scale != 0 ? 1 / scale : 0), s = splat(scale), m = splat(min);
  const Lanes low = splat(0), high = splat(static_cast<float>(hi));
  Lanes rr{}, r1{}, rq{}, q1{}, qq{};
  for (int i = 0; i < N; i += 8) {
    const Lanes xv = load_lanes(x + i), wv = load_lanes(w + i);
    const Lanes q = round_lanes(min_lanes(max_lanes((xv - m) * inverse, low), high));
    const Lanes r = xv - (s * q + m);
    const Lanes wr = wv * r, wq = wv * q;
    rr += wr * r;
    r1 += wr;
    rq += wr * q;
    q1 += wq;
    qq += wq * q;
  }
  return {sum_lanes(rr), sum_lanes(r1), sum_lanes(rq), sum_lanes(q1), sum_lanes(qq)};
}

namespace {

// Codes for (scale, min), then the least-squares (scale, min) for those codes.
template <int N>
AffineFit refit_affine(const float* x, const float* w, float sum_w, float scale, float min, int hi,
                       float max_min) {
  const AffineSums s = affine_sums<N>(x, w, scale, min, hi);
  const float det = sum_w * s.qq - s.q1 * s.q1;
  if (det > 1e-6f * sum_w * s.qq) {
    const float ds = (sum_w * s.rq - s.q1 * s.r1) / det;
    const float dm = (s.qq * s.r1 - s.q1 * s.rq) / det;
    if (min + dm <= max_min && scale + ds > 0) {
      return {scale + ds, min + dm, std::max(s.rr - ds * s.rq - dm * s.r1, 0.0f)};
    }
  }
  // The optimum lies beyond max_min, or all codes are equal. Pin the min to its limit: what the residuals
  // become, and the best scale for them.
  if (max_min <= 0 && s.qq > 0) {
    const float dm = max_min - min;
    const float rq = s.rq - dm * s.q1;
    const float rr = s.rr - 2 * dm * s.r1 + dm * dm * sum_w;
    if (scale + rq / s.qq > 0) return {scale + rq / s.qq, max_min, std::max(rr - rq * rq / s.qq, 0.0f)};
  }
  return {scale, min, s.rr};
}

}  // namespace

template <int N>
float affine_loss(const float* x, const float* w, float scale, float min, int hi) {
  const Lanes inverse = splat(scale != 0 ? 1 / scale : 0), s = splat(scale), m = splat(min);
  const Lanes low = splat(0), high = splat(static_cast<float>(hi));
  Lanes rr{};
  for (int i = 0; i < N; i += 8) {
    const Lanes xv = load_lanes(x + i);
    const Lanes q = round_lanes(min_lanes(max_lanes((xv - m) * inverse, low), high));
    const Lanes r = xv - (s * q + m);
    rr += load_lanes(w + i) * r * r;
  }
  return sum_lanes(rr);
}

template <int N>
void affine_codes(const float* x, float scale, float min, int hi, std::uint8_t* q) {
  const float inverse = scale != 0 ? 1 / scale : 0;
  const Lanes low = splat(0), high = splat(static_cast<float>(hi));
  for (int i = 0; i < N; i += 8) {
    const Lanes v =
        round_lanes(min_lanes(max_lanes((load_lanes(x + i) - splat(min)) * splat(inverse), low), high));
    for (int j = 0; j < 8; ++j) q[i + j] = static_cast<std::uint8_t>(v[j]);
  }
}

template <int N>
AffineFit fit_affine(const float* x, const float* w, int hi, float max_min) {
  const float top = *std::max_element(x, x + N);
  const float bottom = std::min(*std::min_element(x, x + N), max_min);
  float sum_w = 0;
  for (int i = 0; i < N; ++i) sum_w += w[i];
  if (top <= bottom) return {0, bottom, affine_loss<N>(x, w, 0, bottom, hi)};
  const float range = top - bottom;
  const float levels = static_cast<float>(hi);
  AffineFit best{0, 0, std::numeric_limits<float>::max()};
  // Both ends move inwards and a little outwards, in steps of a fraction of a code.
  constexpr float kEnds[] = {-0.4f, -0.05f, 0.3f, 0.65f, 1.0f, 1.4f};
  const float unit = range / (levels + 1);
  for (float low_end : kEnds) {
    for (float high_end : kEnds) {
      const float width = range - (low_end + high_end) * unit;
      if (!(width > 0)) continue;
      const float start = std::min(bottom + low_end * unit, max_min);
      const AffineFit f = refit_affine<N>(x, w, sum_w, width / levels, start, hi, max_min);
      if (f.loss < best.loss) best = f;
    }
  }
  for (int round = 0; round < 6; ++round) {
    const AffineFit f = refit_affine<N>(x, w, sum_w, best.scale, best.min, hi, max_min);
    if (!(f.loss < best.loss)) break;
    best = f;
  }
  return best;
}

AffineBlock encode_affine_block(const float* x, const float* importance, int hi, WeightRule rule,
                                bool search) {
  constexpr int kN = 32;
  AffineBlock out{};
  float xs[kN], w[kN];
  const Normalizer norm = normalize(x, kN, xs);
  if (norm.zero) return out;
  const float top = *std::max_element(xs, xs + kN), bottom = *std::min_element(xs, xs + kN);
  out.d = norm.store((top - bottom) / static_cast<float>(hi));
  out.m = norm.store(bottom);
  if (search) {
    fill_weights(rule, xs, importance, kN, w);
    float best = affine_loss<kN>(xs, w, norm.load(out.d), norm.load(out.m), hi);
    const AffineFit fit = fit_affine<kN>(xs, w, hi, std::numeric_limits<float>::max());
    const f16 d0 = norm.store(fit.scale), m0 = norm.store(fit.min);
    for (int d_step = -1; d_step <= 1; ++d_step) {
      const f16 d{static_cast<std::uint16_t>(d0.bits + d_step)};
      if ((d.bits & 0xfc00) >= 0x7c00) continue;  // infinite, or below zero
      for (int m_step = -1; m_step <= 1; ++m_step) {
        const f16 m{static_cast<std::uint16_t>(m0.bits + m_step)};
        if ((m.bits & 0x7c00) == 0x7c00) continue;
        const float loss = affine_loss<kN>(xs, w, norm.load(d), norm.load(m), hi);
        if (loss < best) {
          best = loss;
          out.d = d;
          out.m = m;
        }
      }
    }
  }
  affine_codes<kN>(xs, norm.load(out.d), norm.load(out.m), hi, out.q);
  return out;
}

template SymmetricFit fit_symmetric<16>(const float*, const float*, int, int);
template SymmetricFit fit_symmetric<32>(const float*, const float*, int, int);
template float symmetric_loss<16>(const float*, const float*, float, int, int);
template float symmetric_loss<32>(const float*, const float*, float, int, int);
template SymmetricSums symmetric_sums<16>(const float*, const float*, float, int, int);
template SymmetricSums symmetric_sums<32>(const float*, const float*, float, int, int);
template void symmetric_codes<16>(const float*, float, int, int, std::int8_t*);
template void symmetric_codes<32>(const float*, float, int, int, std::int8_t*);
template AffineFit fit_affine<16>(const float*, const float*, int, float);
template AffineFit fit_affine<32>(const float*, const float*, int, float);
template float affine_loss<16>(const float*, const float*, float, float, int);
template float affine_loss<32>(const float*, const float*, float, float, int);
template AffineSums affine_sums<16>(const float*, const float*, float, float, int);
template AffineSums affine_sums<32>(const float*, const float*, float, float, int);
template void affine_codes<16>(const float*, float, float, int, std::uint8_t*);
template void affine_codes<32>(const float*, float, float, int, std::uint8_t*);

}  // namespace narrow::formats
