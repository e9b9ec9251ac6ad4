// Small valid files, cut at every length and with every header byte changed: open() never crashes, and an
// error names the file in one line. Runs under the sanitizers too.
#include "base/rng.h"
#include "gguf_bytes.h"
#include "io/gguf/reader.h"
#include "io/safetensors/reader.h"
#include "memory_file.h"
#include "testing/testing.h"

namespace narrow::io {
namespace {

std::string small_gguf(std::size_t& header_bytes) {
  gguf::Bytes b;
  using enum gguf::ValueType;
  b.preamble(3, 6);
  b.key("general.architecture", kString).str("llama");
  b.key("general.alignment", kU32).u32(32);
  b.key("n", kU64).u64(7);
  b.key("tokens", kArray).u32(8).u64(3).str("a").str("bc").str("");
  b.key("flags", kArray).u32(7).u64(2).put('\1').put('\0');
  b.key("nested", kArray).u32(9).u64(1).u32(6).u64(2).put(1.0f).put(2.0f);
  b.tensor("a", {32, 2}, 0, 0).tensor("b", {64}, 8, 256).tensor("c", {3}, 1, 352);
  header_bytes = b.text().size();
  b.pad().zeros(352).raw("abcdef");
  return b.text();
}

std::string small_safetensors(std::size_t& header_bytes) {
  const std::string json =
      R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
      R"("b":{"dtype":"I64","shape":[],"data_offsets":[24,32]},"c":{"dtype":"U8","shape":[0],"data_offsets":[32,32]}})";
  gguf::Bytes b;
  b.u64(json.size()).raw(json);
  header_bytes = b.text().size();
  b.zeros(32);
  return b.text();
}

// Opens, and reads the first and last byte of every tensor. False when refused.
template <class Reader>
bool try_open(MemoryFile& file, const std::string& bytes) {
  EXPECT_TRUE(file.set(bytes));
  const auto path = file.path();
  const auto r = Reader::open(path);
  if (!r.ok()) {
    EXPECT_NE(r.error().message.find(path.string()), std::string::npos) << r.error().message;
    EXPECT_EQ(r.error().message.find_first_of("\n\r"), std::string::npos) << r.error().message;
    return false;
  }
  unsigned sum = 0;
  for (const auto& t : r->tensors()) {
    const std::size_t n = t.info.bytes();
    if (n == 0) continue;
    const TensorView view = r->view(t);
    sum += static_cast<unsigned>(view.data[0]) + static_cast<unsigned>(view.data[n - 1]);
  }
  EXPECT_LT(sum, 1u << 20);
  return true;
}

template <class Reader>
void damage(const std::string& good, std::size_t header_bytes) {
  MemoryFile file;
  ASSERT_TRUE(try_open<Reader>(file, good));
  for (std::size_t n = 0; n < good.size(); ++n) {
    EXPECT_FALSE(try_open<Reader>(file, good.substr(0, n))) << "cut at " << n;
  }
  int refused = 0;
  for (std::size_t i = 0; i < header_bytes; ++i) {
    for (const int flip : {0x01, 0x80, 0xff, 0x20}) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ flip);
      refused += !try_open<Reader>(file, bad);
    }
  }
  EXPECT_GT(refused, static_cast<int>(header_bytes));
  // Several changes at once, in the header or anywhere.
  Rng rng(5);
  for (int round = 0; round < 2000; ++round) {
    std::string bad = good;
    const auto changes = 1 + rng.next_u64() % 8;
    for (std::uint64_t k = 0; k < changes; ++k) {
      bad[rng.next_u64() % header_bytes] = static_cast<char>(rng.next_u64() >> 32);
    }
    try_open<Reader>(file, bad);
  }
}

TEST(Corruption, Gguf) {
  std::size_t header_bytes = 0;
  const std::string good = small_gguf(header_bytes);
  damage<gguf::Reader>(good, header_bytes);
}

TEST(Corruption, Safetensors) {
  std::size_t header_bytes = 0;
  const std::string good = small_safetensors(header_bytes);
  damage<safetensors::Reader>(good, header_bytes);
}

}  // namespace
}  // namespace narrow::io
