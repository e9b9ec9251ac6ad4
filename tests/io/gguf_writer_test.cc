#include <algorithm>

#include "base/digest.h"
#include "base/rng.h"
#include "base/thread_team.h"
#include "gguf_bytes.h"
#include "io/gguf/reader.h"
#include "io/gguf/writer.h"
#include "testing/file_size_limit.h"
#include "testing/testing.h"

namespace narrow::io::gguf {
namespace {
namespace fs = std::filesystem;

std::vector<std::string> names_in(const fs::path& dir) {
  std::vector<std::string> names;
  for (const auto& e : fs::directory_iterator(dir)) names.push_back(e.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<std::byte> random_bytes(std::size_t n, std::uint64_t seed) {
  Rng rng(seed);
  std::vector<std::byte> v(n);
  for (std::byte& b : v) b = static_cast<std::byte>(rng.next_u64() >> 56);
  return v;
}

Metadata every_kind_of_value() {
  Metadata m;
  m.set_string("general.architecture", "llama");
  m.set("s.u8", Value{std::uint8_t{255}});
  m.set("s.i8", Value{std::int8_t{-128}});
  m.set("s.u16", Value{std::uint16_t{65535}});
  m.set("s.i16", Value{std::int16_t{-32768}});
  m.set_u32("s.u32", 0xffffffffu);
  m.set_i32("s.i32", -7);
  m.set_f32("s.f32", 0.1f);
  m.set_bool("s.bool", true);
  m.set_string("s.string", "gr\xc3\xbc\xc3\x9f \n");
  m.set_u64("s.u64", ~std::uint64_t{0});
  m.set("s.i64", Value{std::int64_t{-1} << 62});
  m.set("s.f64", Value{1e-300});
  m.set_strings("a.string", {"", "a", "\xc3\xa9"});
  m.set_i32s("a.i32", {-1, 2, 3});
  m.set_f32s("a.f32", {0.5f, -1e30f});
  m.set_bools("a.bool", {true, false, true});
  m.set("a.u8", Value{Array{ValueType::kU8, std::vector<std::uint8_t>{1, 255}}});
  m.set("a.u64", Value{Array{ValueType::kU64, std::vector<std::uint64_t>{std::uint64_t{1} << 63}}});
  m.set("a.f64", Value{Array{ValueType::kF64, std::vector<double>{1.0 / 3}}});
  return m;
}

// One tensor of every format that GGUF has, three blocks a row.
std::vector<TensorInfo> every_format() {
  std::vector<TensorInfo> v;
  for (const FormatInfo& f : all_formats()) {
    if (f.in_gguf()) v.push_back({fmt::format("w.{}", f.name), f.format, Shape({2, 3 * f.block_size})});
  }
  v.push_back({"four.dims", Format::kF32, Shape({2, 3, 4, 5})});
  v.push_back({"one.element", Format::kF32, Shape({1})});
  return v;
}

std::vector<std::vector<std::byte>> data_for(const std::vector<TensorInfo>& tensors) {
  std::vector<std::vector<std::byte>> data;
  for (std::size_t i = 0; i < tensors.size(); ++i) data.push_back(random_bytes(tensors[i].bytes(), i));
  return data;
}

void write_all(Writer& w, const std::vector<std::vector<std::byte>>& data) {
  for (std::size_t i = data.size(); i-- > 0;) ASSERT_OK(w.write(i, 0, data[i]));
  ASSERT_OK(w.finish());
}

void expect_same(const Reader& r, const Metadata& m, const std::vector<TensorInfo>& tensors,
                 const std::vector<std::vector<std::byte>>& data) {
  EXPECT_EQ(describe(r.metadata()), describe(m));
  ASSERT_EQ(r.tensors().size(), tensors.size());
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const StoredTensor& t = r.tensors()[i];
    EXPECT_EQ(t.info.name, tensors[i].name);
    EXPECT_EQ(t.info.format, tensors[i].format);
    EXPECT_EQ(t.info.shape, tensors[i].shape);
    ASSERT_EQ(t.info.bytes(), data[i].size());
    EXPECT_EQ(std::memcmp(r.view(t).data, data[i].data(), data[i].size()), 0) << t.info.name;
  }
}

TEST(GgufWriter, ReadsBackAndHasThePlannedSize) {
  const Metadata m = every_kind_of_value();
  const auto tensors = every_format();
  const auto data = data_for(tensors);
  for (const std::uint32_t alignment : {8u, 32u, 4096u}) {
    testing::TempDir dir;
    WriterOptions options;
    options.alignment = alignment;
    ASSERT_OK_AND_ASSIGN(auto w, Writer::create(dir / "out.gguf", m, tensors, options));
    write_all(*w, data);
    EXPECT_EQ(names_in(dir.path()), std::vector<std::string>{"out.gguf"});
    EXPECT_EQ(fs::file_size(dir / "out.gguf"), w->file_bytes());
    EXPECT_EQ(planned_file_bytes(m, tensors, options), w->file_bytes());
    EXPECT_EQ(w->file_bytes() % alignment, 0u);
    ASSERT_OK_AND_ASSIGN(const Reader r, Reader::open(dir / "out.gguf"));
    Metadata want = m;
    if (alignment != 32) want.set_u32("general.alignment", alignment);
    expect_same(r, want, tensors, data);
    for (const StoredTensor& t : r.tensors()) EXPECT_EQ(t.offset % alignment, 0u);
  }
}

TEST(GgufWriter, TheGgufPackageReadsTheSame) {
  NARROW_REQUIRE_PYTHON();
  testing::TempDir dir;
  const Metadata m = every_kind_of_value();
  const auto tensors = every_format();
  const auto data = data_for(tensors);
  ASSERT_OK_AND_ASSIGN(auto w, Writer::create(dir / "out.gguf", m, tensors));
  write_all(*w, data);
  const std::string code = std::string(kDescribePython) + R"py(
r = gguf.GGUFReader(sys.argv[1])
for f in r.fields.values():
    if not f.name.startswith('GGUF.'): print(describe_field(f))
for t in r.tensors:
    print(t.name, t.tensor_type.name.lower(), [int(x) for x in t.shape], hashlib.sha256(t.data.tobytes()).hexdigest())
)py";
  std::string want = describe(m);
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    std::vector<std::int64_t> dims(tensors[i].shape.dims().rbegin(), tensors[i].shape.dims().rend());
    Sha256 digest;
    digest.update(data[i]);
    want += fmt::format("{} {} {} {}\n", tensors[i].name, format_info(tensors[i].format).name,
                        Shape(dims).text(), digest.hex());
  }
  EXPECT_EQ(testing::run_python(code, {(dir / "out.gguf").string()}), want);
}

TEST(GgufWriter, SplitsByCountAndBySize) {
  const Metadata m = every_kind_of_value();
  std::vector<TensorInfo> tensors;
  for (int i = 0; i < 7; ++i)
    tensors.push_back({fmt::format("t{}", i), Format::kF32, Shape({i == 3 ? 100 : 10})});
  const auto data = data_for(tensors);
  // 10 floats take 64 bytes with padding, 100 floats 416.
  const struct {
    std::uint64_t max_bytes;
    int max_tensors;
    std::vector<std::size_t> counts;
  } rows[] = {{0, 3, {3, 3, 1}},
              {0, 100, {7}},
              {130, 0, {2, 1, 1, 2, 1}},
              {1, 0, {1, 1, 1, 1, 1, 1, 1}},
              {130, 1, {1, 1, 1, 1, 1, 1, 1}}};
  for (const auto& row : rows) {
    testing::TempDir dir;
    WriterOptions options;
    options.split_max_bytes = row.max_bytes;
    options.split_max_tensors = row.max_tensors;
    ASSERT_OK_AND_ASSIGN(auto w, Writer::create(dir / "out.gguf", m, tensors, options));
    write_all(*w, data);
    ASSERT_EQ(w->paths().size(), row.counts.size());
    EXPECT_EQ(names_in(dir.path()).size(), row.counts.size());
    std::uint64_t bytes = 0;
    for (std::size_t p = 0; p < row.counts.size(); ++p) {
      EXPECT_EQ(w->paths()[p].filename(), fmt::format("out-{:05d}-of-{:05d}.gguf", p + 1, row.counts.size()));
      bytes += fs::file_size(w->paths()[p]);
    }
    EXPECT_EQ(bytes, w->file_bytes());
    EXPECT_EQ(planned_file_bytes(m, tensors, options), bytes);
    ASSERT_OK_AND_ASSIGN(const Reader r, Reader::open(w->paths().back()));
    EXPECT_EQ(r.parts().size(), row.counts.size());
    expect_same(r, m, tensors, data);
    std::vector<std::size_t> counts(row.counts.size());
    for (const StoredTensor& t : r.tensors()) ++counts[static_cast<std::size_t>(t.part)];
    EXPECT_EQ(counts, row.counts);
  }
}

TEST(GgufWriter, SplitKeysAreThoseOfLlamaCpp) {
  NARROW_REQUIRE_PYTHON();
  testing::TempDir dir;
  Metadata m;
  m.set_string("general.architecture", "llama");
  m.set_u32("general.alignment", 128);  // of the source file: the writer's own counts
  m.set_u32("split.count", 9);
  const std::vector<TensorInfo> tensors = {{"a", Format::kF32, Shape({4})}, {"b", Format::kF32, Shape({4})}};
  WriterOptions options;
  options.split_max_tensors = 1;
  ASSERT_OK_AND_ASSIGN(auto w, Writer::create(dir / "out.gguf", m, tensors, options));
  write_all(*w, data_for(tensors));
  const std::string code = std::string(kDescribePython) + R"py(
for p in sys.argv[1:]:
    for f in gguf.GGUFReader(p).fields.values():
        if not f.name.startswith('GGUF.'): print(describe_field(f))
)py";
  EXPECT_EQ(testing::run_python(code, {w->paths()[0].string(), w->paths()[1].string()}),
            "general.architecture string '6c6c616d61'\nsplit.no u16 0\nsplit.count u16 "
            "2\nsplit.tensors.count i32 2\n"
            "split.no u16 1\nsplit.count u16 2\nsplit.tensors.count i32 2\n");
}

