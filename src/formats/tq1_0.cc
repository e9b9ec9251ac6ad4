#include "formats/tq1_0.h"

#include "formats/ternary_fit.h"

namespace narrow::formats {
namespace {

// A run of bytes that hold `digits` base-3 digits each: digit n of byte j is weight n * bytes + j.
// The stored byte is ceil(value * 256 / 243) of a five-digit value (missing digits are 0), so that
// multiplying by 3 pushes the next digit into the ninth and tenth bit.
constexpr int kPowers[5] = {1, 3, 9, 27, 81};

void unpack_digits(const std::uint8_t* packed, int bytes, int digits, float d, float* dst) {
  for (int n = 0; n < digits; ++n) {
    for (int j = 0; j < bytes; ++j) {
      const auto shifted = static_cast<std::uint8_t>(packed[j] * kPowers[n]);
      dst[n * bytes + j] = d * static_cast<float>(((shifted * 3) >> 8) - 1);
    }
  }
}

void pack_digits(const std::uint8_t* t, int bytes, int digits, std::uint8_t* packed) {
  for (int j = 0; j < bytes; ++j) {
    int value = 0;
    for (int n = 0; n < digits; ++n) value += t[n * bytes + j] * kPowers[4 - n];
    packed[j] = static_cast<std::uint8_t>((value * 256 + 242) / 243);
  }
}

// The three runs of a block in bytes (two in qs, one in qh), and where the later two start in weights.
constexpr int kRun0 = 32, kRun1 = 16, kRun2 = 4;
constexpr int kStart1 = 5 * kRun0, kStart2 = kStart1 + 5 * kRun1;
static_assert(kStart2 + 4 * kRun2 == kSuperBlock);

void pack(const std::uint8_t* q, BlockTQ1_0& b) {
  pack_digits(q, kRun0, 5, b.qs);
  pack_digits(q + kStart1, kRun1, 5, b.qs + kRun0);
  pack_digits(q + kStart2, kRun2, 4, b.qh);
}

}  // namespace

void decode_tq1_0(const std::byte* src, float* dst, std::int64_t k) {
  for (std::int64_t i = 0; i < k / kSuperBlock; ++i, dst += kSuperBlock) {
    const auto b = load_block<BlockTQ1_0>(src, i);
    const float d = to_f32(b.d);
    unpack_digits(b.qs, kRun0, 5, d, dst);
    unpack_digits(b.qs + kRun0, kRun1, 5, d, dst + kStart1);
    unpack_digits(b.qh, kRun2, 4, d, dst + kStart2);
  }
}

void encode_tq1_0(const float* src, std::byte* dst, std::int64_t k, const EncodeOptions& options) {
  for (std::int64_t i = 0; i < k / kSuperBlock; ++i) {
    const std::int64_t at = i * kSuperBlock;
    std::uint8_t t[kSuperBlock];
    BlockTQ1_0 b;
    b.d = fit_ternary(src + at, options.importance ? options.importance + at : nullptr, options.search, t);
    pack(t, b);
    store_block(dst, i, b);
  }
}

void write_tq1_0(std::byte* block, const std::uint8_t* codes) {
  auto b = load_block<BlockTQ1_0>(block, 0);
  pack(codes, b);
  store_block(block, 0, b);
}

}  // namespace narrow::formats
