// Files of int8 products: what they hold, that the engine computes what the simulation says, and refusals.
#include "pipeline/int8_file.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/thread_team.h"
#include "model/tiny_models.h"
#include "pipeline/convert.h"
#include "pipeline/tiny_gguf.h"
#include "runtime/session.h"
#include "testing/testing.h"

namespace narrow::pipeline {
namespace {

namespace fs = std::filesystem;
using testing::TempDir;

// Rows of no whole blocks, fused tensors, biases, experts, norms before and after, tied and untied heads.
constexpr const char* kInt8Models[] = {"gemma3", "gpt2", "mistral", "mixtral", "olmo2", "phi3"};

// Logits of 24 tokens at once and of 3 single ones.
Result<std::vector<float>> logits_of(const fs::path& file, runtime::Compute compute) {
  NARROW_ASSIGN(const auto source, model::ModelSource::open(file));
  NARROW_ASSIGN(const auto model, runtime::LoadedModel::load(source, {compute}));
  runtime::SessionOptions options;
  options.n_ctx = 32;
  options.cache_keys = options.cache_values = Format::kF32;
  NARROW_ASSIGN(const auto session, runtime::Session::create(model, options));
  std::vector<std::int32_t> ids;
  for (std::int64_t i = 0; i < 27; ++i) {
    ids.push_back(static_cast<std::int32_t>((i * i * 31 + 7 * i + 3) % model->config().n_vocab));
  }
  std::vector<float> all, more;
  NARROW_TRY(session->forward({ids.data(), 24}, runtime::LogitRows::kAll, all));
  for (std::size_t i = 24; i < ids.size(); ++i) {
    NARROW_TRY(session->forward({&ids[i], 1}, runtime::LogitRows::kAll, more));
    all.insert(all.end(), more.begin(), more.end());
  }
  return all;
}

QuantizeOptions options_for(const fs::path& source, const fs::path& output, const std::string& type) {
  QuantizeOptions o;
  o.source = source;
  o.output = output;
  o.type = type;
  return o;
}

// Some input channels of every product are large.
testing::TinyGguf with_outliers() {
  testing::TinyGguf tiny;
  tiny.n_embd = 128;
  tiny.n_ff = 192;
  tiny.edit = [](const std::string& name, std::vector<float>& values) {
    if (name.find("attn_norm") == std::string::npos && name.find("ffn_norm") == std::string::npos) return;
    values[5] = 40.0f;
    values[77] = -25.0f;
  };
  return tiny;
}

TEST(Int8File, TheSimulationIsTheEngineOfEveryKindOfModel) {
  const TempDir dir;
  for (const char* name : kInt8Models) {
    for (const char* type : {"w8a8-static", "w8a8-asymmetric", "w4a8", "w4a8-static"}) {
      const fs::path file = dir / (std::string(name) + "-" + type + ".gguf");
      const auto report = run_int8(options_for(model::tiny(name), file, type), null_progress());
      ASSERT_OK(report);
      ASSERT_OK_AND_ASSIGN(const std::vector<float> engine, logits_of(file, runtime::Compute::kStored));
      ASSERT_OK_AND_ASSIGN(const std::vector<float> simulated, logits_of(file, runtime::Compute::kSimulate));
      EXPECT_EQ(engine, simulated) << name << " " << type;
    }
  }
}

TEST(Int8File, OutlierColumnsAreFoundAndHelp) {
  const TempDir dir;
  const fs::path source = dir / "source.gguf";
  ASSERT_OK(testing::write_tiny_gguf(source, with_outliers()));
  ASSERT_OK_AND_ASSIGN(const std::vector<float> want, logits_of(source, runtime::Compute::kFloat));
  const auto distance = [&](const std::vector<float>& got) {
    double sum = 0, size = 0;
    for (std::size_t i = 0; i < want.size(); ++i) {
      sum += std::pow(static_cast<double>(got[i] - want[i]), 2);
      size += std::pow(static_cast<double>(want[i]), 2);
    }
    return std::sqrt(sum / size);
  };
  for (const char* type : {"w8a8", "w8a8-static"}) {
    double errors[2];
    for (const std::int64_t outliers : {0, -1}) {
      QuantizeOptions o = options_for(source, dir / "out.gguf", type);
      o.outliers = outliers;
      ASSERT_OK(run_int8(o, null_progress()));
      ASSERT_OK_AND_ASSIGN(const std::vector<float> got, logits_of(o.output, runtime::Compute::kStored));
      errors[outliers == 0 ? 0 : 1] = distance(got);
      ASSERT_OK_AND_ASSIGN(const auto file, model::ModelSource::open(o.output));
      const auto index = file->find("blk.0.attn_q.outlier_index");
      EXPECT_EQ(index.has_value(), outliers != 0);
      if (!index) continue;
      const TensorInfo& t = file->tensors()[*index];
      std::vector<std::int32_t> columns(static_cast<std::size_t>(t.shape.elements()));
      ASSERT_OK(file->read_raw(*index, 0, 1, reinterpret_cast<std::byte*>(columns.data())));
      EXPECT_TRUE(std::count(columns.begin(), columns.end(), 5)) << type;
      EXPECT_TRUE(std::count(columns.begin(), columns.end(), 77)) << type;
    }
    EXPECT_LT(errors[1], 0.6 * errors[0]) << type;
    EXPECT_LT(errors[1], 0.08) << type;
  }
}

// `auto` evens inputs out where scales are static and a text shows them; elsewhere it rounds.
TEST(Int8File, AutoEqualizesStaticInputs) {
  const TempDir dir;
  const fs::path source = fs::path(NARROW_MODELS) / "tales-4m", text = dir / "text.txt";
  testing::write_file(text,
                      "Once upon a time there was a king who had three sons, and the youngest went out.");
  const auto bytes = [&](const char* type, const char* method, bool calibrated) {
    QuantizeOptions o = options_for(source, dir / "out.gguf", type);
    o.method = method;
    if (calibrated) o.calibration.texts = {text};
    EXPECT_OK(run_int8(o, null_progress()));
    const auto file = model::ModelSource::open(o.output);
    EXPECT_OK(file);
    const std::size_t i = *(*file)->find("blk.0.ffn_down.weight");
    std::vector<std::byte> out((*file)->tensors()[i].bytes());
    EXPECT_OK((*file)->read_raw(i, 0, (*file)->tensors()[i].shape.rows(), out.data()));
    return out;
  };
  const std::vector<std::byte> with_text = bytes("w8a8-static", "auto", true);
  EXPECT_EQ(with_text, bytes("w8a8-static", "equalize", true));
  EXPECT_NE(with_text, bytes("w8a8-static", "rtn", true));
  EXPECT_EQ(bytes("w8a8-static", "auto", false), bytes("w8a8-static", "rtn", false));
  EXPECT_EQ(bytes("w8a8", "auto", true), bytes("w8a8", "rtn", true));
}

// 4-bit weights are chosen for what meets them (how much nearer is in cli/embedded_model_test.cc), their
// outlier columns apart: zeros where the columns are, the same bytes for any number of threads, and what is
// simulated is what runs.
TEST(Int8File, FourBitWeightsAreChosenForTheirInputs) {
  const TempDir dir;
  const fs::path source = fs::path(NARROW_MODELS) / "tales-4m", text = dir / "text.txt";
  std::string words;
  for (int i = 0; i < 400; ++i) words += fmt::format("{} men and {} dogs went out. ", i, i * i % 97);
  testing::write_file(text, words);
  const auto make = [&](const char* type, const char* method) {
    QuantizeOptions o = options_for(source, dir / "out.gguf", type);
    o.method = method;
    o.outliers = 8;
    o.calibration.texts = {text};
    o.calibration.max_tokens = 512;
    o.calibration.n_ctx = 128;
    EXPECT_OK(run_int8(o, null_progress()));
    return testing::read_file(o.output);
  };
  const std::pair<const char*, const char*> cases[] = {{"w4a8", "gptq"}, {"w4a8-static", "auto"}};
  for (const auto& [type, method] : cases) {
    SCOPED_TRACE(fmt::format("{} {}", type, method));
    const std::string rounded = make(type, "rtn");
    const std::string chosen = make(type, method);
    EXPECT_TRUE(chosen != rounded);
    const fs::path file = dir / "out.gguf";
    ASSERT_OK_AND_ASSIGN(const std::vector<float> engine, logits_of(file, runtime::Compute::kStored));
    ASSERT_OK_AND_ASSIGN(const std::vector<float> simulated, logits_of(file, runtime::Compute::kSimulate));
    EXPECT_EQ(engine, simulated);
    ASSERT_OK_AND_ASSIGN(const auto made, model::ModelSource::open(file));
    const auto index = made->find("blk.0.ffn_up.outlier_index");
    ASSERT_TRUE(index.has_value());
    std::vector<std::int32_t> columns(static_cast<std::size_t>(made->tensors()[*index].shape.elements()));
    ASSERT_OK(made->read_raw(*index, 0, 1, reinterpret_cast<std::byte*>(columns.data())));
    const std::size_t up = *made->find("blk.0.ffn_up.weight");
    const Shape& shape = made->tensors()[up].shape;
    std::vector<float> w(static_cast<std::size_t>(shape.elements()));
    ASSERT_OK(made->read_f32(up, 0, shape.rows(), w.data()));
    for (std::int64_t r = 0; r < shape.rows(); ++r) {
      for (const std::int32_t c : columns) EXPECT_EQ(w[static_cast<std::size_t>(r * shape[1] + c)], 0.0f);
    }
    set_thread_count(1);
    EXPECT_TRUE(make(type, method) == chosen) << "other bytes on one thread";
    set_thread_count(0);
  }
}

// The source's own loading as int8 takes the same path.
TEST(Int8File, AnyModelCanBeSimulated) {
  const TempDir dir;
  const fs::path source = dir / "source.gguf";
  ASSERT_OK(testing::write_tiny_gguf(source, with_outliers()));
  ASSERT_OK_AND_ASSIGN(const std::vector<float> engine, logits_of(source, runtime::Compute::kW8A8));
  ASSERT_OK_AND_ASSIGN(const std::vector<float> simulated, logits_of(source, runtime::Compute::kSimulate));
  EXPECT_EQ(engine, simulated);
}

TEST(Int8File, Refusals) {
  const TempDir dir;
  const fs::path source = dir / "source.gguf", made = dir / "made.gguf";
  ASSERT_OK(testing::write_tiny_gguf(source));
  ASSERT_OK(run_int8(options_for(source, made, "W8A8"), null_progress()));
  struct Case {
    const char* what;
    std::function<void(QuantizeOptions&)> change;
    const char* part;
  };
  const Case cases[] = {
      {"rules",
       [](QuantizeOptions& o) {
         o.rules.push_back({"ffn", "q8_0"});
       },
       "--tensor"},
      {"a method", [](QuantizeOptions& o) { o.method = "gptq"; }, "--method gptq"},
      {"norms", [](QuantizeOptions& o) { o.type = "w4a8", o.method = "gptq+norms"; },
       "gptq and autoround can"},
      {"no text for gptq", [](QuantizeOptions& o) { o.type = "w4a8", o.method = "gptq"; }, "name texts"},
      {"a comparison", [](QuantizeOptions& o) { o.compare_rounding = true; }, "--compare-rounding"},
      {"a transform", [](QuantizeOptions& o) { o.method = "awq"; }, "--method awq"},
      {"no text", [](QuantizeOptions& o) { o.method = "smoothquant"; }, "needs calibration: name texts"},
      {"statistics", [](QuantizeOptions& o) { o.calibration.stats = "x"; }, "statistics"},
      {"an int8 file", [&](QuantizeOptions& o) { o.source = made; }, "holds int8 products"},
      {"itself", [&](QuantizeOptions& o) { o.output = o.source; }, "same file"},
  };
  for (const Case& c : cases) {
    QuantizeOptions o = options_for(source, dir / "out.gguf", "w8a8");
    c.change(o);
    const auto r = run_int8(o, null_progress());
    ASSERT_FALSE(r.ok()) << c.what;
    EXPECT_NE(r.error().message.find(c.part), std::string::npos) << c.what << ": " << r.error().message;
  }
  ConvertOptions convert;
  convert.source = made;
  convert.output = dir / "out.gguf";
  const auto converted = run_convert(convert, null_progress());
  ASSERT_FALSE(converted.ok());
  EXPECT_NE(converted.error().message.find("holds int8 products"), std::string::npos);
  const auto as_float = logits_of(made, runtime::Compute::kFloat);
  ASSERT_FALSE(as_float.ok());
  EXPECT_NE(as_float.error().message.find("is made for int8 products"), std::string::npos);
}

// Parts that are wrong in a file are named.
TEST(Int8File, DamagedPartsAreNamed) {
  const TempDir dir;
  const fs::path source = dir / "source.gguf", made = dir / "made.gguf", bad = dir / "bad.gguf";
  ASSERT_OK(testing::write_tiny_gguf(source, with_outliers()));
  ASSERT_OK(run_int8(options_for(source, made, "w8a8-static"), null_progress()));
  ASSERT_OK_AND_ASSIGN(const auto good, model::ModelSource::open(made));
  // Writes the file again with one tensor changed, or left out where `values` is empty.
  const auto rewrite = [&](const std::string& name, const std::vector<std::byte>& values) {
    std::vector<TensorInfo> tensors;
    for (const TensorInfo& t : good->tensors()) {
      if (t.name != name || !values.empty()) tensors.push_back(t);
    }
    ASSERT_OK_AND_ASSIGN(const auto metadata, good->gguf_metadata());
    ASSERT_OK_AND_ASSIGN(const auto writer, io::gguf::Writer::create(bad, metadata, tensors));
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      const std::size_t from = *good->find(tensors[i].name);
      std::vector<std::byte> bytes(tensors[i].bytes());
      ASSERT_OK(good->read_raw(from, 0, tensors[i].shape.rows(), bytes.data()));
      if (tensors[i].name == name) std::copy(values.begin(), values.end(), bytes.begin());
      ASSERT_OK(writer->write(i, 0, bytes));
    }
    ASSERT_OK(writer->finish());
  };
  const auto bytes_of = [](auto value) {
    const auto* p = reinterpret_cast<const std::byte*>(&value);
    return std::vector<std::byte>(p, p + sizeof value);
  };
  struct Case {
    std::string tensor;
    std::vector<std::byte> values;
    const char* part;
  };
  const Case cases[] = {
      {"blk.0.attn_q.weight_scale", {}, "'blk.0.attn_q.weight_scale' f32 is missing"},
      {"blk.0.attn_q.weight_scale", bytes_of(-1.0f), "holds -1; scales"},
      {"blk.1.ffn_down.input_scale", {}, "'blk.1.ffn_down.input_scale' f32 [1] is missing"},
      {"blk.1.ffn_down.input_scale", bytes_of(0.0f), "holds 0; a scale"},
      {"blk.0.attn_k.input_scale", bytes_of(3.0f), "share an input"},
      {"blk.0.ffn_gate.outlier_index", bytes_of(std::int32_t{4000}), "holds 4000"},
      {"blk.0.ffn_gate.outlier_weight", {}, "'blk.0.ffn_gate.outlier_weight' is missing"},
  };
  for (const Case& c : cases) {
    rewrite(c.tensor, c.values);
    const auto r = logits_of(bad, runtime::Compute::kStored);
    ASSERT_FALSE(r.ok()) << c.part;
    EXPECT_NE(r.error().message.find(c.part), std::string::npos) << r.error().message;
  }
}

}  // namespace
}  // namespace narrow::pipeline
