// Scale fits of one block, shared by the encoders: which scale (and min) and which codes lose least.
// The loss of a block is sum_i w_i (x_i - decoded_i)^2. The fits start from a grid of scales around absmax or
// min/max and alternate two exact steps: best codes for a scale (rounding), best scale for codes (weighted
// least squares). Results do not depend on the machine: sums run in eight fixed lanes, without fused
// operations.
#pragma once

#include <cstdint>

#include "base/scalar.h"
#include "formats/format.h"

namespace narrow::formats {

// How an encoder weights errors when nothing is known about the activations.
enum class WeightRule : std::uint8_t {
  kUniform,    // w = 1: plain squared error
  kMagnitude,  // w = sqrt(rms^2 + x^2), rms over the fitted block or super-block
};

// w[n], the greatest about 1, so that sums cannot overflow. With importances: proportional to them, so that
// the search lowers sum(importance * error^2), the diagonal estimate of the layer's output error; their
// product with sqrt(rms^2 + x^2) was measured and lost. Without, or where all are zero: the rule. Why
// kMagnitude: the largest weights of a row tend to sit on the inputs that matter, so cutting them off costs
// more than squared error says. On the layers of SmolLM2-135M, output errors in q4_0, q5_0, q3_k and q4_k
// were least, or within 1 % of it, with this weight; 1 clips too much, x^2 gives up the small weights.
void fill_weights(WeightRule rule, const float* x, const float* importance, int n, float* w);

// Brings a block into a range where squares neither overflow nor vanish, by an exact power of two.
struct Normalizer {
  bool zero = true;  // every element decodes to 0 in any format with f16 scales
  float up = 1;      // stored = fitted * up
  float down = 1;    // fitted = stored * down
  // The half that stores a fitted scale; never infinite.
  f16 store(float fitted) const;
  // What a stored half means in the fitted range.
  float load(f16 stored) const { return to_f32(stored) * down; }
};
// Writes x * down, with greatest magnitude in [2, 4), unless the block is zero.
Normalizer normalize(const float* x, int n, float* fitted);

// x = scale * q, q in [lo, hi] (lo < 0 <= hi).
struct SymmetricFit {
  float scale = 0;
  float loss = 0;
};
// Weighted sums over a block with the best codes for a scale; r = x - scale * q.
struct SymmetricSums {
  float rr = 0, rq = 0, qq = 0;
};
// Both signs of the scale are tried where the range is not symmetric. N is 16 or 32, here and below.
template <int N>
SymmetricFit fit_symmetric(const float* x, const float* w, int lo, int hi);
// Loss of the best codes for a given scale; the codes themselves.
template <int N>
float symmetric_loss(const float* x, const float* w, float scale, int lo, int hi);
template <int N>
SymmetricSums symmetric_sums(const float* x, const float* w, float scale, int lo, int hi);
template <int N>
void symmetric_codes(const float* x, float scale, int lo, int hi, std::int8_t* q);

// Weighted sums over a block with the best codes for a scale and min; r = x - (scale * q + min).
struct AffineSums {
  float rr = 0, r1 = 0, rq = 0, q1 = 0, qq = 0;
};
// x = scale * q + min, q in [0, hi], scale >= 0. max_min limits min from above: 0 for formats that only
// subtract.
struct AffineFit {
  float scale = 0, min = 0;
  float loss = 0;
};
template <int N>
AffineFit fit_affine(const float* x, const float* w, int hi, float max_min);
template <int N>
float affine_loss(const float* x, const float* w, float scale, float min, int hi);
template <int N>
AffineSums affine_sums(const float* x, const float* w, float scale, float min, int hi);
template <int N>
void affine_codes(const float* x, float scale, float min, int hi, std::uint8_t* q);

// Blocks of 32 with scales in f16 and no second level: q4_0, q5_0, q8_0 and q4_1, q5_1.
struct SymmetricBlock {
  f16 d;
  std::int8_t q[32];
};
struct AffineBlock {
  f16 d, m;
  std::uint8_t q[32];
};
SymmetricBlock encode_symmetric_block(const float* x, const float* importance, int lo, int hi,
                                      WeightRule rule, bool search);
AffineBlock encode_affine_block(const float* x, const float* importance, int hi, WeightRule rule,
                                bool search);

}  // namespace narrow::formats