TEST(GgufWriter, PiecesFromAnyThreadGiveTheSameFile) {
  testing::TempDir dir;
  const auto tensors = every_format();
  const auto data = data_for(tensors);
  std::string bytes[2];
  for (const int threads : {1, 4}) {
    set_thread_count(threads);
    const auto path = dir / fmt::format("{}.gguf", threads);
    ASSERT_OK_AND_ASSIGN(auto w, Writer::create(path, {}, tensors));
    constexpr std::int64_t kPieces = 16;
    std::vector<Status> results(tensors.size() * kPieces);
    parallel_for(static_cast<std::int64_t>(results.size()), [&](std::int64_t n, int) {
      const auto i = static_cast<std::size_t>(n / kPieces), piece = static_cast<std::size_t>(n % kPieces);
      const std::size_t begin = data[i].size() * piece / kPieces,
                        end = data[i].size() * (piece + 1) / kPieces;
      results[static_cast<std::size_t>(n)] =
          w->write(i, begin, std::span(data[i]).subspan(begin, end - begin));
    });
    for (const Status& s : results) ASSERT_OK(s);
    ASSERT_OK(w->finish());
    bytes[threads == 1 ? 0 : 1] = testing::read_file(path);
  }
  set_thread_count(0);
  EXPECT_EQ(bytes[0], bytes[1]);
}

