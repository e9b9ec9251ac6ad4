#include <algorithm>
#include <cstring>

#include "base/rng.h"
#include "gguf_bytes.h"
#include "io/hf_config/hf_folder.h"
#include "io/safetensors/reader.h"
#include "io/safetensors/writer.h"
#include "testing/testing.h"

namespace narrow::io::safetensors {
namespace {
namespace fs = std::filesystem;

std::vector<std::string> names_in(const fs::path& dir) {
  std::vector<std::string> names;
  for (const auto& e : fs::directory_iterator(dir)) names.push_back(e.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<TensorInfo> some_tensors() {
  return {{"b.u8", Format::kU8, Shape({3})},
          {"a.f32", Format::kF32, Shape({2, 3})},
          {"c.bf16", Format::kBF16, Shape({5})},
          {"d.f16", Format::kF16, Shape({1, 2, 1, 2, 1})},
          {"e.i64", Format::kI64, Shape(std::vector<std::int64_t>{})},
          {"f.empty", Format::kF32, Shape({2, 0})},
          {"g \"\xc3\xa9\"", Format::kF8_E4M3, Shape({7})}};
}

std::vector<std::vector<std::byte>> data_for(const std::vector<TensorInfo>& tensors) {
  Rng rng(3);
  std::vector<std::vector<std::byte>> data;
  for (const TensorInfo& t : tensors) {
    data.emplace_back(t.bytes());
    // Small bytes: finite floats whatever the format.
    for (std::byte& b : data.back()) b = static_cast<std::byte>(rng.next_u64() % 0x3c);
  }
  return data;
}

void write_all(Writer& w, const std::vector<std::vector<std::byte>>& data) {
  for (std::size_t i = data.size(); i-- > 0;) ASSERT_OK(w.write(i, 0, data[i]));
  ASSERT_OK(w.finish());
}

void expect_same(const Reader& r, const std::vector<TensorInfo>& tensors,
                 const std::vector<std::vector<std::byte>>& data) {
  ASSERT_EQ(r.tensors().size(), tensors.size());
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const StoredTensor* t = r.find(tensors[i].name);
    ASSERT_NE(t, nullptr) << tensors[i].name;
    EXPECT_EQ(t->info.format, tensors[i].format);
    EXPECT_EQ(t->info.shape, tensors[i].shape);
    if (data[i].empty()) continue;
    EXPECT_EQ(std::memcmp(r.view(*t).data, data[i].data(), data[i].size()), 0) << tensors[i].name;
    EXPECT_EQ(t->offset % static_cast<std::uint64_t>(format_info(t->info.format).block_bytes), 0u);
  }
}

TEST(SafetensorsWriter, SingleFileReadsBack) {
  testing::TempDir dir;
  const auto tensors = some_tensors();
  const auto data = data_for(tensors);
  ASSERT_OK_AND_ASSIGN(auto w, Writer::create(dir.path(), tensors));
  write_all(*w, data);
  EXPECT_EQ(names_in(dir.path()), std::vector<std::string>{"model.safetensors"});
  ASSERT_OK_AND_ASSIGN(const Reader r, Reader::open_folder(dir.path()));
  expect_same(r, tensors, data);
  EXPECT_EQ(r.metadata(), (std::map<std::string, std::string>{{"format", "pt"}}));
}

TEST(SafetensorsWriter, ShardsWithIndex) {
  testing::TempDir dir;
  const auto tensors = some_tensors();
  const auto data = data_for(tensors);
  WriterOptions options;
  options.shard_max_bytes = 30;
  ASSERT_OK_AND_ASSIGN(auto w, Writer::create(dir.path(), tensors, options));
  write_all(*w, data);
  EXPECT_EQ(names_in(dir.path()),
            (std::vector<std::string>{"model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors",
                                      "model-00003-of-00003.safetensors", "model.safetensors.index.json"}));
  ASSERT_OK_AND_ASSIGN(const Reader r, Reader::open_folder(dir.path()));
  EXPECT_EQ(r.parts().size(), 3u);
  expect_same(r, tensors, data);
  ASSERT_OK_AND_ASSIGN(const Json index, read_json(dir / "model.safetensors.index.json"));
  std::size_t total = 0;
  for (const auto& d : data) total += d.size();
  EXPECT_EQ(index["metadata"]["total_size"], total);
  EXPECT_EQ(index["weight_map"].size(), tensors.size());
  EXPECT_EQ(index["weight_map"]["b.u8"], "model-00001-of-00003.safetensors");
}

TEST(SafetensorsWriter, TheSafetensorsPackageReadsTheSame) {
  NARROW_REQUIRE_PYTHON();
  testing::TempDir dir;
  std::vector<TensorInfo> tensors;
  for (const TensorInfo& t : some_tensors()) {
    // numpy has neither bf16 nor f8.
    if (t.format != Format::kBF16 && t.format != Format::kF8_E4M3) tensors.push_back(t);
  }
  const auto data = data_for(tensors);
  WriterOptions options;
  options.metadata = {{"note", "a \"b\"\n"}};
  ASSERT_OK_AND_ASSIGN(auto w, Writer::create(dir.path(), tensors, options));
  write_all(*w, data);
  std::string want = "{'note': 'a \"b\"\\n'}\n";
  std::vector<std::string> lines;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    lines.push_back(fmt::format("{} {} {}\n", tensors[i].name, tensors[i].shape.text(),
                                gguf::hex({reinterpret_cast<const char*>(data[i].data()), data[i].size()})));
  }
  std::sort(lines.begin(), lines.end());
  for (const std::string& line : lines) want += line;
  const std::string got = testing::run_python(R"py(
import sys
from safetensors import safe_open
with safe_open(sys.argv[1], 'np') as f:
    print(f.metadata())
    for n in sorted(f.keys()):
        a = f.get_tensor(n)
        print(n, list(a.shape), a.tobytes().hex())
)py",
                                              {(dir / "model.safetensors").string()});
  EXPECT_EQ(got, want);
}

TEST(SafetensorsWriter, RefusesWhatSafetensorsCannotHold) {
  testing::TempDir dir;
  const TensorInfo t = {"w", Format::kF32, Shape({4})};
  const struct {
    std::vector<TensorInfo> tensors;
    ErrorCode code;
    const char* message;
  } rows[] = {
      {{t, t}, ErrorCode::kInvalidArgument, "tensor 'w' is there twice"},
      {{{"", Format::kF32, Shape({4})}}, ErrorCode::kInvalidArgument, "cannot hold that name"},
      {{{"__metadata__", Format::kF32, Shape({4})}}, ErrorCode::kInvalidArgument, "cannot hold that name"},
      {{{"\xff", Format::kF32, Shape({4})}}, ErrorCode::kInvalidArgument, "tensor '\\xff'"},
      {{{"w", Format::kQ8_0, Shape({32})}}, ErrorCode::kUnsupported, "safetensors has no dtype for q8_0"},
      {{{"w", Format::kF32, Shape({-1})}}, ErrorCode::kInvalidArgument, "negative or over"},
      {{{"w", Format::kF32, Shape({std::int64_t{1} << 42})}}, ErrorCode::kNoSpace, "bytes are needed, but"},
  };
  for (const auto& row : rows) {
    const auto w = Writer::create(dir.path(), row.tensors);
    ASSERT_FALSE(w.ok()) << row.message;
    EXPECT_EQ(w.error().code, row.code) << w.error().message;
    EXPECT_NE(w.error().message.find(row.message), std::string::npos) << w.error().message;
    EXPECT_NE(w.error().message.find(dir.path().string()), std::string::npos) << w.error().message;
  }
  EXPECT_TRUE(names_in(dir.path()).empty());
  EXPECT_EQ(Writer::create(dir / "none", {t}).error().code, ErrorCode::kNotFound);

  // A single file left from before would hide the shards from every reader.
  testing::write_file(dir / "model.safetensors", "old");
  WriterOptions options;
  options.shard_max_bytes = 16;
  EXPECT_EQ(Writer::create(dir.path(), {t, {"v", Format::kF32, Shape({4})}}, options).error().code,
            ErrorCode::kRefused);
}

TEST(SafetensorsWriter, UnwrittenTensorLeavesNothing) {
  testing::TempDir dir;
  WriterOptions options;
  options.shard_max_bytes = 30;
  const auto tensors = some_tensors();
  const auto data = data_for(tensors);
  ASSERT_OK_AND_ASSIGN(auto w, Writer::create(dir.path(), tensors, options));
  for (std::size_t i = 0; i + 1 < data.size(); ++i) ASSERT_OK(w->write(i, 0, data[i]));
  const Status s = w->finish();
  ASSERT_FALSE(s.ok());
  EXPECT_NE(s.error().message.find("only 0 of 7 bytes"), std::string::npos) << s.error().message;
  EXPECT_TRUE(names_in(dir.path()).empty());
}

}  // namespace
}  // namespace narrow::io::safetensors
