// Attention over a paged KV cache: how one head's keys and values lie in a page, and the kernels on them.
//
// A page holds kPagePositions positions. Of one key head it holds, from `offset` on (HeadLayout):
//   keys    4 panels of 16 positions, each element-major with one lane per position, so that scores are
//           sums of q[d] * K[d][16] and need no sums across lanes:
//             f32, f16: [head_dim][16]
//             q8_0:     fp16 scales [head_dim / 32][16], then int8 codes [head_dim][16]
//             q4_0:     fp16 scales [head_dim / 32][16], then bytes [head_dim / 2][16]: low nibble = element
//                       2i, high nibble = element 2i + 1, code 0..15 stands for code - 8
//   values  at values_offset, one row per position: f32 and f16 rows are padded to padded_dim elements,
//           q8_0 and q4_0 rows are stored rows of that format (formats/q8_0.h, formats/q4_0.h).
// The 8- and 4-bit codes share one scale per 32 neighbours along head_dim:
//   q8_0: S = fp16(absmax / 127), q = round to nearest even (x * (1 / S)), cut to -127 .. 127;
//   q4_0: S = fp16(v / -8) of the v with the largest magnitude, q = round(x * (1 / S)) + 8, cut to 0 .. 15;
//   a scale of 0 (or so small that its inverse is infinite) has codes of value 0.
//
// Stored bytes and results have the same bits on every instruction set, because the order of operations is
// part of the contract. All are fp32, rounded to nearest even; fma(a, b, c) = a * b + c is rounded once, what
// is not written as fma is rounded one by one.
//   rotation  butterflies (x[j], x[j + half]) = (x[j] + x[j + half], x[j] - x[j + half]) for half = 1, 2, 4
//   ..,
//             then every element * (1 / sqrt(rotation)).
//   query     q'[d] = q[d] * s, then rotated if keys are; s = scale * log2 e, or scale if there is a softcap.
//   elements  of keys and values: f16 exactly, quantized ones code * scale.
//   score     x = fma(q'[d], k[d], x) from x = 0, d = 0 .. head_dim - 1; with a softcap c then
//             x = (c * log2 e) * (1 - 2 / (exp2(min(x * (2 * log2 e / c), 60)) + 1)). Its unit is ln 2.
//   softmax   of a row goes in blocks, the visited positions of one page each, in order. Per block, over the
//             positions p that the row sees (the others change no bit):
//               m' = the largest of m (at first -1e30) and the scores, f = exp2(m - m'), e[p] = exp2(x[p] -
//               m'); lane[i] = fma(lane[i], f, t[i]), where t[i] adds up e[p] of p % 16 = i in order, i = 0
//               .. 15; acc[j] = acc[j] * f, then acc[j] = fma(e[p], v[p][j], acc[j]) in order of p.
//             At last lane[i] += lane[i + half], i < half, for half = 8, 4, 2, 1: lane[0] is the sum; m * ln
//             2 is the maximum; zeros lose their sign.
//   exp2      2^x for x <= 60 to about 1e-7 relative, 0 for x < -126: x = n + r, n = x rounded to nearest
//   even,
//             p * 2^n with p the polynomial c0 r^6 + .. + c6 by Horner's rule in fma, c
//             = 1.535336188319500e-4,
//             1.339887440266574e-3, 9.618437357674640e-3, 5.550332471162809e-2, 2.402264791363012e-1,
//             6.931472028550421e-1, 1 (those of Cephes' exp2f, Moshier 1989).
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/result.h"
#include "formats/format.h"

namespace narrow::kernels {

inline constexpr std::int64_t kPagePositions = 64;
inline constexpr std::int64_t kPanelPositions = 16;
inline constexpr std::int64_t kMaxHeadDim = 1024;

// One key head in a page. Made by head_layout() only.
struct HeadLayout {
  Format keys = Format::kF16, values = Format::kF16;
  std::int64_t head_dim = 0;
  std::int64_t padded_dim = 0;  // head_dim rounded up to kPanelPositions
  std::int64_t rotation = 0;    // elements per Walsh-Hadamard block of keys and queries; 0: not rotated
  std::size_t panel_bytes = 0, value_row_bytes = 0;
  std::size_t values_offset = 0, bytes = 0;  // multiples of 64
};

// kUnsupported: a format other than f32, f16, q8_0, q4_0, or a quantized one whose blocks of 32 do not fill
// head_dim. Rotation is over the largest power of two that divides head_dim.
Result<HeadLayout> head_layout(Format keys, Format values, std::int64_t head_dim, bool rotate_keys);

// Queries of one key head: row r = token r / group, head r % group of the group.
struct AttentionItem {
  const float* q = nullptr;   // head 0 of token 0; the heads of a token follow each other
  std::int64_t q_stride = 0;  // floats between tokens
  std::int64_t tokens = 0, group = 0;
  std::int64_t first = 0;           // position of token 0
  std::int64_t begin = 0, end = 0;  // positions to visit; each row sees those of them that its mask allows
  const std::byte* const* pages = nullptr;  // by position / kPagePositions; read in [begin, end) only
  std::size_t offset = 0;                   // of the head in a page
  float scale = 1.0f, softcap = 0.0f;       // softcap 0: none
  std::int64_t window = 0;                  // position p sees p - window + 1 .. p; 0: all up to p

  std::int64_t rows() const { return tokens * group; }
};

struct AttentionKernels {
  // Writes one position's key and value (head_dim floats each) into slot 0 .. 63 of a page's head.
  void (*store)(const HeadLayout& layout, const float* key, const float* value, std::int64_t slot,
                std::byte* head);
  // Softmax over the visited positions, not yet divided: for each row r, with s = cap(scale * q.k) and over
  // the positions that the row sees, max[r] = max s, sum[r] = sum of e^(s - max), acc[r, :] = sum of
  // e^(s - max) * v. A row that sees none has max -infinity, sum 0, acc 0. acc is [rows, padded_dim].
  // A row's bits depend on the item's begin and end and not on the rows beside it or on anything else that
  // runs (online softmax, Milakov and Gimelshein 2018; in tiles as in Dao et al. 2022, FlashAttention).
  void (*attend)(const HeadLayout& layout, const AttentionItem& item, float* acc, float* max, float* sum,
                 float* scratch);
};

// Floats of work memory of attend, 64-byte aligned; the part that does not depend on layout and rows.
inline constexpr std::int64_t kAttentionTileFloats = 512;
std::size_t attention_scratch_floats(const HeadLayout& layout, std::int64_t rows);

}  // namespace narrow::kernels
