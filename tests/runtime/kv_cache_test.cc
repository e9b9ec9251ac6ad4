#include <cstring>
#include <vector>

#include "runtime/kv_cache/kv_pool.h"
#include "testing/testing.h"

namespace narrow::runtime {
namespace {

constexpr std::int64_t kHeads = 2, kDim = 4, kCols = kHeads * kDim;

std::unique_ptr<KvPool> make_pool(std::vector<std::int64_t> windows, std::int64_t capacity) {
  auto pool = KvPool::create({Format::kF32, Format::kF32, false}, kHeads, kDim, windows, capacity);
  EXPECT_TRUE(pool.ok()) << pool.error().message;
  return std::move(pool).value();
}

// The key and value of a position are `mark` + position; all layers alike.
void append(KvSequence& sequence, const KvPool& pool, std::int64_t layers, std::int64_t n, float mark) {
  ASSERT_OK(sequence.reserve(n));
  std::vector<float> rows(static_cast<std::size_t>(n * kCols));
  for (std::size_t i = 0; i < rows.size(); ++i) {
    rows[i] = mark + static_cast<float>(sequence.length()) + static_cast<float>(i / kCols);
  }
  const ops::ConstMatrix m(rows.data(), n, kCols);
  for (std::int64_t l = 0; l < layers; ++l) ops::store_cache(pool.layout(), m, m, sequence.run(l, 0, n));
  sequence.advance(n);
}

// What a sequence holds at a position, read through the last head's values.
float at(const KvSequence& sequence, const KvPool& pool, std::int64_t layer, std::int64_t position) {
  const ops::AttentionRun run = sequence.run(layer, 0, 0);
  const kernels::HeadLayout& head = pool.layout().head;
  const std::byte* page = run.pages[static_cast<std::size_t>(position / 64)];
  EXPECT_NE(page, nullptr);
  float x;
  std::memcpy(&x,
              page + run.layer_offset + (kHeads - 1) * head.bytes + head.values_offset +
                  static_cast<std::size_t>(position % 64) * head.value_row_bytes,
              sizeof(x));
  return x;
}

// 2 heads, 64 positions: 4 floats of key, 16 (padded) of value.
constexpr std::uint64_t kLayerBytes = kHeads * 64 * (4 + 16) * sizeof(float);

TEST(KvPool, TakesPagesAsTheyAreNeededAndRecyclesThem) {
  const auto pool = make_pool({0, 0, 0}, 250);
  EXPECT_EQ(pool->capacity(), 256);
  EXPECT_EQ(pool->bytes(), 0u);
  EXPECT_EQ(pool->bytes_per_position(), 3.0 * kLayerBytes / 64);
  {
    KvSequence a(*pool);
    append(a, *pool, 3, 64, 0);
    EXPECT_EQ(pool->bytes(), 3 * kLayerBytes);
    append(a, *pool, 3, 1, 0);
    EXPECT_EQ(pool->bytes_in_use(), 2 * 3 * kLayerBytes);
    ASSERT_OK(a.truncate(64));
    EXPECT_EQ(pool->bytes_in_use(), 3 * kLayerBytes);
    EXPECT_EQ(pool->bytes(), 2 * 3 * kLayerBytes);
    KvSequence moved = std::move(a);
    EXPECT_EQ(moved.length(), 64);
    EXPECT_EQ(pool->bytes_in_use(), 3 * kLayerBytes);
    for (std::int64_t p = 0; p < 64; ++p) EXPECT_EQ(at(moved, *pool, 2, p), static_cast<float>(p));
  }
  EXPECT_EQ(pool->bytes_in_use(), 0u);
  KvSequence b(*pool);
  append(b, *pool, 3, 128, 0);
  EXPECT_EQ(pool->bytes(), 2 * 3 * kLayerBytes);
}

TEST(KvPool, AFullPoolSaysHowMuchIsThere) {
  const auto pool = make_pool({0, 100}, 192);
  KvSequence a(*pool), b(*pool);
  append(a, *pool, 2, 100, 0);
  const Status full = b.reserve(65);
  ASSERT_FALSE(full.ok());
  EXPECT_EQ(full.error().code, ErrorCode::kOutOfMemory);
  EXPECT_NE(full.error().message.find("65 more positions asked, 64 free of 192"), std::string::npos)
      << full.error().message;
  EXPECT_EQ(pool->bytes_in_use(), 2 * 2 * kLayerBytes);  // nothing was taken
  ASSERT_OK(b.reserve(64));
  ASSERT_OK(a.reserve(28));
  const Status rest = a.reserve(29);
  ASSERT_FALSE(rest.ok());
  EXPECT_NE(rest.error().message.find("29 more positions asked, 28 free of 192"), std::string::npos)
      << rest.error().message;
}

TEST(KvPool, ForksShareUntilOneOfThemWrites) {
  const auto pool = make_pool({0, 0}, 64 * 8);
  KvSequence a(*pool);
  append(a, *pool, 2, 150, 0);
  const std::uint64_t page = 2 * kLayerBytes;
  ASSERT_EQ(pool->bytes_in_use(), 3 * page);
  ASSERT_OK_AND_ASSIGN(KvSequence b, a.fork(140));
  EXPECT_EQ(b.length(), 140);
  EXPECT_EQ(pool->bytes_in_use(), 3 * page);  // all shared

  append(b, *pool, 2, 5, 1000);
  EXPECT_EQ(pool->bytes_in_use(), 4 * page);  // the last page was copied
  for (std::int64_t p = 0; p < 145; ++p) {
    EXPECT_EQ(at(b, *pool, 1, p), static_cast<float>(p) + (p < 140 ? 0.0f : 1000.0f));
  }
  for (std::int64_t p = 0; p < 150; ++p) EXPECT_EQ(at(a, *pool, 1, p), static_cast<float>(p));
  append(a, *pool, 2, 5, 0);  // its page is its own again
  EXPECT_EQ(pool->bytes_in_use(), 4 * page);

  // A fork at the end of a page copies nothing, and outlives where it came from.
  ASSERT_OK_AND_ASSIGN(KvSequence c, a.fork(128));
  a = KvSequence(*pool);
  append(c, *pool, 2, 1, 500);
  EXPECT_EQ(at(c, *pool, 0, 127), 127.0f);
  EXPECT_EQ(at(c, *pool, 0, 128), 628.0f);
  EXPECT_EQ(pool->bytes_in_use(), 4 * page);
  ASSERT_OK(c.truncate(0));
  EXPECT_EQ(pool->bytes_in_use(), 3 * page);
  EXPECT_FALSE(b.fork(146).ok());
  EXPECT_FALSE(b.truncate(-1).ok());
}

TEST(KvPool, WritingAfterGoingBackIntoASharedPageCopiesIt) {
  const auto pool = make_pool({0}, 64 * 4);
  KvSequence a(*pool);
  append(a, *pool, 1, 100, 0);
  ASSERT_OK_AND_ASSIGN(KvSequence b, a.fork(100));
  ASSERT_OK(b.truncate(10));
  append(b, *pool, 1, 3, 700);
  EXPECT_EQ(at(b, *pool, 0, 9), 9.0f);
  EXPECT_EQ(at(b, *pool, 0, 10), 710.0f);
  for (std::int64_t p = 0; p < 100; ++p) EXPECT_EQ(at(a, *pool, 0, p), static_cast<float>(p));
}

TEST(KvPool, PagesOutOfEveryWindowAreGivenBack) {
  const auto pool = make_pool({0, 128, 128}, 64 * 64);
  KvSequence a(*pool);
  for (int i = 0; i < 40; ++i) append(a, *pool, 3, 25, 0);  // 1000 positions
  ASSERT_OK(a.reserve(1));
  // 16 pages of the layer without a window. The others see from 873 on, or from 809 after going back.
  EXPECT_EQ(pool->bytes_in_use(), 16 * kLayerBytes + (16 - 809 / 64) * 2 * kLayerBytes);
  EXPECT_EQ(at(a, *pool, 0, 3), 3.0f);
  EXPECT_EQ(at(a, *pool, 2, 809), 809.0f);
  EXPECT_EQ(a.run(1, 0, 1).pages[0], nullptr);

  ASSERT_OK_AND_ASSIGN(KvSequence b, a.fork(1000 - kRewindPositions));
  append(b, *pool, 3, 10, 5000);
  EXPECT_EQ(at(b, *pool, 2, 936), 5936.0f);
  EXPECT_EQ(at(b, *pool, 2, 935), 935.0f);
  ASSERT_OK(a.truncate(1000 - kRewindPositions));
  const Status back = a.truncate(500);
  ASSERT_FALSE(back.ok());
  EXPECT_NE(back.error().message.find("position 500"), std::string::npos) << back.error().message;
  ASSERT_OK(a.truncate(0));
  append(a, *pool, 3, 70, 0);
  EXPECT_EQ(at(a, *pool, 1, 1), 1.0f);
}

TEST(KvPool, RefusesFormatsThatDoNotFit) {
  const std::vector<std::int64_t> windows(2, 0);
  const auto pool = KvPool::create({Format::kQ8_0, Format::kF16, false}, 1, 80, windows, 64);
  ASSERT_FALSE(pool.ok());
  EXPECT_EQ(pool.error().code, ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace narrow::runtime
