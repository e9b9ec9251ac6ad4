// A compressed-tensors folder holds the file's codes and scales under Hugging Face's names and in its order.
#include "pipeline/compressed_tensors.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

#include "io/hf_config/hf_folder.h"
#include "io/safetensors/reader.h"
#include "model/tiny_models.h"
#include "pipeline/convert.h"
#include "pipeline/int8_file.h"
#include "pipeline/tiny_gguf.h"
#include "testing/testing.h"

namespace narrow::pipeline {
namespace {

namespace fs = std::filesystem;
using io::safetensors::Reader;
using testing::TempDir;

std::vector<float> floats(const Reader& reader, const std::string& name) {
  const io::safetensors::StoredTensor* t = reader.find(name);
  EXPECT_NE(t, nullptr) << name;
  if (t == nullptr) return {};
  std::vector<float> out(static_cast<std::size_t>(t->info.shape.elements()));
  EXPECT_OK(decode_row(t->info.format, reader.view(*t).data, out.data(), t->info.shape.elements()));
  return out;
}

std::vector<std::int8_t> codes(const Reader& reader, const std::string& name) {
  const io::safetensors::StoredTensor* t = reader.find(name);
  std::vector<std::int8_t> out(static_cast<std::size_t>(t->info.shape.elements()));
  std::memcpy(out.data(), reader.view(*t).data, out.size());
  return out;
}

fs::path make_int8(const TempDir& dir, const fs::path& source, const std::string& type,
                   std::int64_t outliers = 0) {
  QuantizeOptions o;
  o.source = source;
  o.output = dir / (source.filename().string() + "-" + type + ".gguf");
  o.type = type;
  o.outliers = outliers;
  EXPECT_OK(run_int8(o, null_progress()));
  return o.output;
}

Result<ConvertReport> to_folder(const fs::path& file, const fs::path& folder, const std::string& type = "") {
  ConvertOptions o;
  o.source = file;
  o.output = folder;
  o.type = type;
  return run_convert(o, null_progress());
}

// What a reader of the format computes, against the weights that the int8 file was made from.
TEST(CompressedTensors, WeightsAreThoseOfTheFile) {
  NARROW_REQUIRE_SHARED();
  const TempDir dir;
  for (const char* model : {"llama", "phi3", "gpt_neox", "mixtral", "gemma3", "qwen2"}) {
    ASSERT_OK_AND_ASSIGN(const Reader original, Reader::open_folder(model::tiny(model)));
    for (const char* type : {"w8a8", "w8a8-static", "w8a8-asymmetric", "w4a8", "w4a8-static"}) {
      SCOPED_TRACE(std::string(model) + " " + type);
      const bool four = type[1] == '4', is_static = std::string(type).ends_with("static");
      const fs::path file = make_int8(dir, model::tiny(model), type);
      const fs::path folder = dir / (std::string(model) + type);
      ASSERT_OK(to_folder(file, folder));
      ASSERT_OK_AND_ASSIGN(const Reader made, Reader::open_folder(folder));
      ASSERT_OK_AND_ASSIGN(const auto hf, io::HfFolder::open(folder));
      const io::Json& q = hf.config["quantization_config"];
      EXPECT_EQ(q["quant_method"], "compressed-tensors");
      EXPECT_EQ(q["format"], "int-quantized");
      EXPECT_EQ(hf.config["torch_dtype"], "float32");
      const io::Json& group = q["config_groups"]["group_0"];
      EXPECT_EQ(group["targets"], io::Json::array({"Linear"}));
      EXPECT_EQ(group["weights"]["num_bits"], four ? 4 : 8);
      EXPECT_EQ(group["weights"]["strategy"], four ? "group" : "channel");
      EXPECT_EQ(group["weights"]["symmetric"], true);
      EXPECT_EQ(group["input_activations"]["num_bits"], 8);
      EXPECT_EQ(group["input_activations"]["dynamic"], !is_static);
      EXPECT_EQ(group["input_activations"]["strategy"], is_static ? "tensor" : "token");
      EXPECT_EQ(group["input_activations"]["symmetric"], std::string(type) != "w8a8-asymmetric");
      std::set<std::string> ignored;
      for (const auto& name : q["ignore"]) ignored.insert(name.get<std::string>());

      std::size_t quantized = 0, floating = 0;
      for (const auto& t : original.tensors()) {
        const std::string& name = t.info.name;
        if (!made.find(name)) continue;  // prefixed otherwise, or not part of the model
        const std::vector<float> want = floats(original, name);
        const std::string module = name.substr(0, name.rfind('.'));
        if (made.find(name)->info.format != Format::kI8) {
          const std::vector<float> got = floats(made, name);
          double error = 0, size = 0;
          for (std::size_t i = 0; i < want.size(); ++i) {
            error += std::pow(got[i] - want[i], 2);
            size += std::pow(want[i], 2);
          }
          EXPECT_LE(error, 4e-4 * size) << name;  // embeddings and heads pass through 8 bits
          // Whatever stays in floats and might be a linear module must be ignored by the reader.
          const bool matrix = t.info.shape.rank() == 2 && name.find("embed") == std::string::npos;
          EXPECT_TRUE(!matrix || ignored.contains(module)) << name;
          ++floating;
          continue;
        }
        ++quantized;
        EXPECT_FALSE(ignored.contains(module)) << name;
        ASSERT_EQ(made.find(name)->info.shape, t.info.shape) << name;
        const std::int64_t n = t.info.shape[0], k = t.info.shape[1];
        const Shape scale_shape{n, four ? k / 32 : 1};
        ASSERT_EQ(made.find(module + ".weight_scale")->info.shape, scale_shape) << name;
        const std::vector<float> scales = floats(made, module + ".weight_scale");
        const std::vector<std::int8_t> q8 = codes(made, name);
        for (std::int64_t i = 0; i < n * k; ++i) {
          const auto at = static_cast<std::size_t>(i);
          const auto s = static_cast<std::size_t>(four ? i / 32 : i / k);
          ASSERT_GE(q8[at], four ? -8 : -127);
          ASSERT_LE(q8[at], four ? 7 : 127);
          // Searched scales clip at the ends; those of q4_0 are rounded to f16 after codes are chosen.
          const bool end = std::abs(q8[at]) >= (four ? 7 : 127);
          const float limit = std::abs(scales[s]) * (!end ? (four ? 0.55f : 0.51f) : four ? 6.0f : 40.0f);
          ASSERT_NEAR(scales[s] * q8[at], want[at], limit) << name << " " << i;
        }
        EXPECT_EQ(made.find(module + ".input_scale") != nullptr, is_static) << name;
      }
      EXPECT_GT(quantized, 5u);
      EXPECT_GT(floating, 3u);
    }
  }
}

// Every bit: rows of the file's own products, in whichever order, and its static scales.
TEST(CompressedTensors, EveryBitIsKept) {
  const TempDir dir;
  const fs::path source = dir / "source.gguf";
  ASSERT_OK(testing::write_tiny_gguf(source));
  for (const char* type : {"w8a8-static", "w4a8-static"}) {
    const fs::path file = make_int8(dir, source, type), folder = dir / type;
    ASSERT_OK(to_folder(file, folder));
    ASSERT_OK_AND_ASSIGN(const Reader made, Reader::open_folder(folder));
    ASSERT_OK_AND_ASSIGN(const auto stored, model::ModelSource::open(file));
    const std::pair<const char*, const char*> pairs[] = {
        {"blk.1.attn_q", "model.layers.1.self_attn.q_proj"},
        {"blk.0.attn_v", "model.layers.0.self_attn.v_proj"},
        {"blk.1.ffn_down", "model.layers.1.mlp.down_proj"},
    };
    for (const auto& [stem, module] : pairs) {
      const std::string canonical = std::string(stem) + ".weight", name = std::string(module);
      const std::size_t index = *stored->find(canonical);
      const Shape& shape = stored->tensors()[index].shape;
      const std::int64_t n = shape[0], k = shape[1];
      std::vector<std::vector<float>> want(static_cast<std::size_t>(n)), got = want;
      for (std::int64_t r = 0; r < n; ++r) {
        auto& row = want[static_cast<std::size_t>(r)];
        row.resize(static_cast<std::size_t>(k));
        if (type[1] == '4') {
          ASSERT_OK(stored->read_f32(index, r, r + 1, row.data()));
          continue;
        }
        std::vector<std::int8_t> q(row.size());
        ASSERT_OK(stored->read_raw(index, r, r + 1, reinterpret_cast<std::byte*>(q.data())));
        const std::vector<float> s =
            model::read_all(*stored, *stored->find(std::string(stem) + ".weight_scale"));
        for (std::size_t i = 0; i < q.size(); ++i) row[i] = s[static_cast<std::size_t>(r)] * q[i];
      }
      const std::vector<float> scales = floats(made, name + ".weight_scale");
      const std::vector<std::int8_t> q = codes(made, name + ".weight");
      for (std::int64_t i = 0; i < n * k; ++i) {
        const std::size_t s =
            static_cast<std::size_t>(i * static_cast<std::int64_t>(scales.size()) / (n * k));
        got[static_cast<std::size_t>(i / k)].push_back(scales[s] * q[static_cast<std::size_t>(i)]);
      }
      std::sort(want.begin(), want.end());
      std::sort(got.begin(), got.end());
      EXPECT_TRUE(want == got) << type << " " << name;
      EXPECT_EQ(floats(made, name + ".input_scale"),
                model::read_all(*stored, *stored->find(std::string(stem) + ".input_scale")));
    }
  }
}

TEST(CompressedTensors, FloatsTakeTheTypeAskedFor) {
  const TempDir dir;
  const fs::path source = dir / "source.gguf";
  ASSERT_OK(testing::write_tiny_gguf(source));
  const fs::path file = make_int8(dir, source, "w8a8");
  ASSERT_OK_AND_ASSIGN(const ConvertReport report, to_folder(file, dir / "bf16", "bf16"));
  ASSERT_EQ(report.notes.size(), 2u);
  EXPECT_NE(report.notes[1].find("scales are rounded to bf16"), std::string::npos) << report.notes[1];
  ASSERT_OK_AND_ASSIGN(const Reader made, Reader::open_folder(dir / "bf16"));
  EXPECT_EQ(made.find("model.layers.0.mlp.up_proj.weight")->info.format, Format::kI8);
  EXPECT_EQ(made.find("model.layers.0.mlp.up_proj.weight_scale")->info.format, Format::kBF16);
  EXPECT_EQ(made.find("model.embed_tokens.weight")->info.format, Format::kBF16);
  EXPECT_EQ(made.find("lm_head.weight")->info.format, Format::kBF16);
  ASSERT_OK_AND_ASSIGN(const auto hf, io::HfFolder::open(dir / "bf16"));
  EXPECT_EQ(hf.config["torch_dtype"], "bfloat16");
}

TEST(CompressedTensors, Refusals) {
  NARROW_REQUIRE_SHARED();
  const TempDir dir;
  testing::TinyGguf tiny;
  tiny.edit = [](const std::string& name, std::vector<float>& values) {
    if (name.ends_with("_norm.weight")) values[5] = 40.0f;
  };
  const fs::path source = dir / "source.gguf";
  ASSERT_OK(testing::write_tiny_gguf(source, tiny));
  const auto expect = [](const Result<ConvertReport>& r, const char* part) {
    ASSERT_FALSE(r.ok()) << part;
    EXPECT_NE(r.error().message.find(part), std::string::npos) << r.error().message;
  };
  expect(to_folder(make_int8(dir, source, "w8a8", -1), dir / "a"), "--outliers 0");
  expect(to_folder(make_int8(dir, model::tiny("gpt2"), "w8a8"), dir / "b"), "are no linear ones");
  ASSERT_OK_AND_ASSIGN(const auto floating, model::ModelSource::open(source));
  expect(write_compressed_tensors(floating, dir / "c", {}, 0, null_progress()), "holds no int8 products");
  testing::write_file(dir / "d", "a file");
  expect(to_folder(make_int8(dir, source, "w8a8"), dir / "d"), "is a file");
  for (const char* name : {"a", "b", "c"}) EXPECT_FALSE(fs::exists(dir / name)) << name;
}

}  // namespace
}  // namespace narrow::pipeline
