#include "calib/output_gradients.h"

#include <cmath>

#include "calib/imatrix.h"
#include "io/gguf/writer.h"
#include "model/tiny_models.h"
#include "testing/testing.h"

namespace narrow::calib {
namespace {

namespace fs = std::filesystem;
using testing::TempDir;

constexpr const char* kName = "blk.0.ffn_down.weight";

OutputGradients example(std::int64_t n) {
  OutputGradients g;
  g.tokens = 7;
  std::vector<float>& values = g.matrices[kName];
  for (std::int64_t i = 0; i < n * n; ++i) values.push_back(i % (n + 1) == 0 ? 2.0f : 0.25f);
  return g;
}

void expect_words(const std::string& message, const std::vector<std::string>& words) {
  for (const std::string& w : words) EXPECT_NE(message.find(w), std::string::npos) << message;
}

class OutputGradientsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    NARROW_REQUIRE_SHARED();
    auto source = model::ModelSource::open(model::tiny("llama"));
    ASSERT_OK(source);
    source_ = *source;
    n_ = source_->config().n_embd;
  }
  // The error of opening what `g` is written as, or of reading it; "" where both work.
  std::string error_of(const OutputGradients& g) {
    const fs::path path = dir_ / "g.gguf";
    EXPECT_OK(write_output_gradients(g, path));
    const auto file = GradientFile::open(path, *source_);
    if (!file.ok()) return file.error().message;
    const auto values = file->of(kName);
    return values.ok() ? "" : values.error().message;
  }
  TempDir dir_;
  std::shared_ptr<const model::ModelSource> source_;
  std::int64_t n_ = 0;
};

TEST_F(OutputGradientsTest, ComeBackWhole) {
  const OutputGradients g = example(n_);
  ASSERT_OK(write_output_gradients(g, dir_ / "g.gguf"));
  ASSERT_OK_AND_ASSIGN(const GradientFile file, GradientFile::open(dir_ / "g.gguf", *source_));
  ASSERT_OK_AND_ASSIGN(const std::vector<float> values, file.of(kName));
  EXPECT_EQ(values, g.matrices.at(kName));
  ASSERT_OK_AND_ASSIGN(const std::vector<float> none, file.of("blk.1.ffn_down.weight"));
  EXPECT_TRUE(none.empty());
}

TEST_F(OutputGradientsTest, WhatIsNotOfThisModelIsNamed) {
  expect_words(error_of(example(n_ + 1)), {"g.gguf", kName, "narrow gradients"});
  OutputGradients other;
  other.matrices["blk.99.ffn_down.weight"] = {1.0f};
  expect_words(error_of(other), {"g.gguf", "no matrix of this model"});
  OutputGradients bad = example(n_);
  bad.matrices[kName][static_cast<std::size_t>(n_ + 3)] = NAN;
  expect_words(error_of(bad), {kName, "nan", "row 1, column 3"});
  bad = example(n_);
  bad.matrices[kName][0] = -1.0f;
  expect_words(error_of(bad), {kName, "-1", "row 0, column 0"});
  EXPECT_EQ(error_of(example(n_)), "");
}

TEST_F(OutputGradientsTest, OtherFilesAreRefused) {
  testing::write_file(dir_ / "text.txt", "no GGUF");
  ModelStats stats;
  stats.inputs[kName].push_back(InputStats::of_width(4));
  const std::vector<float> row(4, 1.0f);
  ASSERT_OK(stats.inputs[kName][0].add({row.data(), 1, 4}));
  ASSERT_OK(write_imatrix(stats, dir_ / "imatrix.gguf", ImatrixFormat::kGguf));
  for (const char* name : {"text.txt", "imatrix.gguf"}) {
    const auto file = GradientFile::open(dir_ / name, *source_);
    ASSERT_FALSE(file.ok()) << name;
    EXPECT_EQ(file.error().code, ErrorCode::kInvalidArgument);
    expect_words(file.error().message, {name, "narrow gradients"});
  }
  EXPECT_EQ(GradientFile::open(dir_ / "none.gguf", *source_).status().error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace narrow::calib
