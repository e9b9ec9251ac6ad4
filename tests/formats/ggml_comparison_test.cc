// Error of the encoders beside ggml's own, at the same bytes. Runs where
// NARROW_GGML_LIB names a libggml-base.so (for example the one in npm's node-llama-cpp).
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "base/rng.h"
#include "formats/format.h"
#include "testing/testing.h"

namespace narrow {
namespace {

using InitFn = void (*)(int type);
using QuantizeFn = std::size_t (*)(int type, const float* src, void* dst, std::int64_t start,
                                   std::int64_t rows, std::int64_t k, const float* importance);
using DequantizeFn = void (*)(const void* src, float* dst, std::int64_t k);

// libggml-base.so, if NARROW_GGML_LIB names one.
struct Ggml {
  void* lib = nullptr;
  InitFn init = nullptr;
  QuantizeFn quantize = nullptr;

  Ggml() {
    const char* path = std::getenv("NARROW_GGML_LIB");
    if (path == nullptr || *path == '\0') return;
    lib = dlopen(path, RTLD_NOW);
    EXPECT_NE(lib, nullptr) << dlerror();
    if (lib == nullptr) return;
    init = reinterpret_cast<InitFn>(dlsym(lib, "ggml_quantize_init"));
    quantize = reinterpret_cast<QuantizeFn>(dlsym(lib, "ggml_quantize_chunk"));
    EXPECT_NE(init, nullptr);
    EXPECT_NE(quantize, nullptr);
  }
  ~Ggml() {
    if (lib != nullptr) dlclose(lib);
  }
};

constexpr std::int64_t kLength = 65536;
constexpr std::int64_t kShort = 16384;  // codebook searches take long

struct Rows {
  const char* name;
  std::function<float(Rng&)> draw;
  std::vector<float> make(std::uint64_t seed) const {
    Rng rng(seed);
    std::vector<float> x(kLength);
    for (float& v : x) v = draw(rng);
    return x;
  }
};
const Rows kRows[] = {
    {"normal", [](Rng& r) { return 0.05f * r.normal(); }},
    {"heavy tails", [](Rng& r) { return 0.05f * r.normal() * std::exp(0.7f * r.normal()); }},
    {"outliers", [](Rng& r) { return 0.05f * r.normal() * (r.next_double() < 0.003 ? 30.0f : 1.0f); }},
    {"shifted", [](Rng& r) { return 0.05f * r.normal() - 0.02f; }},
};

// ggml encodes these with importances only.
bool is_codebook(const FormatInfo& f) {
  return f.name.starts_with("iq1") || f.name.starts_with("iq2") || f.name.starts_with("iq3");
}

// What the encoder minimises: for scaled integers errors on large weights count more (WeightRule::kMagnitude
// in formats/fit.h), for the other codes plain squared error.
double loss(const FormatInfo& f, const std::vector<float>& x, const std::vector<float>& y) {
  double sum_squares = 0;
  for (const float v : x) sum_squares += static_cast<double>(v) * static_cast<double>(v);
  const double mean_square = sum_squares / static_cast<double>(x.size());
  const bool weighted = f.name.starts_with("q") || f.name.starts_with("iq4");
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double d = static_cast<double>(x[i]) - static_cast<double>(y[i]);
    sum += d * d *
           (weighted ? std::sqrt(mean_square + static_cast<double>(x[i]) * static_cast<double>(x[i])) : 1.0);
  }
  return sum;
}

TEST(GgmlComparison, LosesNoMoreAtTheSameBytes) {
  const Ggml ggml;
  if (ggml.lib == nullptr) GTEST_SKIP() << "NARROW_GGML_LIB does not name a libggml-base.so";
  for (const FormatInfo& f : all_formats()) {
    if (f.kind != FormatKind::kQuantized || !f.can_encode() || is_codebook(f)) continue;
    const int id = static_cast<int>(f.format);
    ggml.init(id);
    for (const Rows& rows : kRows) {
      const std::vector<float> x = rows.make(7);
      std::vector<std::byte> theirs(row_bytes(f.format, kLength)), ours(theirs.size());
      ASSERT_EQ(ggml.quantize(id, x.data(), theirs.data(), 0, 1, kLength, nullptr), theirs.size()) << f.name;
      ASSERT_OK(encode_row(f.format, x.data(), ours.data(), kLength));
      std::vector<float> y_theirs(kLength), y_ours(kLength);
      ASSERT_OK(decode_row(f.format, theirs.data(), y_theirs.data(), kLength));
      ASSERT_OK(decode_row(f.format, ours.data(), y_ours.data(), kLength));
      EXPECT_LE(loss(f, x, y_ours), loss(f, x, y_theirs)) << f.name << " on " << rows.name;
    }
  }
}

double weighted_error(const std::vector<float>& x, const std::vector<float>& y, const std::vector<float>& w) {
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double d = static_cast<double>(x[i]) - static_cast<double>(y[i]);
    sum += static_cast<double>(w[i]) * d * d;
  }
  return sum;
}

TEST(GgmlComparison, CodebooksLoseLessUnderTheSameImportances) {
  const Ggml ggml;
  if (ggml.lib == nullptr) GTEST_SKIP() << "NARROW_GGML_LIB does not name a libggml-base.so";
  int compared = 0;
  for (const FormatInfo& f : all_formats()) {
    if (!is_codebook(f)) continue;
    ++compared;
    const int id = static_cast<int>(f.format);
    ggml.init(id);
    const auto dequantize =
        reinterpret_cast<DequantizeFn>(dlsym(ggml.lib, ("dequantize_row_" + std::string(f.name)).c_str()));
    ASSERT_NE(dequantize, nullptr) << f.name;
    for (const Rows& rows : kRows) {
      std::vector<float> x = rows.make(7);
      x.resize(kShort);
      // Activations of real layers spread over decades.
      for (const float spread : {0.0f, 1.0f, 2.5f}) {
        const std::vector<float> w = Rows{"", [&](Rng& r) { return std::exp(spread * r.normal()); }}.make(8);
        std::vector<std::byte> theirs(row_bytes(f.format, kShort)), ours(theirs.size());
        ASSERT_EQ(ggml.quantize(id, x.data(), theirs.data(), 0, 1, kShort, w.data()), theirs.size());
        EncodeOptions options;
        options.importance = w.data();
        ASSERT_OK(encode_row(f.format, x.data(), ours.data(), kShort, options));
        std::vector<float> y_theirs(kShort), y_ours(kShort), read(kShort);
        ASSERT_OK(decode_row(f.format, theirs.data(), y_theirs.data(), kShort));
        ASSERT_OK(decode_row(f.format, ours.data(), y_ours.data(), kShort));
        dequantize(ours.data(), read.data(), kShort);
        EXPECT_EQ(read, y_ours) << f.name << ": ggml reads other values than narrow";
        const double ratio = weighted_error(x, y_ours, w) / weighted_error(x, y_theirs, w);
        EXPECT_LE(ratio, spread == 0   ? 0.95
                         : spread == 1 ? 0.88
                                       : 0.72)
            << f.name << " on " << rows.name << ", spread " << spread;
      }
    }
  }
  EXPECT_EQ(compared, 7);
}

}  // namespace
}  // namespace narrow
