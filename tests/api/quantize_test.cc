// The public headers, as a program that links the library uses them.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "narrow/narrow.h"
#include "pipeline/tiny_gguf.h"
#include "testing/testing.h"

namespace narrow {
namespace {

using testing::TempDir;

TEST(Api, PlanThenQuantizeThenInspect) {
  const TempDir dir;
  ASSERT_OK(testing::write_tiny_gguf(dir / "m.gguf"));
  QuantizeOptions o;
  o.source = dir / "m.gguf";
  o.output = dir / "q.gguf";
  o.type = "q6_k";
  ASSERT_OK_AND_ASSIGN(const QuantizePlan plan, plan_quantization(o));
  ASSERT_OK_AND_ASSIGN(const QuantizeReport report, quantize(o));
  ASSERT_OK_AND_ASSIGN(const InspectReport seen, inspect(o.output));
  EXPECT_EQ(seen.kind, "GGUF v3");
  EXPECT_EQ(seen.architecture, "llama");
  EXPECT_EQ(seen.file_bytes, plan.output_bytes);
  EXPECT_NEAR(seen.bpw, plan.bpw, 1e-12);
  EXPECT_EQ(seen.parameters, plan.parameters);
  ASSERT_EQ(seen.tensors.size(), report.plan.tensors.size());
  for (std::size_t i = 0; i < seen.tensors.size(); ++i)
    EXPECT_EQ(seen.tensors[i].type, plan.tensors[i].to_type);
}

TEST(Api, ErrorsComeBackAsValues) {
  QuantizeOptions o;
  o.type = "q8_0";
  o.source = "no-such-model";
  o.output = "x.gguf";
  EXPECT_EQ(quantize(o).status().error().code, ErrorCode::kNotFound);
  EXPECT_EQ(plan_quantization(o).status().error().code, ErrorCode::kNotFound);
  EXPECT_EQ(inspect("no-such-model").status().error().code, ErrorCode::kNotFound);
  ConvertOptions c;
  c.source = "no-such-model";
  c.output = "x.gguf";
  EXPECT_EQ(convert(c).status().error().code, ErrorCode::kNotFound);
  c.type = "q4_0";
  EXPECT_EQ(convert(c).status().error().code, ErrorCode::kInvalidArgument);
}

TEST(Api, TensorStatisticsEqualNumpys) {
  NARROW_REQUIRE_PYTHON();
  const TempDir dir;
  ASSERT_OK(testing::write_tiny_gguf(dir / "m.gguf"));
  const std::string name = "blk.1.ffn_down.weight";
  ASSERT_OK_AND_ASSIGN(const TensorStatistics s,
                       inspect_tensor(dir / "m.gguf", name, 16, {"q4_0", "q8_0"}, {}));
  const auto want = nlohmann::json::parse(testing::run_python(R"(
import sys, json, numpy as np
from gguf import GGUFReader
t = [t for t in GGUFReader(sys.argv[1]).tensors if t.name == sys.argv[2]][0]
x = t.data.astype(np.float64).ravel()
d = x - x.mean()
h, _ = np.histogram(x, 16, (x.min(), x.max()))
print(json.dumps(dict(min=x.min(), max=x.max(), mean=x.mean(), stddev=x.std(), kurtosis=(d**4).mean() / (d**2).mean()**2,
                      histogram=h.tolist())))
)",
                                                              {(dir / "m.gguf").string(), name}));
  EXPECT_EQ(s.elements, 256u * 512u);
  EXPECT_EQ(s.min, want["min"].get<double>());
  EXPECT_EQ(s.max, want["max"].get<double>());
  EXPECT_NEAR(s.mean, want["mean"].get<double>(), 1e-9);
  EXPECT_NEAR(s.stddev, want["stddev"].get<double>(), 1e-9);
  EXPECT_NEAR(s.kurtosis, want["kurtosis"].get<double>(), 1e-6);
  ASSERT_EQ(s.histogram.size(), 16u);
  std::uint64_t total = 0;
  for (std::size_t b = 0; b < 16; ++b) {
    // A value on an edge may fall to either side in floating point.
    EXPECT_NEAR(static_cast<double>(s.histogram[b]), want["histogram"][b].get<double>(), 2.0);
    total += s.histogram[b];
  }
  EXPECT_EQ(total, s.elements);
  ASSERT_EQ(s.errors.size(), 2u);
  EXPECT_EQ(s.errors[0].type, "q4_0");
  EXPECT_GT(s.errors[0].relative_rms, 8 * s.errors[1].relative_rms);
  EXPECT_EQ(nlohmann::json::parse(s.to_json())["errors"].size(), 2u);
}

TEST(Api, EveryTypeThatFitsIsTriedOnATensor) {
  const TempDir dir;
  ASSERT_OK(testing::write_tiny_gguf(dir / "m.gguf"));
  ASSERT_OK_AND_ASSIGN(const TensorStatistics s,
                       inspect_tensor(dir / "m.gguf", "blk.0.attn_k.weight", 8, {}, {}));
  std::set<std::string> tried;
  for (const auto& e : s.errors) tried.insert(e.type);
  for (const TypeRow& t : list_types()) {
    const bool expected = t.can_write && t.block_size > 1 && 256 % t.block_size == 0;
    EXPECT_EQ(tried.count(t.name), expected ? 1u : 0u) << t.name;
  }
  // The textbook integers beside them: finer scales lose less, fewer bits more.
  const auto loss = [&](const std::string& type) {
    const auto at =
        std::find_if(s.errors.begin(), s.errors.end(), [&](const auto& e) { return e.type == type; });
    EXPECT_NE(at, s.errors.end()) << type;
    return at == s.errors.end() ? 0.0 : at->relative_rms;
  };
  EXPECT_LT(loss("int8 per channel"), loss("int8 per tensor"));
  EXPECT_LT(loss("int4 group 32"), loss("int4 per channel"));
  EXPECT_LT(loss("uint4 group 32"), loss("uint3 group 32"));
  EXPECT_LT(loss("uint3 group 32"), loss("uint2 group 32"));
}

TEST(Api, RegistriesAreConsistent) {
  std::set<std::string> types;
  for (const TypeRow& t : list_types()) {
    EXPECT_TRUE(types.insert(t.name).second) << t.name;
    EXPECT_NEAR(t.bpw, 8.0 * t.block_bytes / t.block_size, 1e-12);
  }
  for (const MixRow& m : list_mixes()) {
    EXPECT_EQ(types.count(m.base_type), 1u) << m.name;
    EXPECT_GT(m.typical_bpw, 1.5);
    EXPECT_LE(m.typical_bpw, 32.0);
  }
  std::set<std::string> archs;
  for (const ArchRow& a : list_architectures()) EXPECT_TRUE(archs.insert(a.name).second) << a.name;
  for (const char* name : {"llama", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "olmo2", "granite",
                           "smollm3", "qwen3moe", "gpt2", "gptneox"}) {
    EXPECT_EQ(archs.count(name), 1u) << name;
  }
  bool rtn = false;
  for (const MethodRow& m : list_methods()) rtn = rtn || (m.name == "rtn" && !m.needs_calibration);
  EXPECT_TRUE(rtn);
}

TEST(Api, ThreadsAndIsa) {
  set_threads(1);
  EXPECT_EQ(threads(), 1);
  set_threads(0);
  EXPECT_GE(threads(), 1);
  EXPECT_FALSE(isa_description().empty());
  EXPECT_GT(peak_memory_bytes(), 1'000'000u);
}

}  // namespace
}  // namespace narrow
