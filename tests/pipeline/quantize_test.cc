#include "pipeline/quantize.h"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "base/thread_team.h"
#include "io/gguf/reader.h"
#include "pipeline/mixes.h"
#include "pipeline/provenance.h"
#include "pipeline/tiny_gguf.h"
#include "testing/testing.h"

namespace narrow::pipeline {
namespace {

namespace fs = std::filesystem;
using testing::TempDir;
using testing::TinyGguf;

// Threads for one scope; the process's default after it.
struct WithThreads {
  explicit WithThreads(int n) { set_thread_count(n); }
  ~WithThreads() { set_thread_count(0); }
};

QuantizeOptions options(const fs::path& source, const fs::path& output, std::string type) {
  QuantizeOptions o;
  o.source = source;
  o.output = output;
  o.type = std::move(type);
  return o;
}

std::vector<fs::path> files_in(const fs::path& folder) {
  std::vector<fs::path> out;
  for (const auto& e : fs::directory_iterator(folder)) out.push_back(e.path().filename());
  std::sort(out.begin(), out.end());
  return out;
}

TEST(Quantize, EveryTypeIsWrittenAsPlannedAndPythonReadsIt) {
  const TempDir dir;
  ASSERT_OK(testing::write_tiny_gguf(dir / "src.gguf"));
  std::vector<std::string> written = {(dir / "src.gguf").string()};
  for (const Mix& mix : all_mixes()) {
    const fs::path out = dir / (std::string(mix.name) + ".gguf");
    ASSERT_OK_AND_ASSIGN(
        const QuantizeReport r,
        run_quantize(options(dir / "src.gguf", out, std::string(mix.name)), null_progress()));
    ASSERT_OK_AND_ASSIGN(const auto reader, io::gguf::Reader::open(out));
    ASSERT_EQ(reader.tensors().size(), r.plan.tensors.size()) << mix.name;
    for (const PlannedTensor& t : r.plan.tensors) {
      const auto* stored = reader.find(t.name);
      ASSERT_NE(stored, nullptr) << t.name;
      EXPECT_EQ(format_info(stored->info.format).name, t.to_type) << mix.name << " " << t.name;
    }
    EXPECT_EQ(reader.file_bytes(), r.plan.output_bytes) << mix.name;
    EXPECT_EQ(reader.metadata().get_int("general.file_type"), mix.file_type);
    EXPECT_EQ(reader.metadata().get_int("general.quantization_version"), 2);
    written.push_back(out.string());
  }
  NARROW_REQUIRE_PYTHON();
  // The loss that narrow reports is the one an independent decoder finds; ternary formats are far off on such
  // weights.
  const std::string text = testing::run_python(R"(
import sys, numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize
def load(p):
    return {t.name: dequantize(t.data, t.tensor_type).astype(np.float64) for t in GGUFReader(p).tensors}
src = load(sys.argv[1])
for p in sys.argv[2:]:
    q = load(p)
    assert q.keys() == src.keys(), p
    a = np.concatenate([src[n].ravel() for n in src]); b = np.concatenate([q[n].ravel() for n in src])
    print(p.split('/')[-1], np.sqrt(((a - b) ** 2).sum() / (a ** 2).sum()))
)",
                                               written);
  std::istringstream lines(text);
  std::string name;
  double error = 0;
  std::size_t seen = 0;
  while (lines >> name >> error) {
    ++seen;
    const bool ternary = name.starts_with("tq") || name.starts_with("iq1");
    const bool two_bits = name.starts_with("q2_k") || name.starts_with("iq2");
    EXPECT_LT(error, ternary ? 0.7 : two_bits ? 0.35 : 0.2) << name;
    if (name == "f32.gguf") {
      EXPECT_EQ(error, 0.0);
    }
  }
  EXPECT_EQ(seen + 1, written.size()) << text;
}

TEST(Quantize, SameBytesForAnyNumberOfThreadsAndEveryRun) {
  const TempDir dir;
  ASSERT_OK(testing::write_tiny_gguf(dir / "src.gguf"));
  for (const char* type : {"q4_k_m", "q8_0", "bf16", "iq4_xs"}) {
    std::vector<std::string> bytes;
    for (const int threads : {1, 2, 3, 2}) {
      const WithThreads scope(threads);
      ASSERT_OK(run_quantize(options(dir / "src.gguf", dir / "out.gguf", type), null_progress()).status());
      bytes.push_back(testing::read_file(dir / "out.gguf"));
    }
    for (const std::string& b : bytes) EXPECT_EQ(b, bytes.front()) << type;
  }
}

TEST(Quantize, ProvenanceSaysWhatItCameFromAndNoPath) {
  const TempDir dir;
  ASSERT_OK(testing::write_tiny_gguf(dir / "src.gguf"));
  QuantizeOptions o = options(dir / "src.gguf", dir / "out.gguf", "Q4_K");
  o.rules = {{"ffn_down", "q8_0"}};
  ASSERT_OK(run_quantize(o, null_progress()).status());
  ASSERT_OK_AND_ASSIGN(const auto reader, io::gguf::Reader::open(dir / "out.gguf"));
  const auto& m = reader.metadata();
  EXPECT_EQ(m.get_string("narrow.source.name"), "src.gguf");
  EXPECT_EQ(m.get_string("narrow.source.sha256").value_or("").size(), 64u);
  EXPECT_FALSE(m.get_string("narrow.version").value_or("").empty());
  const auto recipe = nlohmann::json::parse(m.get_string("narrow.recipe").value_or(""), nullptr, false);
  ASSERT_TRUE(recipe.is_object());
  EXPECT_EQ(recipe["type"], "q4_k");
  EXPECT_EQ(recipe["method"], "rtn");
  EXPECT_EQ(recipe["rules"][0]["pattern"], "ffn_down");
  EXPECT_EQ(testing::read_file(dir / "out.gguf").find(dir.path().string()), std::string::npos);
  EXPECT_EQ(m.get_string("general.name"), "tiny") << "the source's own metadata stays";
}

TEST(Quantize, SplitsAndReadsBackTheSame) {
  const TempDir dir;
  ASSERT_OK(testing::write_tiny_gguf(dir / "src.gguf"));
  QuantizeOptions o = options(dir / "src.gguf", dir / "one.gguf", "q8_0");
  ASSERT_OK(run_quantize(o, null_progress()).status());
  o.output = dir / "parts.gguf";
  o.split_max_bytes = 300'000;
  ASSERT_OK_AND_ASSIGN(const QuantizeReport r, run_quantize(o, null_progress()));
  EXPECT_GT(r.files.size(), 2u);
  ASSERT_OK_AND_ASSIGN(const auto one, io::gguf::Reader::open(dir / "one.gguf"));
  ASSERT_OK_AND_ASSIGN(const auto parts, io::gguf::Reader::open(r.files.back()));
  ASSERT_EQ(one.tensors().size(), parts.tensors().size());
  for (const auto& t : one.tensors()) {
    const auto* other = parts.find(t.info.name);
    ASSERT_NE(other, nullptr) << t.info.name;
    EXPECT_EQ(std::memcmp(one.view(t).data, parts.view(*other).data, t.info.bytes()), 0) << t.info.name;
  }
  // A split source is one model; its parts are protected too.
  QuantizeOptions again = options(r.files.front(), r.files.back(), "q8_0");
  again.allow_requantize = true;
  EXPECT_EQ(run_quantize(again, null_progress()).status().error().code, ErrorCode::kInvalidArgument);
}

TEST(Quantize, LossesAreReportedForChangedTensors) {
  const TempDir dir;
  ASSERT_OK(testing::write_tiny_gguf(dir / "src.gguf"));
  ASSERT_OK_AND_ASSIGN(const QuantizeReport r,
                       run_quantize(options(dir / "src.gguf", dir / "out.gguf", "q4_0"), null_progress()));
  ASSERT_FALSE(r.losses.empty());
  for (const TensorLoss& l : r.losses) {
    EXPECT_GT(l.relative_rms, 0.0) << l.name;
    EXPECT_LT(l.relative_rms, 0.15) << l.name;
    EXPECT_NEAR(l.sqnr_db, -20 * std::log10(l.relative_rms), 1e-6) << l.name;
    EXPECT_EQ(l.name.find("norm"), std::string::npos) << "unchanged tensors lose nothing";
  }
}

TEST(Quantize, NonFiniteWeightsAreRefusedWithTheirPlace) {
  struct Case {
    std::string tensor, place;
    std::size_t element;
    float value;
    std::string word;
  };
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  const std::vector<Case> cases = {{"blk.1.ffn_down.weight", "[3, 17]", 3 * 512 + 17, nan, "NaN"},
                                   {"output_norm.weight", "[200]", 200, nan, "NaN"},
                                   {"token_embd.weight", "[63, 255]", 63 * 256 + 255, -inf, "infinity"}};
  for (const Case& c : cases) {
    for (const char* type : {"q4_k_m", "f16", "f32"}) {
      const TempDir dir;
      TinyGguf bad;
      bad.edit = [&](const std::string& name, std::vector<float>& v) {
        if (name == c.tensor) v[c.element] = c.value;
      };
      ASSERT_OK(testing::write_tiny_gguf(dir / "src.gguf", bad));
      const auto r = run_quantize(options(dir / "src.gguf", dir / "out.gguf", type), null_progress());
      ASSERT_FALSE(r.ok()) << c.tensor << " " << type;
      EXPECT_EQ(r.error().code, ErrorCode::kNumeric);
      for (const std::string& part : {c.tensor, c.place, c.word}) {
        EXPECT_NE(r.error().message.find(part), std::string::npos) << r.error().message;
      }
      EXPECT_EQ(files_in(dir.path()), std::vector<fs::path>{"src.gguf"}) << "a partial file was left";
    }
  }
}

// Scales are stored in 16 bits: a value far beyond them is refused, or saturates and shows as a loss; never
// NaN.
TEST(Quantize, ValuesBeyondEveryScaleNeverBecomeNan) {
  const TempDir dir;
  const std::string name = "blk.0.ffn_up.weight";
  TinyGguf huge;
  huge.n_layer = 1;
  huge.edit = [&](const std::string& n, std::vector<float>& v) {
    if (n == name) v[0] = 1e30f;
  };
  ASSERT_OK(testing::write_tiny_gguf(dir / "src.gguf", huge));
  for (const Mix& mix : all_mixes()) {
    if (format_info(mix.base).kind != FormatKind::kQuantized || !mix.alias_of.empty()) continue;
    const auto r =
        run_quantize(options(dir / "src.gguf", dir / "out.gguf", std::string(mix.name)), null_progress());
    if (!r.ok()) {
      EXPECT_EQ(r.error().code, ErrorCode::kNumeric) << mix.name;
      EXPECT_NE(r.error().message.find(name), std::string::npos) << r.error().message;
      continue;
    }
    ASSERT_OK_AND_ASSIGN(const auto reader, io::gguf::Reader::open(dir / "out.gguf"));
    const auto* t = reader.find(name);
    ASSERT_NE(t, nullptr);
    std::vector<float> values(static_cast<std::size_t>(t->info.shape.elements()));
    ASSERT_OK(decode_row(t->info.format, reader.view(*t).data, values.data(), t->info.shape.elements()));
    EXPECT_EQ(find_non_finite(values.data(), static_cast<std::int64_t>(values.size())), -1) << mix.name;
    for (const TensorLoss& l : r->losses) {
      if (l.name == name && std::fabs(values[0] - 1e30f) > 5e29f) {
        EXPECT_GT(l.relative_rms, 0.4) << mix.name;
      }
    }
  }
}

// Cancels after a number of updates.
class Impatient : public ProgressSink {
 public:
  explicit Impatient(int patience) : patience_(patience) {}
  void begin(std::string_view, std::uint64_t, std::string_view) override {}
  void update(std::uint64_t, std::string_view) override { ++updates_; }
  void end() override {}
  void note(std::string_view line) override { notes.emplace_back(line); }
  bool cancelled() const override { return updates_ >= patience_; }
  std::vector<std::string> notes;

