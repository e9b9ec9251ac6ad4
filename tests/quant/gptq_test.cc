#include "quant/gptq.h"

#include <cmath>
#include <numeric>

#include "base/thread_team.h"
#include "quant/auto.h"
#include "quant/code_row.h"
#include "quant/layer.h"
#include "quant/rtn.h"

namespace narrow::quant {
namespace {

double sum(const std::vector<double>& v) { return std::accumulate(v.begin(), v.end(), 0.0); }

std::vector<std::byte> run(const Method& method, const Layer& layer, const QuantizeSpec& spec) {
  std::vector<std::byte> out(kRows * row_bytes(spec.format, kColumns));
  EXPECT_OK(method.quantize(layer.w.data(), kRows, kColumns, layer.stats, spec, out.data(), nullptr));
  return out;
}

TEST(Gptq, LosesLessThanRoundingInEveryFormat) {
  const Layer layer;
  int formats = 0;
  for (const FormatInfo& info : all_formats()) {
    EXPECT_EQ(CodeRow::supports(info.format), info.kind == FormatKind::kQuantized) << info.name;
    if (info.kind != FormatKind::kQuantized) continue;
    ++formats;
    QuantizeSpec spec;
    spec.format = info.format;
    const double rtn = sum(layer.errors(info.format, run(*find_method("rtn"), layer, spec)));
    const double gptq = sum(layer.errors(info.format, run(*find_method("gptq"), layer, spec)));
    EXPECT_LT(gptq, 0.95 * rtn) << info.name;
  }
  EXPECT_GT(formats, 20);
}

// The weights the layer has need no error at all where the format can hold them.
TEST(Gptq, KeepsWeightsOnTheGrid) {
  Layer layer;
  for (const Format f : {Format::kQ4_0, Format::kQ4_K, Format::kIQ3_XXS, Format::kMXFP4}) {
    QuantizeSpec spec;
    spec.format = f;
    const std::vector<std::byte> first = run(*find_method("rtn"), layer, spec);
    const std::vector<float> before = layer.w;
    for (std::int64_t r = 0; r < kRows; ++r) {
      ASSERT_OK(decode_row(f, first.data() + static_cast<std::size_t>(r) * row_bytes(f, kColumns),
                           layer.w.data() + r * kColumns, kColumns));
    }
    const double rtn = sum(layer.errors(f, run(*find_method("rtn"), layer, spec)));
    EXPECT_LE(sum(layer.errors(f, run(*find_method("gptq"), layer, spec))), rtn + 1e-6)
        << format_info(f).name;
    layer.w = before;
  }
}

TEST(Gptq, SameBytesForAnyNumberOfThreads) {
  const Layer layer;
  for (const Format f : {Format::kQ4_0, Format::kQ3_K, Format::kIQ2_XS}) {
    QuantizeSpec spec;
    spec.format = f;
    set_thread_count(1);
    const std::vector<std::byte> one = run(*find_method("gptq"), layer, spec);
    set_thread_count(3);
    EXPECT_EQ(run(*find_method("gptq"), layer, spec), one) << format_info(f).name;
    set_thread_count(0);
  }
}

// Hessians that no Cholesky factor exists for are damped until one does.
TEST(Gptq, SurvivesAnyHessian) {
  QuantizeSpec spec;
  spec.format = Format::kQ4_0;
  spec.damping = 1e-7f;
  for (const char* kind : {"zero", "dead channels", "duplicated channels", "not positive"}) {
    Layer layer;
    const std::string name = kind;
    for (std::size_t i = 0; i < kColumns; ++i) {
      for (std::size_t j = 0; j < kColumns; ++j) {
        float& h = layer.hessian[i * kColumns + j];
        if (name == "zero") h = 0;
        if (name == "dead channels" && (i % 3 == 0 || j % 3 == 0)) h = 0;
        if (name == "duplicated channels") h = i / 2 == j / 2 ? 1.0f : 0.5f;
        if (name == "not positive" && i != j) h *= 1.05f;
      }
    }
    const std::vector<std::byte> out = run(*find_method("gptq"), layer, spec);
    for (const double e : layer.errors(Format::kQ4_0, out)) EXPECT_TRUE(std::isfinite(e)) << name;
    WeightError error;
    std::vector<float> y(kColumns);
    for (std::int64_t r = 0; r < kRows; ++r) {
      ASSERT_OK(decode_row(Format::kQ4_0,
                           out.data() + static_cast<std::size_t>(r) * row_bytes(Format::kQ4_0, kColumns),
                           y.data(), kColumns));
      error.add_values(layer.w.data() + r * kColumns, y.data(), kColumns);
    }
    EXPECT_LT(error.relative_rms(), 0.5) << name;
  }
}

TEST(Gptq, RefusesWhatItCannotUse) {
  const Layer layer;
  std::vector<std::byte> out(kRows * kColumns * 4);
  QuantizeSpec spec;
  spec.format = Format::kQ4_0;
  LayerStats none;
  EXPECT_EQ(quantize_gptq(layer.w.data(), kRows, kColumns, none, spec, out.data(), nullptr).error().code,
            ErrorCode::kInvalidArgument);
  LayerStats wrong;
  wrong.hessian = std::span(layer.hessian).subspan(1);
  EXPECT_EQ(quantize_gptq(layer.w.data(), kRows, kColumns, wrong, spec, out.data(), nullptr).error().code,
            ErrorCode::kInvalidArgument);
  spec.format = Format::kF16;
  EXPECT_EQ(
      quantize_gptq(layer.w.data(), kRows, kColumns, layer.stats, spec, out.data(), nullptr).error().code,
      ErrorCode::kUnsupported);
  spec.format = Format::kQ4_0;
  std::vector<float> bad = layer.w;
  bad[3 * kColumns + 7] = NAN;
  const Status s = quantize_gptq(bad.data(), kRows, kColumns, layer.stats, spec, out.data(), nullptr);
  ASSERT_FALSE(s.ok());
  EXPECT_EQ(s.error().code, ErrorCode::kNumeric);
  EXPECT_NE(s.error().message.find("row 3, column 7"), std::string::npos) << s.error().message;
}

TEST(Gptq, OutputErrorIsTheQuadraticForm) {
  const Layer layer;
  QuantizeSpec spec;
  spec.format = Format::kQ4_K;
  const std::vector<std::byte> out = run(*find_method("rtn"), layer, spec);
  ASSERT_OK_AND_ASSIGN(const double error, output_error(layer.w.data(), out.data(), Format::kQ4_K, kRows,
                                                        kColumns, layer.hessian));
  const double want = sum(layer.errors(Format::kQ4_K, out));
  EXPECT_NEAR(error, want, 1e-4 * want);
}

// What is judged by other tokens than it is made by: identical ones leave gptq ahead; ones that contradict
// the Hessian give rounding back.
TEST(Auto, IsJudgedByHeldOutTokens) {
  Layer layer;
  QuantizeSpec spec;
  spec.format = Format::kQ4_0;
  const std::vector<float> same = layer.hessian;
  layer.stats.held_out = same;
  const double agreed = sum(layer.errors(Format::kQ4_0, run(*find_method("auto"), layer, spec)));
  const double rtn = sum(layer.errors(Format::kQ4_0, run(*find_method("rtn"), layer, spec)));
  EXPECT_LT(agreed, rtn);
  // Inputs without any correlation, as importances had them: feedback only adds errors.
  std::vector<float> diagonal(same.size(), 0.0f);
  for (std::size_t i = 0; i < kColumns; ++i) diagonal[i * kColumns + i] = same[i * kColumns + i];
  layer.stats.held_out = diagonal;
  const auto on = [&](const std::vector<std::byte>& out) {
    return output_error(layer.w.data(), out.data(), Format::kQ4_0, kRows, kColumns, diagonal).value();
  };
  EXPECT_LE(on(run(*find_method("auto"), layer, spec)), 1.02 * on(run(*find_method("rtn"), layer, spec)));
}

}  // namespace
}  // namespace narrow::quant
