// The 15 tiny models with golden logits, through every file that narrow writes.
#include <cmath>
#include <cstring>

#include "io/gguf/reader.h"
#include "io/safetensors/reader.h"
#include "pipeline/convert.h"
#include "pipeline/mixes.h"
#include "pipeline/quantize.h"
#include "runtime/session.h"
#include "testing/testing.h"

namespace narrow::pipeline {
namespace {

namespace fs = std::filesystem;
using testing::TempDir;

const std::vector<std::string> kModels = {"gemma2", "gemma3",      "gpt2",    "gpt_neox",  "granite",
                                          "llama",  "llama3-rope", "mistral", "mixtral",   "olmo2",
                                          "phi3",   "qwen2",       "qwen3",   "qwen3_moe", "smollm3"};

fs::path model_folder(const std::string& name) { return testing::shared_data() / "tiny-models" / name; }

struct Golden {
  std::vector<std::int32_t> ids, greedy;
  std::vector<float> logits;
};

std::vector<std::int32_t> ids_of(const io::safetensors::Reader& r, const char* name) {
  const auto* t = r.find(name);
  if (t == nullptr) return {};
  const TensorView v = r.view(*t);
  std::vector<std::int32_t> out;
  for (std::int64_t i = 0; i < v.shape.elements(); ++i) {
    if (v.format == Format::kI64) {
      std::int64_t x = 0;
      std::memcpy(&x, v.data + i * 8, 8);
      out.push_back(static_cast<std::int32_t>(x));
    } else {
      std::int32_t x = 0;
      std::memcpy(&x, v.data + i * 4, 4);
      out.push_back(x);
    }
  }
  return out;
}

Result<Golden> read_golden(const std::string& name) {
  NARROW_ASSIGN(const auto r, io::safetensors::Reader::open(model_folder(name) / "golden.safetensors"));
  Golden g{ids_of(r, "input_ids"), ids_of(r, "greedy"), {}};
  const auto* t = r.find("logits");
  if (t == nullptr) return make_error(ErrorCode::kNotFound, "no logits");
  g.logits.resize(static_cast<std::size_t>(t->info.shape.elements()));
  NARROW_TRY(decode_row(t->info.format, r.view(*t).data, g.logits.data(), t->info.shape.elements()));
  return g;
}

Result<std::unique_ptr<runtime::Session>> open_session(const fs::path& path) {
  NARROW_ASSIGN(auto source, model::ModelSource::open(path));
  NARROW_ASSIGN(auto model, runtime::LoadedModel::load(source));
  return runtime::Session::create(model);
}

Result<std::vector<std::int32_t>> greedy(runtime::Session& s, const std::vector<std::int32_t>& prompt,
                                         std::size_t n) {
  std::vector<std::int32_t> out;
  std::vector<std::int32_t> next = prompt;
  while (out.size() < n) {
    std::vector<float> logits;
    NARROW_TRY(s.forward(next, runtime::LogitRows::kLast, logits));
    const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
    next = {static_cast<std::int32_t>(best)};
    out.push_back(next[0]);
  }
  return out;
}

// Logits within 1e-3 of the golden ones and the same greedy tokens.
void expect_golden(const fs::path& path, const Golden& g, const std::string& what) {
  ASSERT_OK_AND_ASSIGN(const auto session, open_session(path));
  std::vector<float> logits;
  ASSERT_OK(session->forward(g.ids, runtime::LogitRows::kAll, logits));
  ASSERT_EQ(logits.size(), g.logits.size()) << what;
  float worst = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) worst = std::max(worst, std::fabs(logits[i] - g.logits[i]));
  EXPECT_LT(worst, 1e-3f) << what;
  EXPECT_OK(session->truncate(0));
  ASSERT_OK_AND_ASSIGN(const auto tokens, greedy(*session, g.ids, g.greedy.size()));
  EXPECT_EQ(tokens, g.greedy) << what;
}

Status convert_to(const fs::path& from, const fs::path& to, const std::string& type = {}) {
  ConvertOptions o;
  o.source = from;
  o.output = to;
  o.type = type;
  return run_convert(o, null_progress()).status();
}

TEST(TinyModels, GoldenLogitsAfterConvertAndBack) {
  NARROW_REQUIRE_SHARED();
  for (const std::string& name : kModels) {
    SCOPED_TRACE(name);
    const TempDir dir;
    ASSERT_OK_AND_ASSIGN(const Golden golden, read_golden(name));
    ASSERT_OK(convert_to(model_folder(name), dir / "a.gguf"));
    expect_golden(dir / "a.gguf", golden, name + " as GGUF");
    ASSERT_OK(convert_to(dir / "a.gguf", dir / "folder"));
    expect_golden(dir / "folder", golden, name + " as folder again");
    ASSERT_OK(convert_to(dir / "folder", dir / "b.gguf"));
    ASSERT_OK_AND_ASSIGN(const auto a, io::gguf::Reader::open(dir / "a.gguf"));
    ASSERT_OK_AND_ASSIGN(const auto b, io::gguf::Reader::open(dir / "b.gguf"));
    ASSERT_EQ(a.tensors().size(), b.tensors().size());
    for (const auto& t : a.tensors()) {
      const auto* other = b.find(t.info.name);
      ASSERT_NE(other, nullptr) << t.info.name;
      ASSERT_EQ(other->info.format, t.info.format) << t.info.name;
      ASSERT_EQ(other->info.shape, t.info.shape) << t.info.name;
      EXPECT_EQ(std::memcmp(a.view(t).data, b.view(*other).data, t.info.bytes()), 0) << t.info.name;
    }
  }
}

TEST(TinyModels, EveryTypeOfEveryModelOpensAndRuns) {
  NARROW_REQUIRE_SHARED();
  for (const std::string& name : kModels) {
    ASSERT_OK_AND_ASSIGN(const Golden golden, read_golden(name));
    for (const Mix& mix : all_mixes()) {
      if (!mix.alias_of.empty()) continue;
      // Formats know nothing of architectures: three unlike ones meet them all, the others a few.
      const bool all = name == "llama" || name == "qwen3_moe" || name == "gpt2";
      if (!all && mix.name != "q8_0" && mix.name != "q4_k_m" && mix.name != "mxfp4_moe") continue;
      SCOPED_TRACE(name + " " + std::string(mix.name));
      const TempDir dir;
      QuantizeOptions o;
      o.source = model_folder(name);
      o.output = dir / "q.gguf";
      o.type = mix.name;
      ASSERT_OK(run_quantize(o, null_progress()).status());
      ASSERT_OK_AND_ASSIGN(const auto session, open_session(dir / "q.gguf"));
      std::vector<float> logits;
      ASSERT_OK(session->forward(golden.ids, runtime::LogitRows::kAll, logits));
      ASSERT_EQ(logits.size(), golden.logits.size());
      // Per position, and their median: a router on random weights may pick other experts at a few.
      const std::size_t rows = golden.ids.size(), n_vocab = logits.size() / rows;
      std::vector<double> errors;
      for (std::size_t r = 0; r < rows; ++r) {
        double error = 0, energy = 0;
        for (std::size_t i = r * n_vocab; i < (r + 1) * n_vocab; ++i) {
          const double d = static_cast<double>(logits[i]) - static_cast<double>(golden.logits[i]);
          error += d * d;
          energy += static_cast<double>(golden.logits[i]) * static_cast<double>(golden.logits[i]);
        }
        ASSERT_TRUE(std::isfinite(error)) << r;
        errors.push_back(std::sqrt(error / energy));
      }
      std::nth_element(errors.begin(), errors.begin() + static_cast<std::ptrdiff_t>(rows / 2), errors.end());
      const double median = errors[rows / 2];
      // Eight bits and more follow the golden logits closely; the few-bit types only have to run.
      // Activations of quantized weights are int8: among experts of random weights that changes more choices.
      const bool experts = name == "mixtral" || name == "qwen3_moe";
      if (mix.name == "q8_0" || mix.name == "f16") {
        EXPECT_LT(median, experts && mix.name == "q8_0" ? 0.1 : 0.05);
      }
      if (mix.name == "f32") {
        EXPECT_LT(median, 1e-3);
      }
    }
  }
}

}  // namespace
}  // namespace narrow::pipeline
