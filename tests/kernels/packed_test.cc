// Products of packed weights: every instruction set of this host against generic, bit for bit, and generic
// against sums in double over decoded rows.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/rng.h"
#include "base/scalar.h"
#include "formats/format.h"
#include "kernels/dispatch.h"
#include "kernels/packed/layout.h"
#include "testing/testing.h"

namespace narrow::kernels {
namespace {

// All quantized formats but those with codebooks of vectors, which have no integer kernels.
std::vector<FormatInfo> integer_formats() {
  std::vector<FormatInfo> out;
  for (const FormatInfo& f : all_formats()) {
    if (f.name.starts_with("iq1") || f.name.starts_with("iq2") || f.name.starts_with("iq3")) continue;
    if (f.kind == FormatKind::kQuantized) out.push_back(f);
  }
  return out;
}

// Stored rows of n x k, in order.
struct Rows {
  Format format;
  std::int64_t n, k;
  std::vector<std::byte> bytes;
  std::size_t stride() const { return row_bytes(format, k); }
  std::byte* row(std::int64_t i) { return bytes.data() + static_cast<std::size_t>(i) * stride(); }
  const std::byte* row(std::int64_t i) const { return bytes.data() + static_cast<std::size_t>(i) * stride(); }
};

Rows encoded_rows(const FormatInfo& f, std::int64_t n, std::int64_t k, std::uint64_t seed) {
  Rows rows{f.format, n, k, std::vector<std::byte>(static_cast<std::size_t>(n) * row_bytes(f.format, k))};
  Rng rng(seed);
  std::vector<float> x(static_cast<std::size_t>(k));
  EncodeOptions options;
  options.search = false;
  for (std::int64_t i = 0; i < n; ++i) {
    for (float& v : x) v = rng.normal();
    f.encode(x.data(), rows.row(i), k, options);
  }
  return rows;
}

// Offsets of the fp16 numbers in a block; -1: none.
struct Halves {
  int first, second;
};
Halves halves_of(Format f) {
  switch (f) {
    case Format::kQ4_1:
    case Format::kQ5_1:
    case Format::kQ4_K:
    case Format::kQ5_K:
      return {0, 2};
    case Format::kQ2_K:
      return {80, 82};
    case Format::kQ3_K:
      return {108, -1};
    case Format::kQ6_K:
      return {208, -1};
    case Format::kTQ1_0:
      return {52, -1};
    case Format::kTQ2_0:
      return {64, -1};
    case Format::kMXFP4:
      return {-1, -1};
    default:
      return {0, -1};
  }
}

// Any bytes at all, so that every code and every small scale occurs; only fp16 numbers (and mxfp4's exponent)
// are replaced by `half`'s.
Rows raw_rows(const FormatInfo& f, std::int64_t n, std::int64_t k, std::uint64_t seed,
              const std::function<std::uint8_t(Rng&)>& byte, const std::function<float(Rng&)>& half) {
  Rows rows = encoded_rows(f, n, k, seed);
  Rng rng(seed + 1);
  const Halves at = halves_of(f.format);
  for (std::size_t block = 0; block < rows.bytes.size(); block += static_cast<std::size_t>(f.block_bytes)) {
    std::byte* b = rows.bytes.data() + block;
    for (int i = 0; i < f.block_bytes; ++i) b[i] = static_cast<std::byte>(byte(rng));
    for (const int offset : {at.first, at.second}) {
      const f16 h = to_f16(half(rng));
      if (offset >= 0) std::memcpy(b + offset, &h, 2);
    }
    // Some exponents at the subnormal end.
    if (f.format == Format::kMXFP4) b[0] = static_cast<std::byte>(rng.next_u64() % 7 == 0 ? 1 : 120);
  }
  return rows;
}

Rows random_bytes(const FormatInfo& f, std::int64_t n, std::int64_t k, std::uint64_t seed) {
  return raw_rows(
      f, n, k, seed, [](Rng& rng) { return static_cast<std::uint8_t>(rng.next_u64() >> 40); },
      [](Rng& rng) { return rng.uniform(-0.1f, 0.1f); });
}

struct Activations {
  std::vector<std::int8_t> q;
  std::vector<float> scale;
  std::vector<std::int32_t> sums;
  std::int64_t m, k;
  // The first `tokens` rows.
  QuantizedRows rows(std::int64_t tokens) const { return {q.data(), scale.data(), sums.data(), tokens, k}; }
};

Activations quantized(const std::vector<float>& x, std::int64_t m, std::int64_t k) {
  const auto count = static_cast<std::size_t>(m * k);
  Activations a{std::vector<std::int8_t>(count), std::vector<float>(count / 32),
                std::vector<std::int32_t>(count / 16), m, k};
  const KernelTable& generic = *available_kernels(cpu_features()).back();
  for (std::int64_t t = 0; t < m; ++t) {
    generic.quantize_row(x.data() + t * k, k, a.q.data() + t * k, a.scale.data() + t * k / 32,
                         a.sums.data() + t * k / 16);
  }
  return a;
}

Activations random_activations(std::int64_t m, std::int64_t k, std::uint64_t seed) {
  Rng rng(seed);
  std::vector<float> x(static_cast<std::size_t>(m * k));
  for (float& v : x) v = rng.normal();
  // A group of zeros, whose scale is zero.
  std::fill(x.begin(), x.begin() + 32, 0.0f);
  return quantized(x, m, k);
}

// All panels of `rows` as the table packs them.
struct Packed {
  AlignedBuffer<std::byte> panels;
  const PackedKernel* kernel;
  std::int64_t k;
};

Packed pack(const KernelTable& table, const Rows& rows) {
  const PackedKernel* kernel = table.packed[static_cast<std::size_t>(rows.format)];
  const std::size_t panel = kernel->panel_bytes(rows.k);
  const std::int64_t r = table.panel_rows;
  Packed p{AlignedBuffer<std::byte>(panel * static_cast<std::size_t>((rows.n + r - 1) / r)), kernel, rows.k};
  for (std::int64_t i = 0; i * r < rows.n; ++i) {
    kernel->pack(rows.row(i * r), rows.stride(), std::min(r, rows.n - i * r), rows.k,
                 p.panels.data() + static_cast<std::size_t>(i) * panel);
  }
  return p;
}

constexpr float kUntouched = 12345.0f;

// out [m, stride]; what multiply must not touch keeps kUntouched.
std::vector<float> multiply(const Packed& p, std::int64_t n, const Activations& x, std::int64_t m,
                            std::int64_t stride) {
  std::vector<float> out(static_cast<std::size_t>(m * stride), kUntouched);
  AlignedBuffer<std::byte> scratch(p.kernel->scratch_bytes(p.k, m));
  p.kernel->multiply(p.panels.data(), n, x.rows(m), out.data(), stride, scratch.data());
  return out;
}

// want is [>= m, want_stride] with at least n columns.
void expect_same(const std::vector<float>& got, std::int64_t stride, const std::vector<float>& want,
                 std::int64_t want_stride, std::int64_t m, std::int64_t n, const std::string& what) {
  for (std::int64_t t = 0; t < m; ++t) {
    for (std::int64_t i = 0; i < stride; ++i) {
      const float g = got[static_cast<std::size_t>(t * stride + i)];
      const float w = i < n ? want[static_cast<std::size_t>(t * want_stride + i)] : kUntouched;
      ASSERT_EQ(std::bit_cast<std::uint32_t>(g), std::bit_cast<std::uint32_t>(w))
          << what << " token " << t << " of " << m << ", feature " << i << " of " << n << ": " << g
          << " instead of " << w;
    }
  }
}

// Sums in double over the decoded row and the dequantized activations. Magnitudes are of the terms that are
// really added, which for formats with minima are larger than their difference.
void expect_near_double(const Rows& rows, const Activations& x, const std::vector<float>& got,
                        std::int64_t stride, const std::string& what) {
  std::vector<float> w(static_cast<std::size_t>(rows.k));
  for (std::int64_t i = 0; i < rows.n; ++i) {
    ASSERT_OK(decode_row(rows.format, rows.row(i), w.data(), rows.k));
    double largest = 0;
    for (const float v : w) largest = std::max(largest, std::abs(static_cast<double>(v)));
    for (std::int64_t t = 0; t < x.m; ++t) {
      double want = 0, magnitude = 0;
      for (std::int64_t j = 0; j < rows.k; ++j) {
        const double a = static_cast<double>(x.q[static_cast<std::size_t>(t * x.k + j)]) *
                         x.scale[static_cast<std::size_t>((t * x.k + j) / 32)];
        want += w[static_cast<std::size_t>(j)] * a;
        magnitude += largest * std::abs(a);
      }
      const float g = got[static_cast<std::size_t>(t * stride + i)];
      ASSERT_NEAR(g, want, 4e-6 * magnitude + 1e-30) << what << " token " << t << ", feature " << i;
    }
  }
}

class EveryPackedFormat : public ::testing::TestWithParam<FormatInfo> {
 protected:
  const FormatInfo& format() const { return GetParam(); }
};

std::string format_name(const ::testing::TestParamInfo<FormatInfo>& info) {
  return std::string(info.param.name);
}

INSTANTIATE_TEST_SUITE_P(All, EveryPackedFormat, ::testing::ValuesIn(integer_formats()), format_name);

TEST_P(EveryPackedFormat, HasAKernelOnEveryIsa) {
  for (const KernelTable* table : available_kernels(cpu_features())) {
    const PackedKernel* kernel = table->packed[static_cast<std::size_t>(format().format)];
    ASSERT_NE(kernel, nullptr) << table->name;
    ASSERT_NE(kernel->panel_bytes, nullptr) << table->name;
    ASSERT_NE(kernel->multiply, nullptr) << table->name;
  }
}

TEST_P(EveryPackedFormat, PanelsAreAsLargeAsTheFile) {
  for (const KernelTable* table : available_kernels(cpu_features())) {
    const PackedKernel& kernel = *table->packed[static_cast<std::size_t>(format().format)];
    for (const std::int64_t k : {256, 512, 1536, 8192}) {
      const std::size_t bytes = kernel.panel_bytes(k);
      EXPECT_EQ(bytes % 64, 0u);
      // tq1_0 unpacks to two bits.
      const Format stored = format().format == Format::kTQ1_0 ? Format::kTQ2_0 : format().format;
      EXPECT_LE(bytes, row_bytes(stored, k) * static_cast<std::size_t>(table->panel_rows) + 63)
          << table->name << " " << k;
    }
  }
}

TEST_P(EveryPackedFormat, GenericMatchesSumsInDouble) {
  const KernelTable& generic = *available_kernels(cpu_features()).back();
  const std::int64_t block = format().block_size;
  for (const std::int64_t k : {block, 3 * block, (std::int64_t{640} + block - 1) / block * block}) {
    const Activations x = random_activations(3, k, 21);
    for (const Rows& rows : {encoded_rows(format(), 19, k, 22), random_bytes(format(), 19, k, 23)}) {
      const std::vector<float> y = multiply(pack(generic, rows), rows.n, x, x.m, rows.n);
      expect_near_double(rows, x, y, rows.n, std::string(format().name) + " k " + std::to_string(k));
    }
  }
}

// One product of generic per row length holds the answers for every number of tokens and features.
TEST_P(EveryPackedFormat, SameBitsAsGenericOnEveryIsaForEveryShape) {
  const KernelTable& generic = *available_kernels(cpu_features()).back();
  constexpr std::int64_t kTokens = 70, kFeatures = 40;
  std::vector<std::int64_t> few = {1, 2, 7, 13, 70};
  std::vector<std::int64_t> all = {24, 31, 32, 33, 34, 35, 47, 64, 70};
  for (std::int64_t m = 1; m <= 20; ++m) all.push_back(m);
  for (const std::int64_t length : {32, 64, 96, 160, 256, 512, 576, 640, 768, 1536, 4544, 4608, 8192}) {
    const std::int64_t k = length;
    if (k % format().block_size != 0) continue;
    const bool short_row = k <= 640;
    const std::int64_t n = short_row ? kFeatures : 17;
    const Activations x = random_activations(kTokens, k, static_cast<std::uint64_t>(31 + k));
    const Rows rows = random_bytes(format(), n, k, static_cast<std::uint64_t>(32 + k));
    const std::vector<float> want = multiply(pack(generic, rows), n, x, kTokens, n);
    for (const KernelTable* table : available_kernels(cpu_features())) {
      const Packed packed = pack(*table, rows);
      const bool is_generic = table == &generic;
      for (const std::int64_t m : short_row && !is_generic ? all : few) {
        for (const std::int64_t features : {1, 15, 16, 17, 40}) {
          if (features > n || ((is_generic || !short_row) && features != 17)) continue;
          const std::int64_t stride = features + 3;
          const std::string what =
              std::string(table->name) + " " + std::string(format().name) + " k " + std::to_string(k);
          expect_same(multiply(packed, features, x, m, stride), stride, want, n, m, features, what);
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

// All bits set or none, activations all at one end of their range: the largest sums that can occur.
TEST_P(EveryPackedFormat, ExtremesNeitherOverflowNorSaturate) {
  const std::int64_t k = 4096;
  const KernelTable& generic = *available_kernels(cpu_features()).back();
  for (const int byte : {0x00, 0xff, 0x7f, 0x80, 0x0f, 0xf0, 0x88, 0x77}) {
    const Rows rows = raw_rows(
        format(), 17, k, 41, [byte](Rng&) { return static_cast<std::uint8_t>(byte); },
        [](Rng&) { return 1.0f; });
    for (const float sign : {1.0f, -1.0f}) {
      for (const bool alternate : {false, true}) {
        std::vector<float> values(static_cast<std::size_t>(14 * k));
        for (std::size_t i = 0; i < values.size(); ++i) {
          values[i] = sign * (alternate && i % 2 == 1 ? -1e4f : 1e4f);
        }
        const Activations x = quantized(values, 14, k);
        ASSERT_EQ(std::abs(x.q[0]), 127);
        const std::string what = std::string(format().name) + " bytes " + std::to_string(byte);
        const std::vector<float> want = multiply(pack(generic, rows), rows.n, x, x.m, rows.n);
        expect_near_double(rows, x, want, rows.n, what);
        for (const KernelTable* table : available_kernels(cpu_features())) {
          const Packed packed = pack(*table, rows);
          for (const std::int64_t m : {1, 14}) {
            expect_same(multiply(packed, rows.n, x, m, rows.n), rows.n, want, rows.n, m, rows.n,
                        std::string(table->name) + " " + what);
            if (HasFatalFailure()) return;
          }
        }
      }
    }
  }
}

TEST(PackedLayout, NamesEveryIntegerFormatOnce) {
  for (const FormatInfo& f : integer_formats()) {
    int rows = 0;
    for (const packed::Layout& l : packed::kLayouts) {
      if (l.format != f.format) continue;
      ++rows;
      EXPECT_EQ(l.unit, f.block_size) << f.name;
    }
    EXPECT_EQ(rows, 1) << f.name;
  }
}

}  // namespace
}  // namespace narrow::kernels
