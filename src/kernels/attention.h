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
// Stored bytes are the same on every instruction set; sums of attention differ by rounding.
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
  // Rounding depends on the item's begin and end and not on anything else that runs (online softmax, Milakov
  // and Gimelshein 2018; in tiles as in Dao et al. 2022, FlashAttention).
  void (*attend)(const HeadLayout& layout, const AttentionItem& item, float* acc, float* max, float* sum,
                 float* scratch);
};

// Floats of work memory of attend, 64-byte aligned; the part that does not depend on layout and rows.
inline constexpr std::int64_t kAttentionTileFloats = 512;
std::size_t attention_scratch_floats(const HeadLayout& layout, std::int64_t rows);

}  // namespace narrow::kernels
