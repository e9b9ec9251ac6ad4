// Error of the encoders beside ggml's own, at the same bytes and without importances. Runs where
// NARROW_GGML_LIB names a libggml-base.so (for example the one in npm's node-llama-cpp).
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <functional>
#include <vector>

#include "base/rng.h"
#include "formats/format.h"
#include "testing/testing.h"

namespace narrow {
namespace {

using InitFn = void (*)(int type);
using QuantizeFn = std::size_t (*)(int type, const float* src, void* dst, std::int64_t start,
                                   std::int64_t rows, std::int64_t k, const float* importance);

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
  const char* path = std::getenv("NARROW_GGML_LIB");
  if (path == nullptr || *path == '\0') GTEST_SKIP() << "NARROW_GGML_LIB does not name a libggml-base.so";
  void* lib = dlopen(path, RTLD_NOW);
  ASSERT_NE(lib, nullptr) << dlerror();
  const auto init = reinterpret_cast<InitFn>(dlsym(lib, "ggml_quantize_init"));
  const auto quantize = reinterpret_cast<QuantizeFn>(dlsym(lib, "ggml_quantize_chunk"));
  ASSERT_NE(init, nullptr);
  ASSERT_NE(quantize, nullptr);

  const std::pair<const char*, std::function<float(Rng&)>> rows[] = {
      {"normal", [](Rng& r) { return 0.05f * r.normal(); }},
      {"heavy tails", [](Rng& r) { return 0.05f * r.normal() * std::exp(0.7f * r.normal()); }},
      {"outliers", [](Rng& r) { return 0.05f * r.normal() * (r.next_double() < 0.003 ? 30.0f : 1.0f); }},
      {"shifted", [](Rng& r) { return 0.05f * r.normal() - 0.02f; }},
  };
  constexpr std::int64_t kLength = 65536;
  for (const FormatInfo& f : all_formats()) {
    if (f.kind != FormatKind::kQuantized || !f.can_encode()) continue;
    const int id = static_cast<int>(f.format);
    init(id);
    for (const auto& [name, draw] : rows) {
      Rng rng(7);
      std::vector<float> x(kLength);
      for (float& v : x) v = draw(rng);
      std::vector<std::byte> theirs(row_bytes(f.format, kLength)), ours(theirs.size());
      ASSERT_EQ(quantize(id, x.data(), theirs.data(), 0, 1, kLength, nullptr), theirs.size()) << f.name;
      ASSERT_OK(encode_row(f.format, x.data(), ours.data(), kLength));
      std::vector<float> y_theirs(kLength), y_ours(kLength);
      ASSERT_OK(decode_row(f.format, theirs.data(), y_theirs.data(), kLength));
      ASSERT_OK(decode_row(f.format, ours.data(), y_ours.data(), kLength));
      EXPECT_LE(loss(f, x, y_ours), loss(f, x, y_theirs)) << f.name << " on " << name;
    }
  }
  dlclose(lib);
}

}  // namespace
}  // namespace narrow
