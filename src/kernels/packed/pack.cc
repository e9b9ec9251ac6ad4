#include "kernels/packed/pack.h"

#include <cstring>

#include "kernels/packed/stored.h"

namespace narrow::kernels::packed {
namespace {

constexpr int kMaxLanes = 16;

constexpr std::uint8_t u8(int v) { return static_cast<std::uint8_t>(v); }

// Four codes, one per byte.
std::uint32_t four(const std::uint8_t* codes, int c) {
  std::uint32_t word;
  std::memcpy(&word, codes + 4 * c, 4);
  return word;
}

// Where a panel has elements 4 c .. 4 c + 3 of row `row`: bytes 4 * row of vector c.
struct Vectors {
  std::uint8_t* first;
  int lanes, row;
  void put(int c, std::uint32_t word) const { std::memcpy(first + 4 * (c * lanes + row), &word, 4); }
};

void put_nibbles(const std::uint8_t* codes, Vectors out) {
  for (int v = 0; v < 4; ++v) {
    out.put(v, (four(codes, v) & 0x0f0f0f0fu) | (four(codes, v + 4) & 0x0f0f0f0fu) << 4);
  }
}

// Two bits of every code from bit `shift` on.
void put_crumbs(const std::uint8_t* codes, int shift, Vectors out) {
  for (int p = 0; p < 2; ++p) {
    std::uint32_t word = 0;
    for (int c = 0; c < 4; ++c) word |= ((four(codes, 4 * p + c) >> shift) & 0x03030303u) << (2 * c);
    out.put(p, word);
  }
}

void put_bits(const std::uint8_t* codes, int shift, Vectors out) {
  std::uint32_t word = 0;
  for (int c = 0; c < 8; ++c) word |= ((four(codes, c) >> shift) & 0x01010101u) << c;
  out.put(0, word);
}

void put_group(int bits, const std::uint8_t* codes, bool unsigned_codes, Vectors out) {
  if (bits == 8) {
    for (int c = 0; c < 8; ++c) out.put(c, four(codes, c) ^ (unsigned_codes ? 0 : 0x80808080u));
    return;
  }
  const int low = bits >= 4 ? 4 : 2;
  if (low == 4) {
    put_nibbles(codes, out);
  } else {
    put_crumbs(codes, 0, out);
  }
  const Vectors rest{out.first + 4 * low * out.lanes, out.lanes, out.row};
  if (bits - low == 2) put_crumbs(codes, low, rest);
  if (bits - low == 1) put_bits(codes, low, rest);
}

// n bytes of `bits` significant bits each.
void put_values(int bits, const std::uint8_t* v, int n, std::uint8_t* out) {
  if (bits == 8) {
    std::memcpy(out, v, static_cast<std::size_t>(n));
    return;
  }
  for (int b = 0; b < n / 2; ++b) out[b] = u8((v[b] & 15) | ((v[b + n / 2] & 15) << 4));
  if (bits == 4) return;
  for (int b = 0; b < n / 4; ++b) {
    int byte = 0;
    for (int part = 0; part < 4; ++part) byte |= (v[b + part * n / 4] >> 4) << (2 * part);
    out[n / 2 + b] = u8(byte);
  }
}

}  // namespace

void pack_panel(const Layout& layout, int lanes, bool unsigned_codes, const std::byte* rows,
                std::size_t stride_bytes, std::int64_t n_rows, std::int64_t k, std::byte* panel) {
  // Rows past n_rows keep scales of zero.
  std::memset(panel, 0, panel_bytes(layout, lanes, k));
  auto* codes = reinterpret_cast<std::uint8_t*>(panel);
  std::uint8_t* scales = codes + k / kGroup * layout.group_bytes() * lanes;
  StoredUnit unit{};
  for (std::int64_t u = 0; u < k / layout.unit; ++u) {
    std::uint8_t values[kMaxValues * kMaxLanes] = {};
    for (int r = 0; r < static_cast<int>(n_rows); ++r) {
      read_unit(layout.format, rows + static_cast<std::size_t>(r) * stride_bytes, u, unit);
      for (int g = 0; g < layout.groups(); ++g) {
        put_group(layout.bits, unit.codes + g * kGroup, unsigned_codes,
                  {codes + g * layout.group_bytes() * lanes, lanes, r});
      }
      for (int h = 0; h < layout.halves; ++h) {
        std::memcpy(scales + 2 * (h * lanes + r), &unit.halves[h].bits, 2);
      }
      for (int v = 0; v < layout.values; ++v) values[v * lanes + r] = unit.values[v];
    }
    put_values(layout.value_bits, values, layout.values * lanes, scales + 2 * layout.halves * lanes);
    codes += layout.groups() * layout.group_bytes() * lanes;
    scales += layout.scale_bytes() * lanes;
  }
}

}  // namespace narrow::kernels::packed
