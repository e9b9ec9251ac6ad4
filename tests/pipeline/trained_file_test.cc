// A trained file is the file it started from, but for what was trained.
#include "pipeline/trained_file.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>

#include "io/gguf/reader.h"
#include "model/source.h"
#include "pipeline/tiny_gguf.h"
#include "testing/file_size_limit.h"
#include "testing/testing.h"

namespace narrow::pipeline {
namespace {

namespace fs = std::filesystem;
using testing::TempDir;

std::vector<std::byte> stored_bytes(const io::gguf::Reader& reader, const std::string& name) {
  const io::gguf::StoredTensor* t = reader.find(name);
  EXPECT_NE(t, nullptr) << name;
  if (t == nullptr) return {};
  const TensorView view = reader.view(*t);
  return {view.data, view.data + t->info.bytes()};
}

testing::TinyGguf quantized() {
  testing::TinyGguf tiny;
  tiny.format = Format::kQ4_0;
  return tiny;
}

// Other codes and norms than the file has, of the right size.
std::vector<TrainedTensor> changed(const io::gguf::Reader& reader) {
  std::vector<TrainedTensor> out;
  for (const char* name : {"blk.1.ffn_down.weight", "token_embd.weight", "blk.0.attn_norm.weight"}) {
    const TensorInfo& info = reader.find(name)->info;
    std::vector<float> values(static_cast<std::size_t>(info.shape.elements()));
    for (std::size_t i = 0; i < values.size(); ++i) {
      values[i] = 0.3f * std::sin(0.7f * static_cast<float>(i) + 1.0f);
    }
    TrainedTensor t{name, std::vector<std::byte>(info.bytes())};
    EXPECT_OK(encode_row(info.format, values.data(), t.bytes.data(), info.shape.elements()));
    EXPECT_NE(t.bytes, stored_bytes(reader, name));
    out.push_back(std::move(t));
  }
  return out;
}

TEST(TrainedFile, OnlyTheNamedTensorsChange) {
  const TempDir dir;
  const fs::path start = dir / "start.gguf", output = dir / "trained.gguf";
  ASSERT_OK(testing::write_tiny_gguf(start, quantized()));
  ASSERT_OK_AND_ASSIGN(const io::gguf::Reader before, io::gguf::Reader::open(start));
  const std::vector<TrainedTensor> trained = changed(before);
  ASSERT_OK(write_trained(start, output, trained, {{"command", "qat"}, {"steps", 3}}, null_progress()));

  ASSERT_OK_AND_ASSIGN(const io::gguf::Reader after, io::gguf::Reader::open(output));
  ASSERT_EQ(after.tensors().size(), before.tensors().size());
  std::size_t replaced = 0;
  for (std::size_t i = 0; i < before.tensors().size(); ++i) {
    const TensorInfo &a = before.tensors()[i].info, &b = after.tensors()[i].info;
    EXPECT_EQ(a.name, b.name);
    EXPECT_EQ(a.format, b.format) << a.name;
    EXPECT_EQ(a.shape, b.shape) << a.name;
    std::vector<std::byte> want = stored_bytes(before, a.name);
    for (const TrainedTensor& t : trained) {
      if (t.name != a.name) continue;
      want = t.bytes;
      ++replaced;
    }
    EXPECT_TRUE(stored_bytes(after, a.name) == want) << a.name;
  }
  EXPECT_EQ(replaced, trained.size());
  for (const auto& [key, value] : before.metadata().entries()) {
    EXPECT_TRUE(after.metadata().has(key)) << key;
  }
  EXPECT_EQ(after.metadata().get_string("narrow.source.name"), "start.gguf");
  ASSERT_OK_AND_ASSIGN(const auto source, model::ModelSource::open(start));
  ASSERT_OK_AND_ASSIGN(const std::string digest, source->digest());
  EXPECT_EQ("sha256:" + after.metadata().get_string("narrow.source.sha256").value_or(""), digest);
  EXPECT_EQ(after.metadata().get_string("narrow.recipe"), R"({"command":"qat","steps":3})");
  ASSERT_OK(model::ModelSource::open(output));
}

// Training what was trained keeps the whole history, and replaces an earlier output.
TEST(TrainedFile, TheStartsRecipeIsTheBase) {
  const TempDir dir;
  const fs::path start = dir / "start.gguf", one = dir / "one.gguf", two = dir / "two.gguf";
  ASSERT_OK(testing::write_tiny_gguf(start, quantized()));
  ASSERT_OK(write_trained(start, one, {}, {{"command", "qat"}}, null_progress()));
  testing::write_file(two, "an earlier file");
  ASSERT_OK(write_trained(one, two, {}, {{"command", "finetune"}}, null_progress()));
  ASSERT_OK_AND_ASSIGN(const io::gguf::Reader reader, io::gguf::Reader::open(two));
  const auto recipe = nlohmann::json::parse(*reader.metadata().get_string("narrow.recipe"));
  EXPECT_EQ(recipe["command"], "finetune");
  EXPECT_EQ(recipe["base"]["command"], "qat");
  EXPECT_EQ(recipe["base"]["narrow.source.name"], "start.gguf");
  EXPECT_EQ(reader.metadata().get_string("narrow.source.name"), "one.gguf");
}

TEST(TrainedFile, ASplitStartBecomesOneFile) {
  const TempDir dir;
  io::gguf::WriterOptions split;
  split.split_max_tensors = 5;
  ASSERT_OK(testing::write_tiny_gguf(dir / "start.gguf", quantized(), split));
  const fs::path part = dir / "start-00002-of-00005.gguf", output = dir / "trained.gguf";
  ASSERT_TRUE(fs::exists(part));
  ASSERT_OK_AND_ASSIGN(const io::gguf::Reader before, io::gguf::Reader::open(part));
  const std::vector<TrainedTensor> trained = changed(before);
  ASSERT_OK(write_trained(part, output, trained, nlohmann::json::object(), null_progress()));
  ASSERT_OK_AND_ASSIGN(const io::gguf::Reader after, io::gguf::Reader::open(output));
  EXPECT_EQ(after.parts().size(), 1u);
  EXPECT_TRUE(stored_bytes(after, trained[0].name) == trained[0].bytes);
  EXPECT_TRUE(stored_bytes(after, "blk.1.ffn_up.weight") == stored_bytes(before, "blk.1.ffn_up.weight"));
}

TEST(TrainedFile, Refusals) {
  const TempDir dir;
  const fs::path start = dir / "start.gguf", output = dir / "trained.gguf";
  ASSERT_OK(testing::write_tiny_gguf(start, quantized()));
  ASSERT_OK_AND_ASSIGN(const io::gguf::Reader reader, io::gguf::Reader::open(start));
  const std::vector<TrainedTensor> good = changed(reader);
  struct Case {
    std::function<void(std::vector<TrainedTensor>&)> change;
    fs::path output;
    const char* part;
  };
  const Case cases[] = {
      {[](auto& t) { t[0].name = "blk.7.ffn_down.weight"; }, output, "no tensor 'blk.7.ffn_down.weight'"},
      {[](auto& t) { t[0].bytes.pop_back(); }, output, "has 73728 bytes, the trained one has 73727"},
      {[](auto& t) { t.push_back(t[1]); }, output, "'token_embd.weight' was trained twice"},
      {[](auto& t) {
         const float nan = std::numeric_limits<float>::quiet_NaN();
         std::memcpy(t[2].bytes.data() + 12, &nan, 4);
       },
       output, "blk.0.attn_norm.weight"},
      {[](auto& t) { t[0].bytes[18 * 8 + 1] = std::byte{0x7c}; }, output, "blk.1.ffn_down.weight"},
      {[](auto&) {}, start, "same file"},
      {[](auto&) {}, dir / "x-00001-of-00002.gguf", "part of a split file"},
      {[](auto&) {}, dir / "none/x.gguf", "does not exist"},
  };
  for (const Case& c : cases) {
    std::vector<TrainedTensor> trained = good;
    c.change(trained);
    const Status s = write_trained(start, c.output, trained, nlohmann::json::object(), null_progress());
    ASSERT_FALSE(s.ok()) << c.part;
    EXPECT_NE(s.error().message.find(c.part), std::string::npos) << s.error().message;
  }
  EXPECT_FALSE(fs::exists(output));
  const Status s = write_trained(dir / "none.gguf", output, good, nlohmann::json::object(), null_progress());
  ASSERT_FALSE(s.ok());
  EXPECT_NE(s.error().message.find("none.gguf"), std::string::npos);
}

TEST(TrainedFile, AFullDiskLeavesNothing) {
  const TempDir dir;
  const fs::path start = dir / "start.gguf", output = dir / "trained.gguf";
  ASSERT_OK(testing::write_tiny_gguf(start, quantized()));
  testing::write_file(output, "an earlier file");
  {
    const testing::FileSizeLimit limit(100'000);
    const Status s = write_trained(start, output, {}, nlohmann::json::object(), null_progress());
    ASSERT_FALSE(s.ok());
    EXPECT_NE(s.error().message.find("trained.gguf"), std::string::npos) << s.error().message;
  }
  EXPECT_EQ(testing::read_file(output), "an earlier file");
  EXPECT_EQ(std::distance(fs::directory_iterator(dir.path()), fs::directory_iterator()), 2);
}

}  // namespace
}  // namespace narrow::pipeline