TEST(GgufWriter, UnwrittenBytesAreAnErrorAndLeaveNothing) {
  testing::TempDir dir;
  const std::vector<TensorInfo> tensors = {{"a", Format::kF32, Shape({4})}, {"b", Format::kF32, Shape({4})}};
  const auto data = data_for(tensors);
  const struct {
    std::size_t begin, size;
    const char* message;
  } rows[] = {{0, 0, "only 0 of 16"}, {0, 12, "only 12 of 16"}, {4, 12, "only 12 of 16"}};
  for (const auto& row : rows) {
    ASSERT_OK_AND_ASSIGN(auto w, Writer::create(dir / "out.gguf", {}, tensors));
    ASSERT_OK(w->write(0, 0, data[0]));
    ASSERT_OK(w->write(1, row.begin, std::span(data[1]).subspan(row.begin, row.size)));
    const Status s = w->finish();
    ASSERT_FALSE(s.ok());
    EXPECT_EQ(s.error().code, ErrorCode::kInternal);
    EXPECT_NE(s.error().message.find(row.message), std::string::npos) << s.error().message;
    EXPECT_NE(s.error().message.find("tensor 'b'"), std::string::npos) << s.error().message;
    EXPECT_TRUE(names_in(dir.path()).empty());
  }
  {
    // Pieces in any order, also twice, cover the tensor.
    ASSERT_OK_AND_ASSIGN(auto w, Writer::create(dir / "out.gguf", {}, tensors));
    ASSERT_OK(w->write(0, 0, data[0]));
    for (const std::size_t at : {8u, 0u, 4u, 0u})
      ASSERT_OK(w->write(1, at, std::span(data[1]).subspan(at, 8)));
    ASSERT_OK(w->finish());
    EXPECT_FALSE(w->finish().ok());
  }
  fs::remove(dir / "out.gguf");
  {
    ASSERT_OK_AND_ASSIGN(auto w, Writer::create(dir / "out.gguf", {}, tensors));
    EXPECT_EQ(w->write(0, 8, data[0]).error().code, ErrorCode::kInternal);
    EXPECT_EQ(w->write(2, 0, data[0]).error().code, ErrorCode::kInternal);
    EXPECT_FALSE(w->finish().ok());
  }
  {
    ASSERT_OK_AND_ASSIGN(auto w, Writer::create(dir / "out.gguf", {}, tensors));  // abandoned
  }
  EXPECT_TRUE(names_in(dir.path()).empty());
}

