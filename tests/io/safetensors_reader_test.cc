#include <cstring>

#include "gguf_bytes.h"
#include "io/hf_config/hf_folder.h"
#include "io/safetensors/reader.h"
#include "testing/testing.h"

namespace narrow::io::safetensors {
namespace {

std::string file_of(const std::string& json, std::size_t data_bytes) {
  return gguf::Bytes().u64(json.size()).raw(json).zeros(data_bytes).text();
}

Result<Reader> open_bytes(const testing::TempDir& dir, const std::string& bytes) {
  testing::write_file(dir / "m.safetensors", bytes);
  return Reader::open(dir / "m.safetensors");
}

TEST(SafetensorsReader, SharedFilesBehaveAsTheLibrarySays) {
  NARROW_REQUIRE_SHARED();
  const auto folder = testing::shared_data() / "safetensors";
  ASSERT_OK_AND_ASSIGN(const Json expected, read_json(folder / "expected.json"));
  int good = 0, bad = 0;
  for (const auto& [name, value] : expected.items()) {
    const auto want = value.get<std::string>();
    const auto r = Reader::open(folder / name);
    if (want.starts_with("ok")) {
      ++good;
      EXPECT_OK(r);
      EXPECT_EQ(want == "ok, 0 tensors", r->tensors().empty());
      continue;
    }
    ++bad;
    ASSERT_FALSE(r.ok()) << name;
    EXPECT_EQ(r.error().code, ErrorCode::kCorrupt);
    EXPECT_TRUE(r.error().message.starts_with(want + ": ")) << name << ": " << r.error().message;
    EXPECT_NE(r.error().message.find(name), std::string::npos) << r.error().message;
  }
  EXPECT_EQ(good, 5);
  EXPECT_EQ(bad, 11);
}

TEST(SafetensorsReader, RealFiles) {
  NARROW_REQUIRE_SHARED();
  const auto folder = testing::shared_data() / "safetensors";
  ASSERT_OK_AND_ASSIGN(const Reader hadamards, Reader::open(folder / "hadamards.safetensors"));
  EXPECT_EQ(hadamards.tensors().size(), 66u);
  EXPECT_FALSE(hadamards.metadata().empty());
  for (const StoredTensor& t : hadamards.tensors()) {
    EXPECT_EQ(t.info.format, Format::kI8);
    const TensorView v = hadamards.view(t);
    for (std::size_t i = 0; i < t.info.bytes(); ++i) {
      const int x = static_cast<signed char>(v.data[i]);
      ASSERT_TRUE(x == 1 || x == -1) << t.info.name;
    }
  }
  ASSERT_OK_AND_ASSIGN(const Reader voices, Reader::open(folder / "candle_csm_voices.safetensors"));
  EXPECT_EQ(voices.tensors().size(), 2u);
  ASSERT_OK_AND_ASSIGN(const Reader codes, Reader::open(folder / "candle_jfk-codes.safetensors"));
  ASSERT_EQ(codes.tensors().size(), 1u);
  EXPECT_EQ(codes.tensors()[0].info.format, Format::kI64);
}

TEST(SafetensorsReader, EveryDtypeScalarsEmptyAndFiveDimensions) {
  testing::TempDir dir;
  const struct {
    const char* dtype;
    Format format;
    std::size_t bytes;
  } rows[] = {{"F64", Format::kF64, 8},   {"F32", Format::kF32, 4},         {"F16", Format::kF16, 2},
              {"BF16", Format::kBF16, 2}, {"I64", Format::kI64, 8},         {"I32", Format::kI32, 4},
              {"I16", Format::kI16, 2},   {"I8", Format::kI8, 1},           {"U64", Format::kU64, 8},
              {"U32", Format::kU32, 4},   {"U16", Format::kU16, 2},         {"U8", Format::kU8, 1},
              {"BOOL", Format::kBool, 1}, {"F8_E4M3", Format::kF8_E4M3, 1}, {"F8_E5M2", Format::kF8_E5M2, 1}};
  for (const auto& row : rows) {
    const std::string json = fmt::format(
        R"({{"z":{{"dtype":"{0}","shape":[2,3],"data_offsets":[0,{1}]}},"s":{{"dtype":"{0}","shape":[],"data_offsets":[{1},{2}]}},)"
        R"("e":{{"dtype":"{0}","shape":[0,5],"data_offsets":[{2},{2}]}},"d":{{"dtype":"{0}","shape":[1,2,1,2,1,1],"data_offsets":[{2},{3}]}}}})",
        row.dtype, 6 * row.bytes, 7 * row.bytes, 11 * row.bytes);
    ASSERT_OK_AND_ASSIGN(const Reader r, open_bytes(dir, file_of(json, 11 * row.bytes)));
    ASSERT_EQ(r.tensors().size(), 4u);
    EXPECT_EQ(r.tensors()[0].info.name, "d");  // by name
    for (const StoredTensor& t : r.tensors()) EXPECT_EQ(t.info.format, row.format);
    EXPECT_EQ(r.find("z")->info.shape, Shape({2, 3}));
    EXPECT_EQ(r.find("z")->info.bytes(), 6 * row.bytes);
    EXPECT_EQ(r.find("s")->info.shape.rank(), 0);
    EXPECT_EQ(r.find("s")->info.bytes(), row.bytes);
    EXPECT_EQ(r.find("e")->info.bytes(), 0u);
    EXPECT_EQ(r.find("d")->info.shape, Shape({1, 2, 1, 2, 1, 1}));
    EXPECT_EQ(r.find("none"), nullptr);
  }
}

TEST(SafetensorsReader, RefusesEachDefectWithOneLine) {
  testing::TempDir dir;
  const auto one = [](const std::string& entry) { return file_of("{\"t\":" + entry + "}", 16); };
  const auto shaped = [&](const std::string& shape) {
    return one(R"({"dtype":"I32","shape":)" + shape + R"(,"data_offsets":[0,16]})");
  };
  std::string deep;
  for (int i = 0; i < 200; ++i) deep += '[';
  const struct {
    std::string bytes;
    ErrorCode code;
    const char* message;
  } rows[] = {
      {one(R"({"dtype":"F4","shape":[4],"data_offsets":[0,16]})"), ErrorCode::kUnsupported,
       "tensor 't' has the dtype 'F4'"},
      {one("3"), ErrorCode::kCorrupt, "InvalidHeaderDeserialization"},
      {one(R"({"shape":[4],"data_offsets":[0,16]})"), ErrorCode::kCorrupt, "no 'dtype'"},
      {one(R"({"dtype":"I32","data_offsets":[0,16]})"), ErrorCode::kCorrupt, "no 'shape'"},
      {one(R"({"dtype":"I32","shape":[4]})"), ErrorCode::kCorrupt, "no 'data_offsets'"},
      {one(R"({"dtype":"I32","shape":[4],"data_offsets":[0]})"), ErrorCode::kCorrupt, "no 'data_offsets'"},
      {one(R"({"dtype":"I32","shape":[4],"data_offsets":[0,-16]})"), ErrorCode::kCorrupt,
       "no 'data_offsets'"},
      {one(R"({"dtype":"I32","shape":[4],"data_offsets":[16,0]})"), ErrorCode::kCorrupt, "InvalidOffset"},
      {one(R"({"dtype":"I32","shape":[4],"data_offsets":[0,18446744073709551615]})"), ErrorCode::kCorrupt,
       "TensorInvalidInfo"},
      {one(R"({"dtype":"I32","shape":[2],"data_offsets":[8,16]})"), ErrorCode::kCorrupt, "InvalidOffset"},
      {shaped("[-4]"), ErrorCode::kCorrupt, "not a non-negative integer"},
      {shaped("[4.0]"), ErrorCode::kCorrupt, "not a non-negative integer"},
      {shaped("[36893488147419103232]"), ErrorCode::kCorrupt, "not a non-negative integer"},
      {shaped("[0,18446744073709551615]"), ErrorCode::kCorrupt, "ValidationOverflow"},
      {shaped("[4294967296,4294967296,0]"), ErrorCode::kCorrupt, "ValidationOverflow"},
      {shaped("[5]"), ErrorCode::kCorrupt, "TensorInvalidInfo"},
      {file_of(
           R"({"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
           1),
       ErrorCode::kCorrupt, "key 't' is there twice"},
      {file_of(R"({"__metadata__":{"a":1}})", 0), ErrorCode::kCorrupt,
       "'__metadata__' key 'a' is not a string"},
      {file_of(R"({"__metadata__":[]})", 0), ErrorCode::kCorrupt, "'__metadata__' is not an object"},
      {file_of("[]", 0), ErrorCode::kCorrupt, "not an object"},
      {file_of(deep, 0), ErrorCode::kCorrupt, "nested deeper than 128"},
      {file_of("{\"" + std::string(2000, 'n') + R"(":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1),
       ErrorCode::kCorrupt, "a name of 2000 bytes"},
  };
  for (const auto& row : rows) {
    const auto r = open_bytes(dir, row.bytes);
    ASSERT_FALSE(r.ok()) << row.message;
    EXPECT_EQ(r.error().code, row.code) << r.error().message;
    EXPECT_NE(r.error().message.find(row.message), std::string::npos)
        << row.message << ": " << r.error().message;
    EXPECT_NE(r.error().message.find("m.safetensors"), std::string::npos) << r.error().message;
    EXPECT_EQ(r.error().message.find('\n'), std::string::npos) << r.error().message;
  }
  EXPECT_EQ(Reader::open(dir / "absent").error().code, ErrorCode::kNotFound);
}

std::string shard_of(const std::string& name, float value) {
  const std::string json = "{\"" + name + R"(":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";
  return gguf::Bytes().u64(json.size()).raw(json).put(value).text();
}

TEST(SafetensorsReader, ShardedFolder) {
  testing::TempDir dir;
  testing::write_file(dir / "model-00001-of-00002.safetensors", shard_of("b", 1));
  testing::write_file(dir / "model-00002-of-00002.safetensors", shard_of("a", 2));
  testing::write_file(dir / "model.safetensors.index.json",
                      R"({"metadata":{"total_size":8},"weight_map":{"a":"model-00002-of-00002.safetensors",)"
                      R"("b":"model-00001-of-00002.safetensors"}})");
  ASSERT_OK_AND_ASSIGN(const Reader r, Reader::open_folder(dir.path()));
  ASSERT_EQ(r.tensors().size(), 2u);
  EXPECT_EQ(r.parts().size(), 2u);
  EXPECT_EQ(r.tensors()[0].info.name, "a");
  float x = 0;
  std::memcpy(&x, r.view(*r.find("a")).data, sizeof x);
  EXPECT_EQ(x, 2.0f);
  std::memcpy(&x, r.view(*r.find("b")).data, sizeof x);
  EXPECT_EQ(x, 1.0f);
  r.drop(*r.find("a"));
}

TEST(SafetensorsReader, FoldersThatDoNotHoldTogether) {
  const struct {
    const char* what;
    const char* map;  // weight_map; null: no index
    ErrorCode code;
    const char* message;
  } rows[] = {
      {"no weights", nullptr, ErrorCode::kNotFound,
       "holds neither model.safetensors nor model.safetensors.index.json"},
      {"missing shard", R"({"a":"s1","b":"s9"})", ErrorCode::kNotFound, "s9: missing shard, named in"},
      {"not in its shard", R"({"a":"s2","b":"s2"})", ErrorCode::kCorrupt, "s2: tensor 'a' is not in it"},
      {"in no shard", R"({"a":"s1","c":"s1"})", ErrorCode::kCorrupt, "s1: tensor 'c' is not in it"},
      {"in two shards", R"({"a":"s1","b":"s3"})", ErrorCode::kCorrupt, "s3: tensor 'a' is also in"},
      {"parent folder", R"({"a":"../s1"})", ErrorCode::kCorrupt,
       "tensor 'a' is mapped to '../s1', which is not"},
      {"absolute", R"({"a":"/etc/passwd"})", ErrorCode::kCorrupt, "is not the name of a file in this folder"},
      {"dots", R"({"a":".."})", ErrorCode::kCorrupt, "is not the name of a file in this folder"},
      {"empty name", R"({"a":""})", ErrorCode::kCorrupt, "is not the name of a file in this folder"},
      {"number", R"({"a":1})", ErrorCode::kCorrupt, "is mapped to number"},
      {"empty map", "{}", ErrorCode::kCorrupt, "'weight_map' is empty"},
      {"list", "[]", ErrorCode::kCorrupt, "has no 'weight_map' object"},
      {"broken JSON", "{", ErrorCode::kCorrupt, "line 1, column"},
      {"damaged shard", R"({"a":"s4"})", ErrorCode::kCorrupt, "HeaderTooSmall"},
  };
  for (const auto& row : rows) {
    testing::TempDir dir;
    testing::write_file(dir / "s1", shard_of("a", 1));
    testing::write_file(dir / "s2", shard_of("b", 1));
    testing::write_file(dir / "s3", shard_of("a", 1));
    testing::write_file(dir / "s4", "x");
    if (row.map) {
      testing::write_file(dir / "model.safetensors.index.json",
                          std::string("{\"weight_map\":") + row.map + "}");
    }
    const auto r = Reader::open_folder(dir.path());
    ASSERT_FALSE(r.ok()) << row.what;
    EXPECT_EQ(r.error().code, row.code) << row.what << ": " << r.error().message;
    EXPECT_NE(r.error().message.find(row.message), std::string::npos)
        << row.what << ": " << r.error().message;
  }
  testing::TempDir dir;
  testing::write_file(dir / "pytorch_model.bin", "x");
  EXPECT_NE(Reader::open_folder(dir.path()).error().message.find("pytorch_model.bin is there"),
            std::string::npos);
  EXPECT_EQ(Reader::open_folder(dir / "none").error().code, ErrorCode::kNotFound);
}

TEST(SafetensorsReader, ReadsWhatTheSafetensorsPackageWrites) {
  NARROW_REQUIRE_PYTHON();
  testing::TempDir dir;
  const std::string want = testing::run_python(R"py(
import sys, numpy as np
from safetensors.numpy import save_file
rng = np.random.default_rng(1)
t = {'w.' + np.dtype(d).name: (rng.standard_normal((3, 5)) * 50).astype(d) for d in
     ['f8', 'f4', 'f2', 'i8', 'i4', 'i2', 'i1', 'u8', 'u4', 'u2', 'u1', '?']}
t['scalar'] = np.array(3.5, dtype=np.float32)
t['empty'] = np.zeros((2, 0), dtype=np.float32)
t['caf\u00e9 "x"'] = np.arange(6, dtype=np.float32).reshape(1, 2, 1, 3, 1)
save_file(t, sys.argv[1], metadata={'format': 'np', 'note': 'a\nb'})
for n in sorted(t, key=lambda s: s.encode()): print(n.encode().hex(), list(t[n].shape), t[n].tobytes().hex())
)py",
                                               {(dir / "py.safetensors").string()});
  ASSERT_OK_AND_ASSIGN(const Reader r, Reader::open(dir / "py.safetensors"));
  std::string got;
  for (const StoredTensor& t : r.tensors()) {
    got += fmt::format("{} {} {}\n", gguf::hex(t.info.name), t.info.shape.text(),
                       gguf::hex({reinterpret_cast<const char*>(r.view(t).data), t.info.bytes()}));
  }
  EXPECT_EQ(got, want);
  EXPECT_EQ(r.metadata(), (std::map<std::string, std::string>{{"format", "np"}, {"note", "a\nb"}}));
}

}  // namespace
}  // namespace narrow::io::safetensors
