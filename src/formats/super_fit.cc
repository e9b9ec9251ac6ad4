#include "formats/super_fit.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "formats/block.h"

namespace narrow::formats {

namespace {

constexpr float kGreatest = std::numeric_limits<float>::max();

int nearest(float v, int lo, int hi) {
  return static_cast<int>(std::nearbyint(std::clamp(v, static_cast<float>(lo), static_cast<float>(hi))));
}

// ---- Symmetric ----

constexpr int kN = 16, kBlocks = 16;

struct SymmetricState {
  f16 d;
  int sc[kBlocks];
  float loss = kGreatest;
};

// For a given d: every block takes the best of the integer scales around its own fit.
void choose_scales(const SymmetricSuperSpec& spec, const float* x, const float* w, float d,
                   const float* target, SymmetricState* state) {
  state->loss = 0;
  for (int b = 0; b < kBlocks; ++b) {
    const int middle = d != 0 ? nearest(target[b] / d, spec.scale_lo, spec.scale_hi) : 0;
    float best = kGreatest;
    for (int sc = std::max(middle - 1, spec.scale_lo); sc <= std::min(middle + 1, spec.scale_hi); ++sc) {
      const float loss =
          symmetric_loss<kN>(x + kN * b, w + kN * b, d * static_cast<float>(sc), spec.code_lo, spec.code_hi);
      if (loss < best) {
        best = loss;
        state->sc[b] = sc;
      }
    }
    state->loss += best;
  }
}

// The d that fits best to the codes and integer scales of a state.
float refit_d(const SymmetricSuperSpec& spec, const float* x, const float* w, float d,
              const SymmetricState& state) {
  float rq = 0, qq = 0;
  for (int b = 0; b < kBlocks; ++b) {
    const float sc = static_cast<float>(state.sc[b]);
    const SymmetricSums s = symmetric_sums<kN>(x + kN * b, w + kN * b, d * sc, spec.code_lo, spec.code_hi);
    rq += sc * s.rq;
    qq += sc * sc * s.qq;
  }
  return qq > 0 ? d + rq / qq : d;
}

void search_symmetric(const SymmetricSuperSpec& spec, const float* x, const float* w, const Normalizer& norm,
                      SymmetricState* best) {
  float target[kBlocks];
  float top = 0;
  for (int b = 0; b < kBlocks; ++b) {
    target[b] = fit_symmetric<kN>(x + kN * b, w + kN * b, spec.code_lo, spec.code_hi).scale;
    if (std::fabs(target[b]) > std::fabs(top)) top = target[b];
  }
  // The greatest scale takes the integer `end` or its mirror image.
  const int reach = std::min(-spec.scale_lo, spec.scale_hi);
  for (int step = 0; step <= 8; ++step) {
    for (int sign = -1; sign <= 1; sign += 2) {
      const float end =
          static_cast<float>(sign) * (static_cast<float>(reach + 1) - static_cast<float>(step * reach) / 24);
      SymmetricState state;
      state.d = norm.store(top / end);
      choose_scales(spec, x, w, norm.load(state.d), target, &state);
      if (state.loss < best->loss) *best = state;
    }
  }
  for (int round = 0; round < 3; ++round) {
    SymmetricState state;
    const float d = refit_d(spec, x, w, norm.load(best->d), *best);
    state.d = norm.store(d);
    for (int b = 0; b < kBlocks; ++b) target[b] = norm.load(state.d) * static_cast<float>(best->sc[b]);
    choose_scales(spec, x, w, norm.load(state.d), target, &state);
    if (!(state.loss < best->loss)) break;
    *best = state;
  }
}

}  // namespace

void encode_symmetric_super_block(const SymmetricSuperSpec& spec, const float* x, const float* importance,
                                  bool search, SymmetricSuperBlock* out) {
  *out = {};
  float xs[kSuperBlock], w[kSuperBlock];
  const Normalizer norm = normalize(x, kSuperBlock, xs);
  if (norm.zero) return;
  fill_weights(spec.rule, xs, search ? importance : nullptr, kSuperBlock, w);

  // The textbook: each block's greatest weight meets the longer end of the codes, the greatest scale that of
  // the scales.
  float plain[kBlocks];
  float top_scale = 0;
  for (int b = 0; b < kBlocks; ++b) {
    float top = 0;
    for (int i = 0; i < kN; ++i) {
      if (std::fabs(xs[kN * b + i]) > std::fabs(top)) top = xs[kN * b + i];
    }
    plain[b] = top / static_cast<float>(spec.code_lo);
    if (std::fabs(plain[b]) > std::fabs(top_scale)) top_scale = plain[b];
  }
  SymmetricState best;
  best.d = norm.store(top_scale / static_cast<float>(spec.scale_lo));
  best.loss = 0;
  for (int b = 0; b < kBlocks; ++b) {
    const float d = norm.load(best.d);
    best.sc[b] = d != 0 ? nearest(plain[b] / d, spec.scale_lo, spec.scale_hi) : 0;
    best.loss += symmetric_loss<kN>(xs + kN * b, w + kN * b, d * static_cast<float>(best.sc[b]), spec.code_lo,
                                    spec.code_hi);
  }
  if (search) search_symmetric(spec, xs, w, norm, &best);

  out->d = best.d;
  for (int b = 0; b < kBlocks; ++b) {
    out->sc[b] = static_cast<std::int8_t>(best.sc[b]);
    symmetric_codes<kN>(xs + kN * b, norm.load(best.d) * static_cast<float>(best.sc[b]), spec.code_lo,
                        spec.code_hi, out->q + kN * b);
  }
}

// ---- Affine ----

namespace {

struct AffineState {
  f16 d, dmin;
  int sc[16], mn[16];
  float loss = kGreatest;
};

// A block's own best fit and the curvature of its loss around it, for fixed codes.
struct BlockModel {
  float scale, mn;  // mn = -min >= 0
  float qq, q1, sum_w;
};

template <int N>
struct AffineSearch {
  static constexpr int kCount = kSuperBlock / N;
  const AffineSuperSpec& spec;
  const float* x;
  const float* w;
  const Normalizer& norm;