TEST(GgufWriter, RefusesWhatGgufCannotHold) {
  testing::TempDir dir;
  Metadata good, empty_key, wrong_array;
  empty_key.set_u32("", 1);
  wrong_array.set("k", Value{Array{ValueType::kU32, std::vector<float>{1}}});
  WriterOptions plain, odd;
  odd.alignment = 48;
  const TensorInfo t = {"w", Format::kF32, Shape({4})};
  const struct {
    const Metadata& metadata;
    std::vector<TensorInfo> tensors;
    const WriterOptions& options;
    ErrorCode code;
    const char* message;
  } rows[] = {
      {good, {t, t}, plain, ErrorCode::kInvalidArgument, "tensor 'w' is there twice"},
      {good, {{"", Format::kF32, Shape({4})}}, plain, ErrorCode::kInvalidArgument, "name of 0 bytes"},
      {good,
       {{std::string(64, 'x'), Format::kF32, Shape({4})}},
       plain,
       ErrorCode::kInvalidArgument,
       "names of 1 to 63"},
      {good, {{"w", Format::kU8, Shape({4})}}, plain, ErrorCode::kUnsupported, "GGUF has no type for u8"},
      {good, {{"w", Format::kF32, Shape({1, 1, 1, 1, 1})}}, plain, ErrorCode::kUnsupported, "5 dimensions"},
      {good, {{"w", Format::kF32, Shape({4, 0})}}, plain, ErrorCode::kUnsupported, "is empty"},
      {good,
       {{"w", Format::kF32, Shape({-4})}},
       plain,
       ErrorCode::kInvalidArgument,
       "shape [-4] is negative or over"},
      {good,
       {{"w", Format::kF32, Shape({std::int64_t{1} << 40, std::int64_t{1} << 40})}},
       plain,
       ErrorCode::kInvalidArgument,
       "negative or over"},
      {good,
       {{"w", Format::kQ8_0, Shape({48})}},
       plain,
       ErrorCode::kInvalidArgument,
       "not a multiple of q8_0's block"},
      {empty_key, {t}, plain, ErrorCode::kInvalidArgument, "metadata key '' has 0 bytes"},
      {wrong_array, {t}, plain, ErrorCode::kInternal, "an array of f32 is marked as one of u32"},
      {good, {t}, odd, ErrorCode::kInvalidArgument, "alignment 48 is not a power of two"},
      {good,
       {{"w", Format::kF32, Shape({std::int64_t{1} << 42})}},
       plain,
       ErrorCode::kNoSpace,
       "bytes are needed, but"},
  };
  for (const auto& row : rows) {
    const auto w = Writer::create(dir / "out.gguf", row.metadata, row.tensors, row.options);
    ASSERT_FALSE(w.ok()) << row.message;
    EXPECT_EQ(w.error().code, row.code) << w.error().message;
    EXPECT_NE(w.error().message.find(row.message), std::string::npos) << w.error().message;
    if (row.code != ErrorCode::kNoSpace) {
      EXPECT_EQ(planned_file_bytes(row.metadata, row.tensors, row.options), 0u);
    }
  }
  EXPECT_TRUE(names_in(dir.path()).empty());
  EXPECT_EQ(Writer::create(dir / "no" / "out.gguf", good, {t}).error().code, ErrorCode::kIo);
  EXPECT_EQ(Writer::create(dir.path(), good, {t}).error().code, ErrorCode::kInvalidArgument);
}

