// What only the AMX kernels have: tiles of 16 tokens, pairs of panels, stretches of k and passes over tokens.
// Against avx512_vnni, which other tests hold against generic, on the same panels.
#include <cstring>

#include "base/aligned_buffer.h"
#include "base/rng.h"
#include "formats/format.h"
#include "kernels/dense_int8.h"
#include "kernels/dispatch.h"
#include "testing/testing.h"

namespace narrow::kernels {
namespace {

class Amx : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto amx = select_kernels("avx512_amx", cpu_features());
    const auto vnni = select_kernels("avx512_vnni", cpu_features());
    if (!amx.ok()) GTEST_SKIP() << amx.error().message;
    ASSERT_OK(vnni);
    amx_ = amx.value();
    vnni_ = vnni.value();
  }
  const KernelTable *amx_ = nullptr, *vnni_ = nullptr;
};

std::vector<float> random_vector(std::int64_t n, std::uint64_t seed) {
  Rng rng(seed);
  std::vector<float> v(static_cast<std::size_t>(n));
  for (float& x : v) x = rng.normal();
  return v;
}

void expect_same_bits(const std::vector<float>& got, const std::vector<float>& want,
                      const std::string& what) {
  for (std::size_t i = 0; i < want.size(); ++i) {
    ASSERT_EQ(std::memcmp(&got[i], &want[i], sizeof(float)), 0)
        << what << " at " << i << ": " << got[i] << " for " << want[i];
  }
}

// One of each arithmetic: runs of 32 and of 16, with minima and without, converted sums.
constexpr Format kFormats[] = {Format::kQ4_0, Format::kQ4_K, Format::kQ6_K, Format::kQ2_K, Format::kMXFP4};

TEST_F(Amx, PackedTilesPassesAndStretches) {
  struct Size {
    std::int64_t m, n, k;
  };
  std::vector<Size> sizes = {{300, 33, 4096}};  // two passes of 256 tokens, stretches, an odd panel
  for (const std::int64_t m : {9, 15, 16, 17, 31, 32, 33, 63, 64, 65}) sizes.push_back({m, 48, 768});
  for (const Format f : kFormats) {
    for (const Size& s : sizes) {
      const std::string what = std::string(format_info(f).name) + " m " + std::to_string(s.m);
      const PackedKernel &amx = *amx_->packed[static_cast<std::size_t>(f)],
                         &vnni = *vnni_->packed[static_cast<std::size_t>(f)];
      ASSERT_EQ(amx.panel_bytes(s.k), vnni.panel_bytes(s.k));
      const std::vector<float> weights = random_vector(s.n * s.k, 1), x = random_vector(s.m * s.k, 2);
      const std::size_t row = row_bytes(f, s.k);
      std::vector<std::byte> stored(row * static_cast<std::size_t>(s.n));
      for (std::int64_t r = 0; r < s.n; ++r) {
        ASSERT_OK(
            encode_row(f, weights.data() + r * s.k, stored.data() + static_cast<std::size_t>(r) * row, s.k));
      }
      const std::size_t panels = static_cast<std::size_t>(s.n + 15) / 16;
      AlignedBuffer<std::byte> packed(panels * amx.panel_bytes(s.k));
      for (std::size_t p = 0; p < panels; ++p) {
        amx.pack(stored.data() + 16 * p * row, row,
                 std::min<std::int64_t>(16, s.n - 16 * static_cast<std::int64_t>(p)), s.k,
                 packed.data() + p * amx.panel_bytes(s.k));
      }
      std::vector<std::int8_t> q(x.size());
      std::vector<float> scale(x.size() / 32), got(static_cast<std::size_t>(s.m * s.n)), want(got.size());
      std::vector<std::int32_t> sums(x.size() / 16);
      for (std::int64_t t = 0; t < s.m; ++t) {
        vnni_->quantize_row(x.data() + t * s.k, s.k, q.data() + t * s.k, scale.data() + t * (s.k / 32),
                            sums.data() + t * (s.k / 16));
      }
      const QuantizedRows rows{q.data(), scale.data(), sums.data(), s.m, s.k};
      AlignedBuffer<std::byte> scratch(amx.scratch_bytes(s.k, s.m) + vnni.scratch_bytes(s.k, s.m) + 64);
      amx.multiply(packed.data(), s.n, rows, got.data(), s.n, scratch.data());
      vnni.multiply(packed.data(), s.n, rows, want.data(), s.n, scratch.data());
      expect_same_bits(got, want, what);
    }
  }
}

TEST_F(Amx, DenseStretchesAndBlocks) {
  const DenseInt8Kernel &amx = *amx_->dense_int8, &vnni = *vnni_->dense_int8;
  const std::int64_t n = 40;
  for (const std::int64_t k : {640, 641, 2112}) {
    for (const std::int64_t m : {7, 127, 128, 129, 300}) {
      Rng rng(5);
      std::vector<std::int8_t> weights(static_cast<std::size_t>(n * k));
      for (std::int8_t& w : weights)
        w = static_cast<std::int8_t>(static_cast<int>(rng.next_u64() % 255) - 127);
      const std::vector<float> weight_scale(static_cast<std::size_t>(n), 0.3f), x = random_vector(m * k, 6);
      AlignedBuffer<std::byte> packed(3 * amx.panel_bytes(k));
      for (std::int64_t p = 0; p < 3; ++p) {
        amx.pack(weights.data() + 16 * p * k, k, weight_scale.data() + 16 * p, nullptr,
                 std::min<std::int64_t>(16, n - 16 * p), k,
                 packed.data() + static_cast<std::size_t>(p) * amx.panel_bytes(k));
      }
      const auto rows_of = static_cast<std::size_t>(m);
      AlignedBuffer<std::int8_t> q(rows_of * static_cast<std::size_t>(dense_int8_stride(k)));
      std::vector<float> scale(rows_of), got(rows_of * static_cast<std::size_t>(n)), want(got.size());
      std::vector<std::int32_t> zero(rows_of), sum(rows_of);
      for (std::int64_t t = 0; t < m; ++t) {
        vnni.quantize_row({true, 0.0f, 0}, x.data() + t * k, k, q.data() + t * dense_int8_stride(k),
                          scale.data() + t, zero.data() + t, sum.data() + t);
      }
      const DenseInt8Rows rows{q.data(), scale.data(), zero.data(), sum.data(), m, k};
      amx.multiply(packed.data(), n, rows, got.data(), n);
      vnni.multiply(packed.data(), n, rows, want.data(), n);
      expect_same_bits(got, want, "m " + std::to_string(m) + " k " + std::to_string(k));
    }
  }
}

}  // namespace
}  // namespace narrow::kernels
