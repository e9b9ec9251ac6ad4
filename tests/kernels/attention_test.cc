// Every instruction set of this host: stored bytes and attention equal to generic's bit for bit, stored bytes
// near what was put in, attention near sums in double over those bytes.
#include "kernels/attention.h"

#include <bit>
#include <limits>
#include <string>
#include <type_traits>

#include "base/aligned_buffer.h"
#include "kernels/attention_oracle.h"
#include "kernels/dispatch.h"
#include "testing/testing.h"

namespace narrow::kernels {
namespace {

using testing::DoubleCache;
using testing::normal_vector;

constexpr Format kFormats[] = {Format::kF32, Format::kF16, Format::kQ8_0, Format::kQ4_0};

bool quantized(Format f) { return f == Format::kQ8_0 || f == Format::kQ4_0; }

// Pages of one head, filled up to `count` positions; what lies beyond is NaN.
class Cache {
 public:
  Cache(const HeadLayout& layout, const AttentionKernels& kernels, const std::vector<float>& keys,
        const std::vector<float>& values, std::int64_t count)
      : layout_(layout), memory_(static_cast<std::size_t>((count + 63) / 64) * layout.bytes) {
    std::memset(memory_.data(), 0xff, memory_.size());
    for (std::int64_t p = 0; p < count; ++p) {
      std::byte* page = memory_.data() + static_cast<std::size_t>(p / 64) * layout.bytes;
      if (p % 64 == 0) pages_.push_back(page);
      kernels.store(layout, keys.data() + p * layout.head_dim, values.data() + p * layout.head_dim, p % 64,
                    page);
    }
  }
  const std::byte* const* pages() const { return pages_.data(); }
  std::string bytes() const { return {reinterpret_cast<const char*>(memory_.data()), memory_.size()}; }

 private:
  HeadLayout layout_;
  AlignedBuffer<std::byte> memory_;
  std::vector<const std::byte*> pages_;
};

struct Sums {
  std::vector<float> acc, max, sum;
};
Sums attend_sums(const AttentionKernels& kernels, const HeadLayout& layout, const AttentionItem& item) {
  const auto rows = static_cast<std::size_t>(item.rows());
  AlignedBuffer<float> scratch(attention_scratch_floats(layout, item.rows()));
  Sums s{std::vector<float>(rows * static_cast<std::size_t>(layout.padded_dim)), std::vector<float>(rows),
         std::vector<float>(rows)};
  kernels.attend(layout, item, s.acc.data(), s.max.data(), s.sum.data(), scratch.data());
  return s;
}

// Attention of one item, divided.
std::vector<float> attend(const AttentionKernels& kernels, const HeadLayout& layout,
                          const AttentionItem& item) {
  const Sums s = attend_sums(kernels, layout, item);
  std::vector<float> out;
  for (std::int64_t r = 0; r < item.rows(); ++r) {
    for (std::int64_t i = 0; i < layout.head_dim; ++i) {
      out.push_back(s.acc[static_cast<std::size_t>(r * layout.padded_dim + i)] /
                    s.sum[static_cast<std::size_t>(r)]);
    }
  }
  return out;
}

// Where two vectors' bits differ first, -1: nowhere.
std::int64_t first_difference(const std::vector<float>& a, const std::vector<float>& b) {
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (std::bit_cast<std::uint32_t>(a[i]) != std::bit_cast<std::uint32_t>(b[i])) {
      return static_cast<std::int64_t>(i);
    }
  }
  return a.size() == b.size() ? -1 : static_cast<std::int64_t>(a.size());
}

struct Case {
  Format keys, values;
  std::int64_t dim, group, window, m, first;
  float softcap;
  bool rotate;

