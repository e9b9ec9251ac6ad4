#include "gguf_bytes.h"
#include "io/caps.h"
#include "io/gguf/reader.h"
#include "testing/testing.h"

namespace narrow::io::gguf {
namespace {

constexpr std::uint32_t kF32Id = 0, kQ8_0Id = 8;

Result<Reader> open_bytes(const testing::TempDir& dir, const std::string& bytes) {
  testing::write_file(dir / "m.gguf", bytes);
  return Reader::open(dir / "m.gguf");
}

TEST(GgufReader, ReadsVersions2And3) {
  for (const std::uint32_t version : {2u, 3u}) {
    testing::TempDir dir;
    Bytes b;
    b.preamble(2, 1, version).key("general.name", ValueType::kString).str("tiny");
    b.tensor("a", {4, 2}, kF32Id, 0).tensor("b", {32}, kQ8_0Id, 32).pad();
    for (int i = 0; i < 8; ++i) b.put(static_cast<float>(i));
    b.zeros(34);
    ASSERT_OK_AND_ASSIGN(const Reader r, open_bytes(dir, b.text()));
    EXPECT_EQ(r.version(), version);
    EXPECT_EQ(r.metadata().get_string("general.name"), "tiny");
    ASSERT_EQ(r.tensors().size(), 2u);
    const StoredTensor* a = r.find("a");
    ASSERT_NE(a, nullptr);
    EXPECT_EQ(a->info.shape, Shape({2, 4}));
    float x = 0;
    std::memcpy(&x, r.view(*a).row(1), sizeof x);
    EXPECT_EQ(x, 4.0f);
    EXPECT_EQ(r.find("b")->info.format, Format::kQ8_0);
    EXPECT_EQ(r.find("c"), nullptr);
    EXPECT_EQ(r.file_bytes(), b.text().size());
    r.drop(*a);
    EXPECT_TRUE(Reader::is_gguf(dir / "m.gguf"));
  }
}

TEST(GgufReader, IsGgufOnlyForTheMagic) {
  testing::TempDir dir;
  testing::write_file(dir / "short", "GGU");
  testing::write_file(dir / "other", "{\"a\":1}");
  EXPECT_FALSE(Reader::is_gguf(dir / "short"));
  EXPECT_FALSE(Reader::is_gguf(dir / "other"));
  EXPECT_FALSE(Reader::is_gguf(dir / "missing"));
  EXPECT_FALSE(Reader::is_gguf(dir.path()));
}

TEST(GgufReader, AlignmentFromMetadata) {
  testing::TempDir dir;
  Bytes b;
  b.preamble(2, 1).key("general.alignment", ValueType::kU32).u32(64);
  b.tensor("a", {1}, kF32Id, 0).tensor("b", {1}, kF32Id, 64).pad(64).zeros(64).put(2.0f);
  ASSERT_OK_AND_ASSIGN(const Reader r, open_bytes(dir, b.text()));
  EXPECT_EQ(r.find("b")->offset % 64, 0u);
  float x = 0;
  std::memcpy(&x, r.view(*r.find("b")).data, sizeof x);
  EXPECT_EQ(x, 2.0f);
}

TEST(GgufReader, NestedArrays) {
  testing::TempDir dir;
  Bytes b;
  b.preamble(0, 1).key("k", ValueType::kArray).u32(9).u64(2);
  b.u32(4).u64(2).u32(7).u32(8);
  b.u32(8).u64(1).str("x");
  ASSERT_OK_AND_ASSIGN(const Reader r, open_bytes(dir, b.text()));
  EXPECT_EQ(describe(r.metadata()), "k array [array [u32 7 8] [string '78']]\n");
}

struct Bad {
  const char* what;
  Bytes bytes;
  ErrorCode code;
  const char* message;  // a part of it
};

std::vector<Bad> bad_files() {
  const auto tensor = [](std::initializer_list<std::uint64_t> dims, std::uint32_t type,
                         std::uint64_t offset) {
    return Bytes().preamble(1, 0).tensor("w", dims, type, offset).pad().zeros(256);
  };
  const auto alignment = [](std::uint32_t a) {
    return Bytes().preamble(0, 1).key("general.alignment", ValueType::kU32).u32(a);
  };
  const auto key = [](ValueType type) { return Bytes().preamble(0, 1).key("k", type); };
  Bytes nested = key(ValueType::kArray);
  for (int i = 0; i < 5; ++i) nested.u32(9).u64(1);
  nested.u32(4).u64(0).zeros(64);
  return {
      {"empty", Bytes(), ErrorCode::kCorrupt, "the magic needs 4 bytes at offset 0"},
      {"magic", Bytes().raw("GGML").zeros(64), ErrorCode::kCorrupt, "not a GGUF file"},
      {"version 1", Bytes().preamble(0, 0, 1), ErrorCode::kUnsupported, "GGUF version 1"},
      {"version 4", Bytes().preamble(0, 0, 4), ErrorCode::kUnsupported, "GGUF version 4"},
      {"big endian", Bytes().preamble(0, 0, 0x03000000), ErrorCode::kUnsupported, "big-endian"},
      {"tensor count over the limit", Bytes().preamble(~0ull, 0), ErrorCode::kCorrupt,
       "the limit is 1048576"},
      {"tensor count over the file", Bytes().preamble(1000, 0), ErrorCode::kCorrupt,
       "declares 1000 tensors, more"},
      {"key count over the limit", Bytes().preamble(0, 1ull << 32), ErrorCode::kCorrupt,
       "the limit is 65536"},
      {"key count over the file", Bytes().preamble(0, 60000), ErrorCode::kCorrupt,
       "declares 60000 metadata keys, more"},
      {"key length", Bytes().preamble(0, 1).u64(1ull << 60).zeros(64), ErrorCode::kCorrupt,
       "metadata key 0 needs 11529"},
      {"key too long", Bytes().preamble(0, 1).u64(70000).zeros(80000), ErrorCode::kCorrupt,
       "70000 bytes; the limit"},
      {"empty key", Bytes().preamble(0, 1).str("").zeros(64), ErrorCode::kCorrupt, "has no name"},
      {"duplicate key",
       Bytes().preamble(0, 2).key("k", ValueType::kU8).put('a').key("k", ValueType::kU8).put('a'),
       ErrorCode::kCorrupt, "metadata key 'k' is there twice"},
      {"value type", Bytes().preamble(0, 1).str("k").u32(13).zeros(64), ErrorCode::kCorrupt,
       "metadata key 'k' has the unknown value type 13"},
      {"bool", key(ValueType::kBool).put('\2'), ErrorCode::kCorrupt, "a bool with the value 2"},
      {"string over the end", key(ValueType::kString).u64(100).raw("short"), ErrorCode::kCorrupt,
       "'k' needs 100 bytes"},
      {"array type", key(ValueType::kArray).u32(99).u64(0), ErrorCode::kCorrupt, "unknown value type 99"},
      {"array over the limit", key(ValueType::kArray).u32(0).u64(~0ull), ErrorCode::kCorrupt,
       "the limit is 67108864"},
      {"array over the end", key(ValueType::kArray).u32(10).u64(1000).zeros(64), ErrorCode::kCorrupt,
       "needs 8000 bytes"},
      {"strings over the end", key(ValueType::kArray).u32(8).u64(1000).zeros(64), ErrorCode::kCorrupt,
       "needs 8000"},
      {"bools over the end", key(ValueType::kArray).u32(7).u64(1000).zeros(64), ErrorCode::kCorrupt,
       "needs 1000"},
      {"arrays over the end", key(ValueType::kArray).u32(9).u64(1000).zeros(64), ErrorCode::kCorrupt,
       "needs 12000"},
      {"arrays too deep", nested, ErrorCode::kCorrupt, "nests arrays deeper than 4"},
      {"alignment 0", alignment(0), ErrorCode::kCorrupt,
       "'general.alignment' is 0; it must be a power of two"},
      {"alignment 48", alignment(48), ErrorCode::kCorrupt, "'general.alignment' is 48"},
      {"alignment 2^21", alignment(1u << 21), ErrorCode::kCorrupt, "'general.alignment' is 2097152"},
      {"alignment text", Bytes().preamble(0, 1).key("general.alignment", ValueType::kString).str("32"),
       ErrorCode::kCorrupt, "is not an integer"},
      {"empty tensor name", Bytes().preamble(1, 0).tensor("", {1}, 0, 0).zeros(64), ErrorCode::kCorrupt,
       "has no name"},
      {"long tensor name", Bytes().preamble(1, 0).tensor(std::string(2000, 'x'), {1}, 0, 0).zeros(64),
       ErrorCode::kCorrupt, "2000 bytes; the limit is 1024"},
      {"duplicate tensor",
       Bytes().preamble(2, 0).tensor("w", {1}, 0, 0).tensor("w", {1}, 0, 32).pad().zeros(64),
       ErrorCode::kCorrupt, "tensor 'w' is there twice"},
      {"no dimensions", tensor({}, kF32Id, 0), ErrorCode::kCorrupt, "tensor 'w' has 0 dimensions"},
      {"five dimensions", tensor({1, 1, 1, 1, 1}, kF32Id, 0), ErrorCode::kCorrupt,
       "tensor 'w' has 5 dimensions"},
      {"dimension of 0", tensor({4, 0}, kF32Id, 0), ErrorCode::kCorrupt, "a dimension of 0"},
      {"negative dimension", tensor({~0ull}, kF32Id, 0), ErrorCode::kCorrupt,
       "has more than 4398046511104 elements"},
      {"product overflow", tensor({1ull << 32, 1ull << 32}, kF32Id, 0), ErrorCode::kCorrupt, "has more than"},
      {"product wraps to 4", tensor({(1ull << 62) + 1, 4}, kF32Id, 0), ErrorCode::kCorrupt, "has more than"},
      {"unknown type", tensor({4}, 200, 0), ErrorCode::kUnsupported,
       "tensor 'w' has the unknown tensor type 200"},
      {"removed type", tensor({32}, 4, 0), ErrorCode::kUnsupported, "unknown tensor type 4"},
      {"private type", tensor({4}, kFirstPrivateId, 0), ErrorCode::kUnsupported, "unknown tensor type 1000"},
      {"half a block", tensor({48}, kQ8_0Id, 0), ErrorCode::kCorrupt,
       "rows of 48 elements, not a multiple of q8_0's"},
      {"misaligned", tensor({4}, kF32Id, 4), ErrorCode::kCorrupt,
       "offset 4, not a multiple of the alignment 32"},
      {"offset past the end", tensor({4}, kF32Id, 1ull << 40), ErrorCode::kCorrupt, "ends past the file's"},
      {"offset near 2^64", tensor({4}, kF32Id, ~0ull - 31), ErrorCode::kCorrupt, "ends past the file's"},
      {"size past the end", tensor({1u << 20}, kF32Id, 0), ErrorCode::kCorrupt,
       "the file is truncated: download it"},
      {"overlap", Bytes().preamble(2, 0).tensor("v", {16}, 0, 0).tensor("w", {16}, 0, 32).pad().zeros(256),
       ErrorCode::kCorrupt, "tensors 'v' and 'w' overlap at offset"},
      {"control bytes in a name", Bytes().preamble(1, 0).tensor("a\nb\x1b", {4}, 0, 4).pad().zeros(64),
       ErrorCode::kCorrupt, "tensor 'a\\x0ab\\x1b' has offset 4"},
  };
}

TEST(GgufReader, RefusesEachDefectWithOneLine) {
  testing::TempDir dir;
  for (const Bad& bad : bad_files()) {
    const auto r = open_bytes(dir, bad.bytes.text());
    ASSERT_FALSE(r.ok()) << bad.what;
    EXPECT_EQ(r.error().code, bad.code) << bad.what << ": " << r.error().message;
    EXPECT_NE(r.error().message.find(bad.message), std::string::npos)
        << bad.what << ": " << r.error().message;
    EXPECT_TRUE(r.error().message.starts_with((dir / "m.gguf").string())) << r.error().message;
    EXPECT_EQ(r.error().message.find('\n'), std::string::npos) << r.error().message;
  }
}

TEST(GgufReader, MissingFileAndFolder) {
  testing::TempDir dir;
  EXPECT_EQ(Reader::open(dir / "absent.gguf").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(Reader::open(dir.path()).error().code, ErrorCode::kInvalidArgument);
}

// Part `no` of `count`, holding one f32 tensor of one element.
std::string part(int no, int count, const char* tensor, int total, float value, const char* arch = nullptr) {
  Bytes b;
  b.preamble(1, arch ? 4 : 3).key("split.no", ValueType::kU16).put(static_cast<std::uint16_t>(no));
  b.key("split.count", ValueType::kU16).put(static_cast<std::uint16_t>(count));
  b.key("split.tensors.count", ValueType::kI32).put(static_cast<std::int32_t>(total));
  if (arch) b.key("general.architecture", ValueType::kString).str(arch);
  b.tensor(tensor, {1}, kF32Id, 0).pad().put(value);
  return b.text();
}

TEST(GgufReader, AnyPartOpensAllParts) {
  testing::TempDir dir;
  const char* names[] = {"m-00001-of-00003.gguf", "m-00002-of-00003.gguf", "m-00003-of-00003.gguf"};
  testing::write_file(dir / names[0], part(0, 3, "a", 3, 1, "llama"));
  testing::write_file(dir / names[1], part(1, 3, "b", 3, 2));
  testing::write_file(dir / names[2], part(2, 3, "c", 3, 3, "llama"));
  for (const char* name : names) {
    ASSERT_OK_AND_ASSIGN(const Reader r, Reader::open(dir / name));
    EXPECT_EQ(r.parts().size(), 3u);
    EXPECT_EQ(describe(r.metadata()), "general.architecture string '6c6c616d61'\n");
    ASSERT_EQ(r.tensors().size(), 3u);
    for (std::size_t i = 0; i < 3; ++i) {
      float x = 0;
      std::memcpy(&x, r.view(r.tensors()[i]).data, sizeof x);
      EXPECT_EQ(x, static_cast<float>(i + 1));
    }
  }
}

TEST(GgufReader, PartsThatDoNotFit) {
  const struct {
    const char* what;
    const char* name;
    std::string bytes;  // of the second part; empty: not there
    ErrorCode code;
    const char* message;
  } rows[] = {
      {"missing", "m-00002-of-00002.gguf", "", ErrorCode::kNotFound,
       "m-00002-of-00002.gguf: missing part 2 of 2 of a split model: download it"},
      {"wrong number", "m-00002-of-00002.gguf", part(0, 2, "b", 2, 2), ErrorCode::kCorrupt,
       "named part 2 of 2, but its metadata says part 1 of 2"},
      {"wrong count", "m-00002-of-00002.gguf", part(1, 3, "b", 2, 2), ErrorCode::kCorrupt,
       "says part 2 of 3"},
      {"no split keys", "m-00002-of-00002.gguf", Bytes().preamble(0, 0).text(), ErrorCode::kCorrupt,
       "'split.no' is missing"},
      {"other total", "m-00002-of-00002.gguf", part(1, 2, "b", 9, 2), ErrorCode::kCorrupt,
       "of different models"},
      {"other architecture", "m-00002-of-00002.gguf", part(1, 2, "b", 2, 2, "gpt2"), ErrorCode::kCorrupt,
       "architecture 'gpt2' is not that of"},
      {"same tensor", "m-00002-of-00002.gguf", part(1, 2, "a", 2, 2), ErrorCode::kCorrupt,
       "tensor 'a' is also in"},
      {"damaged", "m-00002-of-00002.gguf", "GGUF", ErrorCode::kCorrupt,
       "m-00002-of-00002.gguf: the version needs"},
  };
  for (const auto& row : rows) {
    testing::TempDir dir;
    testing::write_file(dir / "m-00001-of-00002.gguf", part(0, 2, "a", 2, 1, "llama"));
    if (!row.bytes.empty()) testing::write_file(dir / row.name, row.bytes);
    const auto r = Reader::open(dir / "m-00001-of-00002.gguf");
    ASSERT_FALSE(r.ok()) << row.what;
    EXPECT_EQ(r.error().code, row.code) << row.what;
    EXPECT_NE(r.error().message.find(row.message), std::string::npos)
        << row.what << ": " << r.error().message;
  }
  testing::TempDir dir;
  testing::write_file(dir / "renamed.gguf", part(0, 2, "a", 2, 1));
  EXPECT_NE(Reader::open(dir / "renamed.gguf").error().message.find("not named <name>-00001-of-00002.gguf"),
            std::string::npos);
  testing::write_file(dir / "m-00001-of-00002.gguf", part(0, 2, "a", 5, 1));
  testing::write_file(dir / "m-00002-of-00002.gguf", part(1, 2, "b", 5, 1));
  EXPECT_NE(
      Reader::open(dir / "m-00001-of-00002.gguf").error().message.find("is 5, but the parts hold 2 tensors"),
      std::string::npos);
}

// What the gguf package writes, all value types and arrays, is what we read.
TEST(GgufReader, ReadsWhatTheGgufPackageWrites) {
  NARROW_REQUIRE_PYTHON();
  testing::TempDir dir;
  const std::string code = std::string(kDescribePython) + R"py(
V = gguf.GGUFValueType
w = gguf.GGUFWriter(sys.argv[1], 'llama')
scalars = {V.UINT8: 255, V.INT8: -128, V.UINT16: 65535, V.INT16: -32768, V.UINT32: 2**32-1, V.INT32: -2**31,
           V.FLOAT32: 0.1, V.BOOL: True, V.STRING: 'gr\u00fc\u00df \U0001f600 \n', V.UINT64: 2**64-1, V.INT64: -2**63,
           V.FLOAT64: 1e-300}
lines = ["general.architecture string '" + b'llama'.hex() + "'"]
for t, x in scalars.items():
    w.add_key_value('s.' + t.name, x, t); lines.append(line('s.' + t.name, [t], x))
arrays = {V.UINT8: [1, 2, 255], V.INT8: [-1, 5], V.UINT16: [9], V.INT16: [-9, 9], V.UINT32: list(range(100)),
          V.INT32: [-3, 3], V.FLOAT32: [0.5, -1e30], V.BOOL: [True, False, True], V.STRING: ['', 'a', '\u00e9'],
          V.UINT64: [2**63], V.INT64: [-2**40], V.FLOAT64: [1/3]}
for t, x in arrays.items():
    w.add_key_value('a.' + t.name, x, V.ARRAY, sub_type=t); lines.append(line('a.' + t.name, [V.ARRAY, t], x))
rng = np.random.default_rng(1)
tensors = {'f32': rng.standard_normal((3, 5)).astype(np.float32), 'f16': rng.standard_normal((2, 3, 4)).astype(np.float16),
           'i32': np.arange(7, dtype=np.int32), 'i64': np.arange(4, dtype=np.int64), 'f64': rng.standard_normal(3),
           'i8': np.arange(9, dtype=np.int8), 'i16': np.arange(9, dtype=np.int16)}
for n, a in tensors.items(): w.add_tensor(n, a)
q = gguf.quants.quantize(rng.standard_normal((2, 64)).astype(np.float32), gguf.GGMLQuantizationType.Q8_0)
w.add_tensor('q8_0', q, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()
print('\n'.join(lines))
for n, a in tensors.items(): print(n, n, str(list(a.shape)), a.tobytes().hex())
print('q8_0', 'q8_0', '[2, 64]', q.tobytes().hex())
)py";
  const std::string want = testing::run_python(code, {(dir / "py.gguf").string()});
  ASSERT_OK_AND_ASSIGN(const Reader r, Reader::open(dir / "py.gguf"));
  std::string got = describe(r.metadata());
  for (const StoredTensor& t : r.tensors()) {
    got += fmt::format("{} {} {} {}\n", t.info.name, format_info(t.info.format).name, t.info.shape.text(),
                       hex({reinterpret_cast<const char*>(r.view(t).data), t.info.bytes()}));
  }
  EXPECT_EQ(got, want);
  EXPECT_EQ(r.tensors().size(), 8u);
}

TEST(GgufReader, OpensARealModel) {
  const auto path = testing::cache_dir() / "models" / "smollm2-q4_1.gguf";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "no " << path;
  ASSERT_OK_AND_ASSIGN(const Reader r, Reader::open(path));
  EXPECT_EQ(r.metadata().get_string("general.architecture"), "llama");
  EXPECT_EQ(r.tensors().size(), 272u);
  const StoredTensor* embedding = r.find("token_embd.weight");
  ASSERT_NE(embedding, nullptr);
  EXPECT_EQ(embedding->info.shape, Shape({49152, 576}));
  EXPECT_EQ(r.metadata().get_strings("tokenizer.ggml.tokens")->size(), 49152u);
  if (testing::oracle_python().empty()) return;
  const std::string code = std::string(kDescribePython) + R"py(
r = gguf.GGUFReader(sys.argv[1])
for f in r.fields.values():
    if not f.name.startswith('GGUF.'): print(describe_field(f))
)py";
  EXPECT_EQ(describe(r.metadata()), testing::run_python(code, {path.string()}));
}

}  // namespace
}  // namespace narrow::io::gguf
