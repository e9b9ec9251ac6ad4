#include "train/checkpoint.h"

#include <cmath>

#include "testing/file_size_limit.h"
#include "testing/testing.h"
#include "train/metrics.h"

namespace narrow::train {
namespace {

using Json = nlohmann::ordered_json;

const Json kRecipe = {{"lr", 1e-4}, {"type", "q4_0"}, {"seed", 3}};

std::vector<NamedTensor> tensors() {
  return {{"blk.0.attn_q.weight", at::arange(12, at::kFloat).reshape({3, 4})},
          {"half", at::arange(6, at::kFloat).to(at::kBFloat16).reshape({2, 3}).t()},  // not contiguous
          {"adamw.steps", at::arange(3, at::kLong)},
          {"scalar", at::scalar_tensor(2.5, at::kDouble)},
          {"flags", at::ones({5}, at::kBool)},
          {"none", at::empty({0, 4}, at::kFloat)}};
}

TEST(Checkpoint, ReadsBackWhatWasWritten) {
  const testing::TempDir dir;
  ASSERT_OK(write_checkpoint(dir / "c", kRecipe, {{"step", 12}, {"loss", 0.5}}, tensors()));
  ASSERT_OK_AND_ASSIGN(const Checkpoint c, read_checkpoint(dir / "c", kRecipe));
  EXPECT_EQ(c.recipe, kRecipe);
  EXPECT_EQ(c.state, (Json{{"step", 12}, {"loss", 0.5}}));
  EXPECT_EQ(c.tensors.size(), 6u);
  for (const NamedTensor& t : tensors()) {
    ASSERT_TRUE(c.tensors.contains(t.name)) << t.name;
    EXPECT_EQ(c.tensors.at(t.name).scalar_type(), t.tensor.scalar_type());
    EXPECT_TRUE(at::equal(c.tensors.at(t.name), t.tensor)) << t.name;
  }
  at::Tensor into = at::zeros({3, 4});
  ASSERT_OK(restore(c, "blk.0.attn_q.weight", into));
  EXPECT_TRUE(at::equal(into, tensors()[0].tensor));
}

void expect_error(const Status& s, ErrorCode code, const std::vector<std::string>& words) {
  ASSERT_FALSE(s.ok());
  EXPECT_EQ(s.error().code, code) << s.error().message;
  for (const auto& w : words) EXPECT_NE(s.error().message.find(w), std::string::npos) << s.error().message;
}

TEST(Checkpoint, RefusesAnotherRecipe) {
  const testing::TempDir dir;
  ASSERT_OK(write_checkpoint(dir / "c", kRecipe, {}, tensors()));
  Json other = kRecipe;
  other["lr"] = 2e-4;
  expect_error(read_checkpoint(dir / "c", other).status(), ErrorCode::kRefused, {"lr = 0.0001", "0.0002"});
  other = kRecipe;
  other.erase("seed");
  expect_error(read_checkpoint(dir / "c", other).status(), ErrorCode::kRefused, {"seed = 3", "unset"});
  EXPECT_OK(read_checkpoint(dir / "c", Json()));
  ASSERT_OK(write_checkpoint(dir / "s", "one", {}, {}));
  EXPECT_OK(read_checkpoint(dir / "s", "one"));
  expect_error(read_checkpoint(dir / "s", "two").status(), ErrorCode::kRefused, {"other options"});
}

TEST(Checkpoint, SaysWhatIsWrong) {
  const testing::TempDir dir;
  expect_error(read_checkpoint(dir / "absent", kRecipe).status(), ErrorCode::kNotFound, {"absent"});
  testing::write_file(dir / "text", "this is no checkpoint at all");
  expect_error(read_checkpoint(dir / "text", kRecipe).status(), ErrorCode::kCorrupt, {"text"});
  const std::string header = "{\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}";
  std::string file(8, '\0');
  file[0] = static_cast<char>(header.size());
  testing::write_file(dir / "other", file + header + "x");
  expect_error(read_checkpoint(dir / "other", kRecipe).status(), ErrorCode::kCorrupt,
               {"no training checkpoint"});
  ASSERT_OK(write_checkpoint(dir / "c", kRecipe, {}, tensors()));
  const std::string whole = testing::read_file(dir / "c");
  testing::write_file(dir / "cut", whole.substr(0, whole.size() - 5));
  expect_error(read_checkpoint(dir / "cut", kRecipe).status(), ErrorCode::kCorrupt, {"cut"});
  ASSERT_OK_AND_ASSIGN(const Checkpoint c, read_checkpoint(dir / "c", kRecipe));
  expect_error(restore(c, "nothing", at::zeros({1})), ErrorCode::kCorrupt, {"'nothing'"});
  expect_error(restore(c, "flags", at::zeros({4}, at::kBool)), ErrorCode::kCorrupt,
               {"'flags'", "[5]", "[4]"});
  expect_error(restore(c, "flags", at::zeros({5})), ErrorCode::kCorrupt, {"Bool", "Float"});
}

TEST(Checkpoint, FullDiskKeepsTheOldOne) {
  const testing::TempDir dir;
  ASSERT_OK(write_checkpoint(dir / "c", kRecipe, {{"step", 1}}, tensors()));
  {
    const testing::FileSizeLimit limit(100'000);
    const Status s = write_checkpoint(dir / "c", kRecipe, {{"step", 2}}, {{"big", at::zeros({100'000})}});
    expect_error(s, ErrorCode::kNoSpace, {});
  }
  ASSERT_OK_AND_ASSIGN(const Checkpoint c, read_checkpoint(dir / "c", kRecipe));
  EXPECT_EQ(c.state["step"], 1);
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(dir.path())) files += entry.exists() ? 1 : 0;
  EXPECT_EQ(files, 1) << "a temporary file was left";
}

TEST(Metrics, GoesOnFromTheResumedStep) {
  const testing::TempDir dir;
  const auto path = dir / "m.jsonl";
  const auto line = [](int step) { return Json{{"step", step}, {"loss", step * 0.5}}; };
  {
    ASSERT_OK_AND_ASSIGN(MetricsLog log, MetricsLog::open(path, 0));
    for (int i = 0; i <= 5; ++i) ASSERT_OK(log.append(line(i)));
    ASSERT_OK(log.append({{"step", 6}, {"loss", std::nan("")}}));
  }
  EXPECT_NE(testing::read_file(path).find("{\"step\":6,\"loss\":null}\n"), std::string::npos);
  testing::write_file(path, testing::read_file(path) + "{\"step\":7,\"lo");  // killed
  {
    ASSERT_OK_AND_ASSIGN(MetricsLog log, MetricsLog::open(path, 2));
    ASSERT_OK(log.append(line(3)));
  }
  EXPECT_EQ(testing::read_file(path),
            "{\"step\":0,\"loss\":0.0}\n{\"step\":1,\"loss\":0.5}\n{\"step\":2,\"loss\":1.0}\n{\"step\":3,"
            "\"loss\":1.5}\n");
  ASSERT_OK_AND_ASSIGN(MetricsLog anew, MetricsLog::open(path, 0));
  EXPECT_EQ(testing::read_file(path), "");
  ASSERT_OK_AND_ASSIGN(MetricsLog nowhere, MetricsLog::open({}, 0));
  EXPECT_OK(nowhere.append(line(1)));
}

TEST(Metrics, KeepsOtherPeoplesFiles) {
  const testing::TempDir dir;
  testing::write_file(dir / "notes.txt", "dear diary\n");
  expect_error(MetricsLog::open(dir / "notes.txt", 0).status(), ErrorCode::kRefused, {"notes.txt"});
  testing::write_file(dir / "one-line", "dear diary");
  expect_error(MetricsLog::open(dir / "one-line", 0).status(), ErrorCode::kRefused, {"one-line"});
  EXPECT_EQ(testing::read_file(dir / "notes.txt"), "dear diary\n");
  expect_error(MetricsLog::open(dir / "no-folder" / "m", 0).status(), ErrorCode::kIo, {"no-folder"});
}

}  // namespace
}  // namespace narrow::train