  std::string text() const {
    return fmt::format("keys {} values {} dim {} group {} window {} m {} first {} softcap {} rotate {}",
                       format_info(keys).name, format_info(values).name, dim, group, window, m, first,
                       softcap, rotate);
  }
};

void check_case(const Case& c) {
  const auto layout = head_layout(c.keys, c.values, c.dim, c.rotate);
  ASSERT_OK(layout);
  const HeadLayout& l = layout.value();
  const std::int64_t count = c.first + c.m;
  const std::vector<float> keys = normal_vector(count * c.dim, 1), values = normal_vector(count * c.dim, 2);
  const std::vector<float> q = normal_vector(c.m * c.group * c.dim, 3);
  AttentionItem item;
  item.q = q.data();
  item.q_stride = c.group * c.dim;
  item.tokens = c.m;
  item.group = c.group;
  item.first = c.first;
  item.begin = c.window > 0 ? std::max<std::int64_t>(0, c.first - c.window + 1) : 0;
  item.end = count;
  item.scale = 1.0f / std::sqrt(static_cast<float>(c.dim));
  item.softcap = c.softcap;
  item.window = c.window;

  std::vector<double> want;
  std::string want_bytes;
  const std::vector<const KernelTable*> tables = available_kernels(cpu_features());
  for (auto kt = tables.rbegin(); kt != tables.rend(); ++kt) {  // generic first
    ASSERT_NE((*kt)->attention, nullptr) << (*kt)->name;
    const Cache cache(l, *(*kt)->attention, keys, values, count);
    if (want.empty()) {
      want_bytes = cache.bytes();
      const DoubleCache reference(l, cache.pages(), 0, count);
      for (std::int64_t r = 0; r < item.rows(); ++r) {
        const std::vector<double> row =
            reference.attend(l, q.data() + r * c.dim, c.first + r / c.group, item.scale, c.softcap, c.window);
        want.insert(want.end(), row.begin(), row.end());
      }
    }
    ASSERT_TRUE(cache.bytes() == want_bytes) << (*kt)->name << ": " << c.text();
    item.pages = cache.pages();
    const std::vector<float> got = attend(*(*kt)->attention, l, item);
    ASSERT_EQ(got.size(), want.size());
    for (std::size_t i = 0; i < got.size(); ++i) {
      ASSERT_NEAR(got[i], want[i], 4e-6) << (*kt)->name << ": " << c.text() << " at " << i;
    }
  }
}

TEST(Attention, AgainstSumsInDouble) {
  constexpr std::int64_t kDims[] = {64, 96, 128, 256, 4, 80}, kGroups[] = {1, 3, 4}, kWindows[] = {0, 5, 64};
  constexpr std::int64_t kTokens[] = {1, 2, 7, 64, 70}, kFirst[] = {0, 1, 63, 64, 200};
  std::size_t turn = 0;
  for (const std::int64_t dim : kDims) {
    for (const Format keys : kFormats) {
      for (const Format values : kFormats) {
        if (dim % 32 != 0 && (quantized(keys) || quantized(values))) continue;
        if (dim != 64 && keys != values && values != Format::kF16) continue;
        for (const std::int64_t m : kTokens) {
          for (const std::int64_t first : kFirst) {
            // The other axes take turns, and beside the plain cases one of five will do.
            ++turn;
            if ((dim > 64 || keys != values) && turn % 5 != 0) continue;
            const Case c{keys,
                         values,
                         dim,
                         kGroups[turn % 3],
                         kWindows[turn / 3 % 3],
                         m,
                         first,
                         turn / 9 % 2 == 0 ? 0.0f : 2.5f,
                         turn / 2 % 7 == 3};
            ASSERT_NO_FATAL_FAILURE(check_case(c));
          }
        }
      }
    }
  }
}

// Visiting positions begin .. end - 1 only; keys and values are times a factor.
void check_bits(const Case& c, std::int64_t begin, std::int64_t end, float key_scale, float value_scale) {
  const auto layout = head_layout(c.keys, c.values, c.dim, c.rotate);
  ASSERT_OK(layout);
  const std::int64_t count = c.first + c.m;
  const std::vector<float> keys = normal_vector(count * c.dim, 1, key_scale),
                           values = normal_vector(count * c.dim, 2, value_scale),
                           q = normal_vector(c.m * c.group * c.dim, 3);
  AttentionItem item{q.data(), c.group * c.dim, c.m, c.group, c.first,   begin,
                     end,      nullptr,         0,   0.0f,    c.softcap, c.window};
  item.scale = 1.0f / std::sqrt(static_cast<float>(c.dim));
  std::string bytes;
  Sums want;
  const std::vector<const KernelTable*> tables = available_kernels(cpu_features());
  for (auto kt = tables.rbegin(); kt != tables.rend(); ++kt) {  // generic first
    const Cache cache(layout.value(), *(*kt)->attention, keys, values, count);
    item.pages = cache.pages();
    const Sums got = attend_sums(*(*kt)->attention, layout.value(), item);
    if (kt == tables.rbegin()) {
      bytes = cache.bytes();
      want = got;
    }
    const std::string where = fmt::format("{}: {}, positions {} .. {}, keys * {}, values * {}", (*kt)->name,
                                          c.text(), begin, end, key_scale, value_scale);
    ASSERT_TRUE(cache.bytes() == bytes) << where;
    ASSERT_EQ(first_difference(got.max, want.max), -1) << where;
    ASSERT_EQ(first_difference(got.sum, want.sum), -1) << where;
    ASSERT_EQ(first_difference(got.acc, want.acc), -1) << where;
  }
}

TEST(Attention, SameBitsOnEveryInstructionSet) {
  Rng rng(1);
  const auto pick = [&](auto... of) {
    const std::common_type_t<decltype(of)...> all[] = {of...};
    return all[rng.next_u64() % sizeof...(of)];
  };
  for (const std::int64_t dim : {64, 80, 96, 128, 256}) {
    for (const Format keys : kFormats) {
      for (const Format values : kFormats) {
        if (dim % 32 != 0 && (quantized(keys) || quantized(values))) continue;
        for (const std::int64_t group : {1, 3, 4}) {
          for (const float softcap : {0.0f, 2.5f}) {
            const Case c{keys,
                         values,
                         dim,
                         group,
                         pick(0, 0, 5, 64),
                         pick(1, 1, 3, 7, 32, 64),
                         pick(0, 1, 63, 100, 200),
                         softcap,
                         pick(0, 1) == 1};
            // All positions or a part of them, which may start and end within a page and of which some rows
            // may see nothing. Large keys make weights that underflow, tiny values make sums that do.
            const std::int64_t count = c.first + c.m, begin = pick(0, 0, count / 3, count / 2),
                               end = pick(count, count, (begin + count + 1) / 2);
            ASSERT_NO_FATAL_FAILURE(
                check_bits(c, begin, end, pick(1.0f, 1.0f, 40.0f), pick(1.0f, 1.0f, 1e-37f, 1e-45f)));
          }
        }
      }
    }
  }
}

TEST(Attention, EveryGroupWindowAndCap) {
  for (const std::int64_t group : {1, 3, 4}) {
    for (const std::int64_t window : {0, 1, 5, 64}) {
      for (const float softcap : {0.0f, 2.5f}) {
        for (const std::int64_t m : {1, 7, 70}) {
          ASSERT_NO_FATAL_FAILURE(
              check_case({Format::kF16, Format::kQ8_0, 64, group, window, m, 200, softcap, false}));
        }
      }
    }
  }
}

TEST(Attention, PartsOfTheContextAddUp) {
  const auto layout = head_layout(Format::kF16, Format::kF16, 64, false);
  ASSERT_OK(layout);
  const std::vector<float> keys = normal_vector(300 * 64, 1), values = normal_vector(300 * 64, 2);
  const std::vector<float> q = normal_vector(64, 3);
  for (const KernelTable* kt : available_kernels(cpu_features())) {
    const Cache cache(layout.value(), *kt->attention, keys, values, 300);
    AttentionItem item;
    item.q = q.data();
    item.tokens = item.group = 1;
    item.first = 299;
    item.pages = cache.pages();
    const auto part = [&](std::int64_t begin, std::int64_t end) {
      item.begin = begin;
      item.end = end;
      std::vector<float> acc(64), scratch(attention_scratch_floats(layout.value(), 1));
      float max = 0, sum = 0;
      kt->attention->attend(layout.value(), item, acc.data(), &max, &sum, scratch.data());
      acc.push_back(max);
      acc.push_back(sum);
      return acc;
    };
    const std::vector<float> all = part(0, 300), a = part(0, 130), b = part(130, 300);
    const float fa = std::exp(a[64] - all[64]), fb = std::exp(b[64] - all[64]);
    for (std::size_t i = 0; i < 64; ++i) EXPECT_NEAR(fa * a[i] + fb * b[i], all[i], 1e-4) << kt->name;
    EXPECT_NEAR(fa * a[65] + fb * b[65], all[65], 1e-4) << kt->name;
    EXPECT_EQ(std::max(a[64], b[64]), all[64]) << kt->name;

    item.window = 10;
    const std::vector<float> unseen = part(0, 64);
    EXPECT_EQ(unseen[64], -std::numeric_limits<float>::infinity()) << kt->name;
    EXPECT_EQ(unseen[65], 0.0f) << kt->name;
    EXPECT_EQ(unseen[0], 0.0f) << kt->name;
  }
}

TEST(Attention, StoredValuesAreNearWhatWasStored) {
  // Half a step of the codes, of absmax / 127 and of absmax / 8, or of a half's 11 bits.
  const auto bound = [](Format f) {
    return f == Format::kQ8_0 ? 0.51 / 127 : f == Format::kQ4_0 ? 1.01 / 8 : 1e-3;
  };
  for (const Format f : kFormats) {
    const auto layout = head_layout(f, f, 64, false);
    ASSERT_OK(layout);
    std::vector<float> x = normal_vector(64 * 64, 7, 3.0f);
    std::fill(x.begin(), x.begin() + 64, 0.0f);          // a zero row stays zero
    std::fill(x.begin() + 64, x.begin() + 128, -1e-9f);  // its scale is no half
    const Cache cache(layout.value(), *kernels().attention, x, x, 64);
    for (std::int64_t p = 0; p < 64; ++p) {
      const std::vector<float> value = testing::stored_value(layout.value(), cache.pages()[0], p);
      for (std::int64_t i = 0; i < 64; ++i) {
        const float* block = x.data() + p * 64 + i / 32 * 32;
        float absmax = 0;
        for (int j = 0; j < 32; ++j) absmax = std::max(absmax, std::abs(block[j]));
        const double tolerance = p == 1 ? 1e-8 : bound(f) * absmax;
        const float want = x[static_cast<std::size_t>(p * 64 + i)];
        EXPECT_NEAR(testing::stored_key(layout.value(), cache.pages()[0], p, i), want, tolerance);
        EXPECT_NEAR(value[static_cast<std::size_t>(i)], want, tolerance);
      }
    }
  }
}

TEST(Attention, RotationSavesFourBitKeysWithOutliers) {
  // As small models have: a channel far from zero, of which softmax takes no note.
  constexpr std::int64_t kCount = 256, kDim = 64;
  std::vector<float> keys = normal_vector(kCount * kDim, 1);
  for (std::int64_t p = 0; p < kCount; ++p) keys[static_cast<std::size_t>(p * kDim + 5)] += 20.0f;
  const std::vector<float> values = normal_vector(kCount * kDim, 2), q = normal_vector(kDim, 3);
  for (const KernelTable* kt : available_kernels(cpu_features())) {
    const auto error = [&](bool rotate) {
      const HeadLayout exact = head_layout(Format::kF32, Format::kF32, kDim, false).value();
      const HeadLayout four = head_layout(Format::kQ4_0, Format::kF32, kDim, rotate).value();
      const Cache a(exact, *kt->attention, keys, values, kCount),
          b(four, *kt->attention, keys, values, kCount);
      AttentionItem item;
      item.q = q.data();
      item.tokens = item.group = 1;
      item.first = kCount - 1;
      item.end = kCount;
      item.scale = 0.125f;
      item.pages = a.pages();
      const std::vector<float> want = attend(*kt->attention, exact, item);
      item.pages = b.pages();
      const std::vector<float> got = attend(*kt->attention, four, item);
      double sum = 0;
      for (std::size_t i = 0; i < got.size(); ++i) sum += (got[i] - want[i]) * (got[i] - want[i]);
      return std::sqrt(sum);
    };
    EXPECT_LT(error(true), 0.7 * error(false)) << kt->name;
  }
}

TEST(Attention, LayoutsSayWhatTheyCannotHold) {
  const auto odd = head_layout(Format::kQ4_0, Format::kF16, 80, false);
  ASSERT_FALSE(odd.ok());
  EXPECT_EQ(odd.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(odd.error().message.find("keys as q4_0 need a head size that is a multiple of 32"),
            std::string::npos)
      << odd.error().message;
  EXPECT_FALSE(head_layout(Format::kF16, Format::kQ4_K, 256, false).ok());
  EXPECT_FALSE(head_layout(Format::kF16, Format::kF16, 0, false).ok());
  EXPECT_FALSE(head_layout(Format::kF16, Format::kF16, 2048, false).ok());
  const auto l = head_layout(Format::kQ8_0, Format::kQ4_0, 96, true);
  ASSERT_OK(l);
  EXPECT_EQ(l.value().rotation, 32);
  EXPECT_EQ(l.value().bytes, 64u * 3 * (34 + 18));
}

}  // namespace
}  // namespace narrow::kernels
