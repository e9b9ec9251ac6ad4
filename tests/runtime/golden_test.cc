// The 15 architectures against logits and greedy tokens of transformers (fp32, eager attention).
#include <cmath>
#include <cstring>
#include <filesystem>

#include "base/thread_team.h"
#include "io/safetensors/reader.h"
#include "runtime/sampling/sampler.h"
#include "runtime/session.h"
#include "testing/testing.h"

namespace narrow::runtime {
namespace {

constexpr float kTolerance = 1e-3f;

struct Golden {
  std::vector<std::int32_t> input, greedy;
  std::vector<float> logits;  // [input, vocabulary]
};

std::vector<std::int32_t> read_ids(const io::safetensors::Reader& file, std::string_view name) {
  const io::safetensors::StoredTensor* t = file.find(name);
  EXPECT_TRUE(t != nullptr && t->info.format == Format::kI64) << name;
  std::vector<std::int64_t> wide(static_cast<std::size_t>(t->info.shape.elements()));
  std::memcpy(wide.data(), file.view(*t).data, wide.size() * sizeof(std::int64_t));
  return {wide.begin(), wide.end()};
}

Golden read_golden(const std::filesystem::path& folder) {
  Golden g;
  auto file = io::safetensors::Reader::open(folder / "golden.safetensors");
  EXPECT_OK(file);
  if (!file.ok()) return g;
  g.input = read_ids(*file, "input_ids");
  g.greedy = read_ids(*file, "greedy");
  const io::safetensors::StoredTensor* logits = file->find("logits");
  g.logits.resize(static_cast<std::size_t>(logits->info.shape.elements()));
  std::memcpy(g.logits.data(), file->view(*logits).data, g.logits.size() * sizeof(float));
  return g;
}

std::vector<std::string> model_names() {
  std::vector<std::string> names;
  std::error_code ec;
  for (const auto& e : std::filesystem::directory_iterator(testing::shared_data() / "tiny-models", ec)) {
    names.push_back(e.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  if (names.empty()) names.push_back("absent");
  return names;
}

float greatest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  float worst = 0.0f;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    const float d = std::abs(a[i] - b[i]);
    if (!(d <= worst)) worst = d;  // NaN sticks
  }
  return worst;
}

class GoldenTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    NARROW_REQUIRE_SHARED();
    set_thread_count(1);  // models this small only wait for each other's threads; one test compares counts
    const std::filesystem::path folder = testing::shared_data() / "tiny-models" / GetParam();
    golden_ = read_golden(folder);
    ASSERT_EQ(golden_.input.size(), 40u);
    ASSERT_EQ(golden_.greedy.size(), 16u);
    ASSERT_OK_AND_ASSIGN(auto source, model::ModelSource::open(folder));
    ASSERT_OK_AND_ASSIGN(model_, LoadedModel::load(source));
    ASSERT_EQ(golden_.logits.size(), 40u * static_cast<std::size_t>(model_->config().n_vocab));
  }
  void TearDown() override { set_thread_count(0); }
  std::unique_ptr<Session> session() {
    auto s = Session::create(model_);
    EXPECT_OK(s);
    return std::move(s).value();
  }

  Golden golden_;
  std::shared_ptr<const LoadedModel> model_;
};
INSTANTIATE_TEST_SUITE_P(TinyModels, GoldenTest, ::testing::ValuesIn(model_names()), [](const auto& param) {
  std::string name = param.param;
  for (char& c : name) c = c == '-' ? '_' : c;
  return name;
});

TEST_P(GoldenTest, LogitsAndGreedyTokens) {
  const auto s = session();
  std::vector<float> logits;
  ASSERT_OK(s->forward(golden_.input, LogitRows::kAll, logits));
  const float worst = greatest_difference(logits, golden_.logits);
  RecordProperty("greatest_difference", std::to_string(worst));
  EXPECT_LE(worst, kTolerance);

  SamplerOptions options;
  options.temperature = 0.0f;
  ASSERT_OK_AND_ASSIGN(Sampler greedy, Sampler::create(options));
  logits.erase(logits.begin(), logits.end() - model_->config().n_vocab);
  std::vector<std::int32_t> got;
  for (std::size_t i = 0; i < golden_.greedy.size(); ++i) {
    ASSERT_OK_AND_ASSIGN(const std::int32_t id, greedy.sample(logits, {}));
    got.push_back(id);
    ASSERT_OK(s->forward({&id, 1}, LogitRows::kLast, logits));
  }
  EXPECT_EQ(got, golden_.greedy);
}

TEST_P(GoldenTest, TokenByTokenAndInPiecesEqualAtOnce) {
  for (const std::size_t step : {1u, 7u, 33u}) {
    const auto s = session();
    std::vector<float> all, logits;
    const std::span<const std::int32_t> input(golden_.input);
    for (std::size_t i = 0; i < input.size(); i += step) {
      ASSERT_OK(s->forward(input.subspan(i, std::min(step, input.size() - i)), LogitRows::kAll, logits));
      all.insert(all.end(), logits.begin(), logits.end());
    }
    EXPECT_LE(greatest_difference(all, golden_.logits), kTolerance) << "pieces of " << step;
  }
}

TEST_P(GoldenTest, SameBitsForAnyNumberOfThreads) {
  std::vector<float> first;
  for (const int threads : {1, 2}) {
    set_thread_count(threads);
    const auto s = session();
    std::vector<float> logits, last;
    ASSERT_OK(s->forward(golden_.input, LogitRows::kAll, logits));
    ASSERT_OK(s->forward({golden_.greedy.data(), 1}, LogitRows::kLast, last));
    logits.insert(logits.end(), last.begin(), last.end());
    if (threads == 1) first = logits;
    ASSERT_EQ(first.size(), logits.size());
    EXPECT_EQ(std::memcmp(first.data(), logits.data(), logits.size() * sizeof(float)), 0) << threads;
  }
}

TEST_P(GoldenTest, TruncateForgets) {
  const auto s = session();
  std::vector<float> straight, again;
  ASSERT_OK(s->forward({golden_.input.data(), 30}, LogitRows::kLast, straight));
  ASSERT_OK(s->forward({golden_.greedy.data(), 9}, LogitRows::kNone, again));
  ASSERT_OK(s->truncate(20));
  EXPECT_EQ(s->position(), 20);
  ASSERT_OK(s->forward({golden_.input.data() + 20, 10}, LogitRows::kLast, again));
  EXPECT_LE(greatest_difference(straight, again), 1e-4f);
}

}  // namespace
}  // namespace narrow::runtime