  float loss(int b, float scale, float mn) const {
    return affine_loss<N>(x + N * b, w + N * b, scale, -mn, spec.code_hi);
  }

  // Integer scales for (d, dmin) by the quadratic model: both neighbours of the scale, and for each the min
  // that makes up best for its rounding. Returns the modelled loss above the unquantized fits.
  float choose_by_model(const BlockModel* model, float d, float dmin, AffineState* state) const {
    float total = 0;
    for (int b = 0; b < kCount; ++b) {
      const BlockModel& m = model[b];
      float best = kGreatest;
      const float at = d > 0 ? m.scale / d : 0;
      const int floor_sc =
          nearest(std::floor(std::min(at, static_cast<float>(spec.scale_hi))), 0, spec.scale_hi);
      for (int sc = floor_sc; sc <= std::min(floor_sc + 1, spec.scale_hi); ++sc) {
        const float ds = d * static_cast<float>(sc) - m.scale;
        const float wanted = m.mn + (m.sum_w > 0 ? m.q1 / m.sum_w * ds : 0);
        const int mn = dmin > 0 ? nearest(wanted / dmin, 0, spec.scale_hi) : 0;
        const float dm = m.mn - dmin * static_cast<float>(mn);  // change of the (negative) min
        const float loss_above = m.qq * ds * ds + 2 * m.q1 * ds * dm + m.sum_w * dm * dm;
        if (loss_above < best) {
          best = loss_above;
          state->sc[b] = sc;
          state->mn[b] = mn;
        }
      }
      total += best;
    }
    return total;
  }

  // Each block moves to the best neighbour (scale and min by one step), codes rounded anew, until none is
  // better.
  void improve_integers(AffineState* state) const {
    const float d = norm.load(state->d), dmin = norm.load(state->dmin);
    state->loss = 0;
    for (int b = 0; b < kCount; ++b) {
      float best = loss(b, d * static_cast<float>(state->sc[b]), dmin * static_cast<float>(state->mn[b]));
      for (int round = 0; round < 3; ++round) {
        const int sc0 = state->sc[b], mn0 = state->mn[b];
        for (int sc = std::max(sc0 - 1, 0); sc <= std::min(sc0 + 1, spec.scale_hi); ++sc) {
          for (int mn = std::max(mn0 - 1, 0); mn <= std::min(mn0 + 1, spec.scale_hi); ++mn) {
            if (sc == sc0 && mn == mn0) continue;
            const float l = loss(b, d * static_cast<float>(sc), dmin * static_cast<float>(mn));
            if (l < best) {
              best = l;
              state->sc[b] = sc;
              state->mn[b] = mn;
            }
          }
        }
        if (state->sc[b] == sc0 && state->mn[b] == mn0) break;
      }
      state->loss += best;
    }
  }

  // Weighted least squares for (d, dmin) with all integers fixed.
  void refit(AffineState* state) const {
    const float d = norm.load(state->d), dmin = norm.load(state->dmin);
    float gd = 0, gm = 0, dd = 0, dm = 0, mm = 0;
    for (int b = 0; b < kCount; ++b) {
      const float sc = static_cast<float>(state->sc[b]), mn = static_cast<float>(state->mn[b]);
      const AffineSums s = affine_sums<N>(x + N * b, w + N * b, d * sc, -dmin * mn, spec.code_hi);
      float sum_w = 0;
      for (int i = 0; i < N; ++i) sum_w += w[N * b + i];
      gd += sc * s.rq;
      gm -= mn * s.r1;
      dd += sc * sc * s.qq;
      dm -= sc * mn * s.q1;
      mm += mn * mn * sum_w;
    }
    const float det = dd * mm - dm * dm;
    float new_d = d, new_dmin = dmin;
    if (det > 1e-6f * dd * mm) {
      new_d += (mm * gd - dm * gm) / det;
      new_dmin += (dd * gm - dm * gd) / det;
    } else if (dd > 0) {
      new_d += gd / dd;
    }
    state->d = norm.store(std::max(new_d, 0.0f));
    state->dmin = norm.store(std::max(new_dmin, 0.0f));
  }