 private:
  int patience_, updates_ = 0;
};

TEST(Quantize, CancelLeavesNoFileOrOneToGoOnWith) {
  const TempDir dir;
  ASSERT_OK(testing::write_tiny_gguf(dir / "src.gguf"));
  QuantizeOptions o = options(dir / "src.gguf", dir / "out.gguf", "q8_0");
  ASSERT_OK_AND_ASSIGN(const QuantizeReport whole, run_quantize(o, null_progress()));
  const std::string expected = testing::read_file(o.output);
  fs::remove(o.output);
  Impatient at_once(0), later(5);
  auto r = run_quantize(o, at_once);
  ASSERT_FALSE(r.ok());
  EXPECT_EQ(r.error().code, ErrorCode::kCancelled);
  EXPECT_EQ(files_in(dir.path()), std::vector<fs::path>{"src.gguf"});
  r = run_quantize(o, later);
  ASSERT_FALSE(r.ok());
  EXPECT_EQ(r.error().code, ErrorCode::kCancelled);
  EXPECT_NE(r.error().message.find("5 of 21 tensors are finished"), std::string::npos) << r.error().message;
  EXPECT_NE(r.error().message.find("--resume"), std::string::npos) << r.error().message;
  o.resume = true;
  Impatient patient(1000);
  ASSERT_OK_AND_ASSIGN(const QuantizeReport resumed, run_quantize(o, patient));
  EXPECT_EQ(testing::read_file(o.output), expected);
  EXPECT_EQ(patient.notes.size(), 1u);
  EXPECT_EQ(files_in(dir.path()), (std::vector<fs::path>{"out.gguf", "src.gguf"}));
  // What the first run found out about its tensors is in the second one's report.
  ASSERT_EQ(resumed.losses.size(), whole.losses.size());
  for (std::size_t i = 0; i < whole.losses.size(); ++i) {
    EXPECT_EQ(resumed.losses[i].name, whole.losses[i].name);
    EXPECT_EQ(resumed.losses[i].relative_rms, whole.losses[i].relative_rms) << whole.losses[i].name;
  }
}

// Every option that changes bytes is in the recipe, files by what they hold; a plan of the same length is
// made without reading them.
TEST(Quantize, RecipesTellOptionsApart) {
  const TempDir dir;
  testing::write_file(dir / "a.txt", "one");
  testing::write_file(dir / "b.txt", "two");
  testing::write_file(dir / "same.txt", "one");
  const auto recipe = [](const QuantizeOptions& o, bool planning = false) {
    const auto r = quantize_recipe(o, o.type, planning);
    EXPECT_OK(r.status());
    return r.ok() ? *r : "";
  };
  QuantizeOptions base = options({}, {}, "q4_0");
  base.calibration.texts = {dir / "a.txt"};
  const std::vector<std::function<void(QuantizeOptions&)>> changes = {
      [](QuantizeOptions&) {},
      [](QuantizeOptions& o) { o.type = "q4_k_m"; },
      [](QuantizeOptions& o) { o.method = "gptq"; },
      [&](QuantizeOptions& o) { o.calibration.texts = {dir / "b.txt"}; },
      [&](QuantizeOptions& o) { o.calibration.texts.push_back(dir / "b.txt"); },
      [&](QuantizeOptions& o) { o.calibration.stats = dir / "b.txt"; },
      [](QuantizeOptions& o) { o.calibration.n_ctx = 256; },
      [](QuantizeOptions& o) { o.calibration.max_tokens = 5; },
      [](QuantizeOptions& o) { o.damping = 0.1; },
      [&](QuantizeOptions& o) { o.gradients = dir / "a.txt"; },
      [&](QuantizeOptions& o) { o.gradients = dir / "b.txt"; },
      [](QuantizeOptions& o) { o.sequential = false; },
      [](QuantizeOptions& o) { o.seed = 1; },
      [](QuantizeOptions& o) { o.target_bytes = 5; },
      [](QuantizeOptions& o) { o.target_bpw = 5; },
      [](QuantizeOptions& o) { o.target_kl = 5; },
      [](QuantizeOptions& o) { o.fit_context = 5; },
      [&](QuantizeOptions& o) { o.plan = dir / "a.txt"; },
      [](QuantizeOptions& o) { o.only = "ffn"; },
      [](QuantizeOptions& o) { o.pure = true; },
      [](QuantizeOptions& o) { o.search = false; },
      [](QuantizeOptions& o) {
        o.rules = {{"a", "q8_0"}};
      },
      [](QuantizeOptions& o) { o.embedding_type = "q8_0"; },
      [](QuantizeOptions& o) { o.output_type = "q8_0"; },
  };
  std::set<std::string> seen;
  for (const auto& change : changes) {
    QuantizeOptions o = base;
    change(o);
    EXPECT_TRUE(seen.insert(recipe(o)).second) << recipe(o);
    EXPECT_EQ(recipe(o).size(), recipe(o, true).size());
    EXPECT_EQ(recipe(o).find(dir.path().string()), std::string::npos);
  }
  QuantizeOptions renamed = base;
  renamed.calibration.texts = {dir / "same.txt"};
  EXPECT_EQ(recipe(renamed), recipe(base));
  renamed.calibration.texts = {dir / "none.txt"};
  EXPECT_EQ(quantize_recipe(renamed, "q4_0", false).status().error().code, ErrorCode::kNotFound);
}

TEST(Quantize, ExistingOutputIsReplacedOnlyWhenAllowed) {
  const TempDir dir;
  ASSERT_OK(testing::write_tiny_gguf(dir / "src.gguf"));
  testing::write_file(dir / "out.gguf", "old");
  QuantizeOptions o = options(dir / "src.gguf", dir / "out.gguf", "q8_0");
  o.overwrite = false;
  EXPECT_EQ(run_quantize(o, null_progress()).status().error().code, ErrorCode::kRefused);
  EXPECT_EQ(testing::read_file(dir / "out.gguf"), "old");
  o.overwrite = true;
  EXPECT_OK(run_quantize(o, null_progress()).status());
}

TEST(Quantize, PlanAndRunAgree) {
  const TempDir dir;
  ASSERT_OK(testing::write_tiny_gguf(dir / "src.gguf"));
  const QuantizeOptions o = options(dir / "src.gguf", dir / "out.gguf", "q3_k_m");
  ASSERT_OK_AND_ASSIGN(const QuantizePlan plan, plan_quantize(o));
  EXPECT_EQ(files_in(dir.path()), std::vector<fs::path>{"src.gguf"}) << "planning writes nothing";
  EXPECT_GT(plan.free_disk_bytes, 0u);
  ASSERT_OK_AND_ASSIGN(const QuantizeReport r, run_quantize(o, null_progress()));
  EXPECT_EQ(r.plan.output_bytes, plan.output_bytes);
  EXPECT_EQ(fs::file_size(dir / "out.gguf"), plan.output_bytes);
  EXPECT_EQ(r.plan.bpw, plan.bpw);
}

}  // namespace
}  // namespace narrow::pipeline