TEST(GgufWriter, OnePartThatCannotTakeItsNameRemovesTheOthers) {
  testing::TempDir dir;
  const std::vector<TensorInfo> tensors = {{"a", Format::kF32, Shape({4})}, {"b", Format::kF32, Shape({4})}};
  WriterOptions options;
  options.split_max_tensors = 1;
  ASSERT_OK_AND_ASSIGN(auto w, Writer::create(dir / "out.gguf", {}, tensors, options));
  fs::create_directory(w->paths()[1]);  // in the way
  const auto data = data_for(tensors);
  ASSERT_OK(w->write(0, 0, data[0]));
  ASSERT_OK(w->write(1, 0, data[1]));
  const Status s = w->finish();
  ASSERT_FALSE(s.ok());
  EXPECT_NE(s.error().message.find("out-00002-of-00002.gguf"), std::string::npos) << s.error().message;
  EXPECT_EQ(names_in(dir.path()), std::vector<std::string>{"out-00002-of-00002.gguf"});
}

TEST(GgufWriter, FullDiskIsOneClearErrorAndNoPartialFile) {
  testing::TempDir dir;
  const std::vector<TensorInfo> tensors = {{"a", Format::kF32, Shape({1000})},
                                           {"b", Format::kF32, Shape({100000})}};
  const auto data = data_for(tensors);
  // Full before the first byte of data, and full while data is written.
  std::vector<Error> errors;
  {
    const testing::FileSizeLimit limit(4096);
    const auto w = Writer::create(dir / "out.gguf", {}, tensors);
    if (!w.ok()) errors.push_back(w.error());
  }
  {
    ASSERT_OK_AND_ASSIGN(auto w, Writer::create(dir / "out.gguf", {}, tensors));
    const testing::FileSizeLimit limit(64 * 1024);
    const Status first = w->write(0, 0, data[0]);
    const Status second = w->write(1, 0, data[1]);
    const Status end = w->finish();
    if (first.ok() && !second.ok()) errors.push_back(second.error());
    if (!end.ok()) errors.push_back(end.error());
  }
  ASSERT_EQ(errors.size(), 3u);
  for (const Error& e : errors) {
    EXPECT_EQ(e.code, ErrorCode::kNoSpace) << e.message;
    EXPECT_TRUE(e.message.starts_with((dir / "out.gguf").string())) << e.message;
  }
  EXPECT_TRUE(names_in(dir.path()).empty());
}

}  // namespace
}  // namespace narrow::io::gguf
