// Methods that know what errors in outputs cost together: LayerStats::output.
#include <cmath>
#include <numeric>

#include "base/thread_team.h"
#include "quant/gptq.h"
#include "quant/layer.h"

namespace narrow::quant {
namespace {

// A metric of outputs that depend on each other.
std::vector<float> metric() {
  Rng rng(8);
  std::vector<float> g(kRows * kRows, 0.0f), x(kRows);
  for (int t = 0; t < 200; ++t) {
    const float common = 2.0f * rng.normal();
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = (i % 7 == 2 ? 3.0f : 1.0f) * (rng.normal() + common);
    for (std::size_t i = 0; i < x.size(); ++i) {
      for (std::size_t j = 0; j < x.size(); ++j) g[i * x.size() + j] += x[i] * x[j] / 200.0f;
    }
  }
  return g;
}

std::vector<std::byte> run(const Method& method, const Layer& layer, std::span<const float> output,
                           Format f) {
  QuantizeSpec spec;
  spec.format = f;
  LayerStats stats = layer.stats;
  stats.output = output;
  std::vector<std::byte> out(kRows * row_bytes(f, kColumns));
  WeightError error;
  EXPECT_OK(method.quantize(layer.w.data(), kRows, kColumns, stats, spec, out.data(), &error));
  // What is reported is what is stored.
  WeightError again;
  std::vector<float> y(kColumns);
  for (std::int64_t r = 0; r < kRows; ++r) {
    EXPECT_OK(
        decode_row(f, out.data() + static_cast<std::size_t>(r) * row_bytes(f, kColumns), y.data(), kColumns));
    again.add_values(layer.w.data() + r * kColumns, y.data(), kColumns);
  }
  EXPECT_NEAR(error.relative_rms(), again.relative_rms(), 1e-9 + 1e-6 * again.relative_rms());
  return out;
}

// tr(G D H D^T)
double loss(const Layer& layer, const std::vector<float>& g, Format f, const std::vector<std::byte>& stored) {
  std::vector<float> d(kRows * kColumns);
  for (std::int64_t r = 0; r < kRows; ++r) {
    EXPECT_OK(decode_row(f, stored.data() + static_cast<std::size_t>(r) * row_bytes(f, kColumns),
                         d.data() + r * kColumns, kColumns));
  }
  for (std::size_t i = 0; i < d.size(); ++i) d[i] -= layer.w[i];
  const auto at = [&](std::int64_t i) { return static_cast<std::size_t>(i); };
  double sum = 0;
  std::vector<double> dh(d.size(), 0.0);
  for (std::int64_t r = 0; r < kRows; ++r) {
    for (std::int64_t j = 0; j < kColumns; ++j) {
      for (std::int64_t i = 0; i < kColumns; ++i) {
        dh[at(r * kColumns + j)] += static_cast<double>(d[at(r * kColumns + i)]) *
                                    static_cast<double>(layer.hessian[at(i * kColumns + j)]);
      }
    }
  }
  for (std::int64_t r = 0; r < kRows; ++r) {
    for (std::int64_t s = 0; s < kRows; ++s) {
      double dot = 0;
      for (std::int64_t j = 0; j < kColumns; ++j) {
        dot += dh[at(r * kColumns + j)] * static_cast<double>(d[at(s * kColumns + j)]);
      }
      sum += static_cast<double>(g[at(r * kRows + s)]) * dot;
    }
  }
  return sum;
}

TEST(OutputMetric, LowersTheLossItDescribes) {
  const Layer layer;
  const std::vector<float> g = metric();
  for (const char* name : {"rtn", "gptq", "auto", "autoround", "hqq"}) {
    for (const Format f : {Format::kQ4_0, Format::kQ3_K, Format::kIQ3_XXS}) {
      SCOPED_TRACE(std::string(name) + " " + std::string(format_info(f).name));
      if (std::string_view(name) == "autoround" && f == Format::kIQ3_XXS) continue;  // scalar codes only
      const Method& method = *find_method(name);
      EXPECT_LT(loss(layer, g, f, run(method, layer, g, f)),
                0.9 * loss(layer, g, f, run(method, layer, {}, f)));
    }
  }
}

TEST(OutputMetric, OutputsThatDoNotDependOnEachOtherAreQuantizedAlone) {
  const Layer layer;
  std::vector<float> diagonal(kRows * kRows, 0.0f);
  for (std::size_t i = 0; i < kRows; ++i) diagonal[i * kRows + i] = 1.0f + static_cast<float>((i * 7) % 5);
  const Method& rtn = *find_method("rtn");
  EXPECT_EQ(run(rtn, layer, diagonal, Format::kQ4_0), run(rtn, layer, {}, Format::kQ4_0));
}

TEST(OutputMetric, SameBytesForAnyNumberOfThreads) {
  const Layer layer;
  const std::vector<float> g = metric();
  for (const char* name : {"rtn", "gptq", "auto"}) {
    set_thread_count(1);
    const std::vector<std::byte> one = run(*find_method(name), layer, g, Format::kQ4_0);
    set_thread_count(3);
    EXPECT_EQ(run(*find_method(name), layer, g, Format::kQ4_0), one) << name;
    set_thread_count(0);
  }
}

TEST(OutputMetric, SurvivesAnyMetric) {
  const Layer layer;
  for (const char* kind : {"zero", "one direction", "dead outputs", "not positive"}) {
    std::vector<float> g = metric();
    const std::string name = kind;
    for (std::size_t i = 0; i < kRows; ++i) {
      for (std::size_t j = 0; j < kRows; ++j) {
        float& v = g[i * kRows + j];
        if (name == "zero") v = 0;
        if (name == "one direction") v = 1;
        if (name == "dead outputs" && (i % 3 == 0 || j % 3 == 0)) v = 0;
        if (name == "not positive" && i != j) v *= 3;
      }
    }
    const std::vector<std::byte> out = run(*find_method("gptq"), layer, g, Format::kQ4_0);
    for (const double e : layer.errors(Format::kQ4_0, out)) EXPECT_TRUE(std::isfinite(e)) << name;
  }
}

TEST(OutputMetric, OutputErrorIsTheLoss) {
  const Layer layer;
  const std::vector<float> g = metric();
  const std::vector<std::byte> stored = run(*find_method("rtn"), layer, {}, Format::kQ4_0);
  const double want = loss(layer, g, Format::kQ4_0, stored);
  ASSERT_OK_AND_ASSIGN(const double got, output_error(layer.w.data(), stored.data(), Format::kQ4_0, kRows,
                                                      kColumns, layer.hessian, g));
  EXPECT_NEAR(got, want, 1e-4 * want);
}

TEST(OutputMetric, BadInputIsNamed) {
  Layer layer;
  const std::vector<float> g = metric();
  QuantizeSpec spec;
  spec.format = Format::kQ4_0;
  std::vector<std::byte> out(kRows * row_bytes(spec.format, kColumns));
  LayerStats stats = layer.stats;
  stats.output = std::span(g).first(kRows);
  for (const char* name : {"rtn", "gptq", "auto", "autoround", "hqq"}) {
    EXPECT_EQ(find_method(name)
                  ->quantize(layer.w.data(), kRows, kColumns, stats, spec, out.data(), nullptr)
                  .error()
                  .code,
              ErrorCode::kInvalidArgument)
        << name;
  }
  stats.output = g;
  layer.w[5 * kColumns + 9] = NAN;
  const Status s =
      find_method("gptq")->quantize(layer.w.data(), kRows, kColumns, stats, spec, out.data(), nullptr);
  ASSERT_FALSE(s.ok());
  EXPECT_NE(s.error().message.find("row 5, column 9"), std::string::npos) << s.error().message;
}

}  // namespace
}  // namespace narrow::quant