  void run(AffineState* best) const {
    BlockModel model[kCount];
    float top_scale = 0, top_mn = 0;
    for (int b = 0; b < kCount; ++b) {
      const AffineFit f = fit_affine<N>(x + N * b, w + N * b, spec.code_hi, 0.0f);
      const AffineSums s = affine_sums<N>(x + N * b, w + N * b, f.scale, f.min, spec.code_hi);
      float sum_w = 0;
      for (int i = 0; i < N; ++i) sum_w += w[N * b + i];
      model[b] = {f.scale, -f.min, s.qq, s.q1, sum_w};
      top_scale = std::max(top_scale, f.scale);
      top_mn = std::max(top_mn, -f.min);
    }
    // The greatest scale (min) takes an integer from a little above the end of the range downwards.
    constexpr int kSteps = 8, kKept = 3;
    struct Candidate {
      AffineState state;
      float modelled = kGreatest;
    };
    Candidate kept[kKept];
    for (int i = 0; i < kSteps; ++i) {
      for (int j = 0; j < kSteps; ++j) {
        const float end_d = static_cast<float>(spec.scale_hi) * (1.1f - 0.06f * static_cast<float>(i));
        const float end_m = static_cast<float>(spec.scale_hi) * (1.1f - 0.06f * static_cast<float>(j));
        Candidate c;
        c.state.d = norm.store(top_scale / end_d);
        c.state.dmin = norm.store(top_mn / end_m);
        c.modelled = choose_by_model(model, norm.load(c.state.d), norm.load(c.state.dmin), &c.state);
        for (Candidate& k : kept) {
          if (c.modelled < k.modelled) std::swap(c, k);
        }
      }
    }
    for (const Candidate& c : kept) {
      if (c.modelled == kGreatest) continue;
      AffineState state = c.state;
      improve_integers(&state);
      if (state.loss < best->loss) *best = state;
      for (int round = 0; round < 3; ++round) {
        AffineState next = state;
        refit(&next);
        improve_integers(&next);
        if (!(next.loss < state.loss)) break;
        state = next;
        if (state.loss < best->loss) *best = state;
      }
    }
  }
};

}  // namespace

template <int N>
void encode_affine_super_block(const AffineSuperSpec& spec, const float* x, const float* importance,
                               bool search, AffineSuperBlock* out) {
  constexpr int kCount = kSuperBlock / N;
  *out = {};
  float xs[kSuperBlock], w[kSuperBlock];
  const Normalizer norm = normalize(x, kSuperBlock, xs);
  if (norm.zero) return;
  fill_weights(spec.rule, xs, search ? importance : nullptr, kSuperBlock, w);
  const AffineSearch<N> searcher{spec, xs, w, norm};

  // The textbook: min and max of each block (and zero) meet the ends of the codes.
  float scale[kCount], mn[kCount];
  for (int b = 0; b < kCount; ++b) {
    const float* xb = xs + N * b;
    const float bottom = std::min(*std::min_element(xb, xb + N), 0.0f);
    const float top = std::max(*std::max_element(xb, xb + N), bottom);
    scale[b] = (top - bottom) / static_cast<float>(spec.code_hi);
    mn[b] = -bottom;
  }
  AffineState best;
  best.d = norm.store(*std::max_element(scale, scale + kCount) / static_cast<float>(spec.scale_hi));
  best.dmin = norm.store(*std::max_element(mn, mn + kCount) / static_cast<float>(spec.scale_hi));
  const float d = norm.load(best.d), dmin = norm.load(best.dmin);
  best.loss = 0;
  for (int b = 0; b < kCount; ++b) {
    best.sc[b] = d > 0 ? nearest(scale[b] / d, 0, spec.scale_hi) : 0;
    best.mn[b] = dmin > 0 ? nearest(mn[b] / dmin, 0, spec.scale_hi) : 0;
    best.loss += searcher.loss(b, d * static_cast<float>(best.sc[b]), dmin * static_cast<float>(best.mn[b]));
  }
  if (search) searcher.run(&best);

  out->d = best.d;
  out->dmin = best.dmin;
  for (int b = 0; b < kCount; ++b) {
    out->sc[b] = static_cast<std::uint8_t>(best.sc[b]);
    out->mn[b] = static_cast<std::uint8_t>(best.mn[b]);
    affine_codes<N>(xs + N * b, norm.load(best.d) * static_cast<float>(best.sc[b]),
                    -norm.load(best.dmin) * static_cast<float>(best.mn[b]), spec.code_hi, out->q + N * b);
  }
}

template void encode_affine_super_block<16>(const AffineSuperSpec&, const float*, const float*, bool,
                                            AffineSuperBlock*);
template void encode_affine_super_block<32>(const AffineSuperSpec&, const float*, const float*, bool,
                                            AffineSuperBlock*);

}  // namespace narrow::formats
