// Attention and storing over pages: how work is cut must not show in results.
#include "ops/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/aligned_buffer.h"
#include "base/thread_team.h"
#include "kernels/attention_oracle.h"
#include "testing/testing.h"

namespace narrow::ops {
namespace {

using testing::DoubleCache;
using testing::normal_vector;

// Pages of one sequence with two layers, of which the second is used; NaN where nothing is stored.
class Pages {
 public:
  Pages(const CacheLayout& layout, std::int64_t positions) : layout_(layout) {
    const std::size_t bytes = 2 * layout.layer_bytes();
    const auto count = static_cast<std::size_t>((positions + 63) / 64);
    memory_.resize(count * bytes);
    std::memset(memory_.data(), 0xff, memory_.size());
    for (std::size_t i = 0; i < count; ++i) pages_.push_back(memory_.data() + i * bytes);
  }
  AttentionRun run(std::int64_t row_begin, std::int64_t rows, std::int64_t first) const {
    return {row_begin, rows, first, pages_, layout_.layer_bytes()};
  }
  DoubleCache head(std::int64_t h, std::int64_t count) const {
    return {layout_.head, pages_.data(),
            layout_.layer_bytes() + static_cast<std::size_t>(h) * layout_.head.bytes, count};
  }
  std::string bytes() const { return {reinterpret_cast<const char*>(memory_.data()), memory_.size()}; }

 private:
  CacheLayout layout_;
  AlignedBuffer<std::byte> memory_;
  std::vector<std::byte*> pages_;
};

// A sequence with `first` positions in the cache and m more that attend.
struct Sequence {
  std::int64_t first, m;
};

struct Case {
  const char* what;
  AttentionSpec spec;
  Format keys, values;
  bool rotate;
  std::vector<Sequence> sequences;
};

const Case kCases[] = {
    {"one token", {4, 4, 16, 0.25f, 0.0f, 0}, Format::kF32, Format::kF32, false, {{0, 1}}},
    {"decode in parts", {6, 2, 16, 0.25f, 0.0f, 0}, Format::kF16, Format::kF16, false, {{1000, 1}}},
    {"a short run in parts", {3, 1, 32, 0.2f, 0.0f, 0}, Format::kQ8_0, Format::kQ4_0, true, {{700, 7}}},
    {"prefill over several blocks", {6, 2, 24, 0.2f, 0.0f, 0}, Format::kF16, Format::kF32, false, {{0, 183}}},
    {"second chunk", {4, 1, 64, 0.125f, 0.0f, 0}, Format::kQ4_0, Format::kQ8_0, false, {{250, 141}}},
    {"window", {4, 2, 16, 0.25f, 0.0f, 16}, Format::kF16, Format::kF16, false, {{0, 190}}},
    {"window across parts", {4, 2, 16, 0.25f, 0.0f, 300}, Format::kF16, Format::kF16, false, {{600, 5}}},
    {"window of one", {2, 2, 8, 0.3f, 0.0f, 1}, Format::kF16, Format::kF16, false, {{5, 40}}},
    {"softcap", {4, 2, 16, 1.0f, 5.0f, 0}, Format::kF32, Format::kF16, false, {{3, 140}}},
    {"several sequences",
     {6, 2, 32, 0.2f, 0.0f, 0},
     Format::kF16,
     Format::kQ8_0,
     true,
     {{0, 1}, {63, 2}, {900, 1}, {20, 130}, {255, 1}, {5, 0}}},
};

TEST(PagedAttention, AgainstDoubleAloneAndTogetherAndForAnyNumberOfThreads) {
  for (const Case& c : kCases) {
    const AttentionSpec& s = c.spec;
    ASSERT_OK_AND_ASSIGN(const CacheLayout layout,
                         CacheLayout::make(c.keys, c.values, s.n_head_kv, s.head_dim, c.rotate));
    const std::int64_t cols = s.n_head * s.head_dim, kv_cols = s.n_head_kv * s.head_dim;
    std::vector<Pages> pages;
    std::vector<AttentionRun> runs;
    std::int64_t m = 0;
    for (const Sequence& sequence : c.sequences) {
      const std::int64_t count = sequence.first + sequence.m;
      const std::vector<float> keys = normal_vector(count * kv_cols, 10 + static_cast<std::uint64_t>(m));
      const std::vector<float> values = normal_vector(count * kv_cols, 20 + static_cast<std::uint64_t>(m));
      const ConstMatrix k(keys.data(), count, kv_cols), v(values.data(), count, kv_cols);
      std::string want;
      for (const int threads : {1, 2, 5}) {
        set_thread_count(threads);
        Pages filled(layout, count + 70);
        store_cache(layout, k, v, filled.run(0, sequence.first, 0));
        store_cache(layout, k, v, filled.run(sequence.first, sequence.m, sequence.first));
        if (threads == 1) want = filled.bytes();
        ASSERT_EQ(filled.bytes(), want) << c.what;
        if (threads == 5) pages.push_back(std::move(filled));
      }
      m += sequence.m;
    }
    const std::vector<float> q = normal_vector(m * cols, 3);
    std::int64_t row = 0;
    for (std::size_t i = 0; i < pages.size(); ++i) {
      runs.push_back(pages[i].run(row, c.sequences[i].m, c.sequences[i].first));
      row += c.sequences[i].m;
    }
    std::vector<float> out(q.size()), want_bits;
    for (const int threads : {1, 2, 5}) {
      set_thread_count(threads);
      ASSERT_OK(attention(s, layout, {q.data(), m, cols}, runs, {out.data(), m, cols}));
      if (threads == 1) want_bits = out;
      EXPECT_EQ(out, want_bits) << c.what << " with threads " << threads;
    }
    set_thread_count(0);
    std::vector<float> alone(q.size(), std::numeric_limits<float>::quiet_NaN());
    for (const AttentionRun& run : runs) {
      ASSERT_OK(attention(s, layout, {q.data(), m, cols}, {&run, 1}, {alone.data(), m, cols}));
    }
    EXPECT_EQ(alone, want_bits) << c.what;

    for (std::size_t i = 0; i < pages.size(); ++i) {
      for (std::int64_t h = 0; h < s.n_head; ++h) {
        const std::int64_t kv = h / (s.n_head / s.n_head_kv);
        const DoubleCache cache = pages[i].head(kv, runs[i].first + runs[i].rows);
        for (std::int64_t r = 0; r < runs[i].rows; ++r) {
          const std::int64_t at = (runs[i].row_begin + r) * cols + h * s.head_dim;
          const std::vector<double> want =
              cache.attend(layout.head, q.data() + at, runs[i].first + r, s.scale, s.softcap, s.window);
          for (std::int64_t j = 0; j < s.head_dim; ++j) {
            ASSERT_NEAR(out[static_cast<std::size_t>(at + j)], want[static_cast<std::size_t>(j)], 4e-6)
                << c.what << ": sequence " << i << " head " << h << " row " << r;
          }
        }
      }
    }
  }
}

TEST(PagedAttention, ErrorsNameTheShapes) {
  ASSERT_OK_AND_ASSIGN(const CacheLayout layout, CacheLayout::make(Format::kF16, Format::kF16, 2, 8, false));
  std::vector<float> x(64);
  const Status heads = attention({4, 1, 8, 1.0f, 0.0f, 0}, layout, {x.data(), 2, 32}, {}, {x.data(), 2, 32});
  ASSERT_FALSE(heads.ok());
  EXPECT_NE(heads.error().message.find("4 heads of 8 over 1 key heads, cached as 2 heads of 8"),
            std::string::npos)
      << heads.error().message;
  const AttentionSpec spec{4, 2, 8, 1.0f, 0.0f, 0};
  EXPECT_FALSE(attention(spec, layout, {x.data(), 2, 24}, {}, {x.data(), 2, 24}).ok());

  const Pages pages(layout, 64);
  const AttentionRun beyond = pages.run(0, 2, 63);
  const Status full = attention(spec, layout, {x.data(), 2, 32}, {&beyond, 1}, {x.data(), 2, 32});
  ASSERT_FALSE(full.ok());
  EXPECT_NE(full.error().message.find("positions 63 .. 65 do not fit a batch of 2 rows and 1 pages"),
            std::string::npos)
      << full.error().message;
  EXPECT_EQ(CacheLayout::make(Format::kQ8_0, Format::kF16, 1, 80, false).error().code,
            ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace narrow::ops
