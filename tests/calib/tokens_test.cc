#include "calib/tokens.h"

#include <numeric>

#include "testing/testing.h"

namespace narrow::calib {
namespace {

// Tokens that say where they stand.
TokenText text(const std::string& name, std::vector<std::int32_t> lengths) {
  TokenText t = {name, {}};
  std::int32_t next = 0;
  for (const std::int32_t n : lengths) {
    std::vector<std::int32_t>& d = t.documents.emplace_back(static_cast<std::size_t>(n));
    std::iota(d.begin(), d.end(), next);
    next += n;
  }
  return t;
}

CutOptions options(std::int64_t n_ctx, std::int64_t max_tokens, std::optional<std::int32_t> bos = {}) {
  CutOptions o;
  o.n_ctx = n_ctx;
  o.max_tokens = max_tokens;
  o.bos = bos;
  return o;
}

TEST(CutTexts, ABudgetIsSpreadOverTextsAndWindowsOverEachText) {
  const std::vector<TokenText> texts = {text("long", {10000}), text("short", {100}), text("other", {5000})};
  ASSERT_OK_AND_ASSIGN(const CutTexts cut, cut_texts(texts, options(50, 1100)));
  ASSERT_EQ(cut.texts.size(), 3u);
  // The short text gives 100, the others share the other 1000.
  EXPECT_EQ(cut.texts[0].used, 500);
  EXPECT_EQ(cut.texts[1].used, 100);
  EXPECT_EQ(cut.texts[2].used, 500);
  EXPECT_EQ(cut.texts[0].dropped(), 9500);
  EXPECT_EQ(cut.windows.size(), 1100);
  ASSERT_EQ(cut.windows.lengths, std::vector<std::int64_t>(22, 50));
  // Ten windows of the long text, 950 tokens of gap between their starts, half of it at both ends.
  for (std::size_t i = 0; i < 10; ++i)
    EXPECT_EQ(cut.windows.tokens[50 * i], 475 + 1000 * static_cast<int>(i));
  EXPECT_EQ(describe(cut, 1100),
            "calibration: 1100 tokens asked for, 15100 there, 1100 used in 22 windows, 14000 dropped");
}

TEST(CutTexts, EveryWindowBeginsWithBosAndTakesOneTokenLess) {
  ASSERT_OK_AND_ASSIGN(const CutTexts cut, cut_texts(std::vector{text("a", {95})}, options(10, 0, 7777)));
  ASSERT_EQ(cut.windows.lengths, std::vector<std::int64_t>(10, 10));
  for (std::size_t i = 0; i < 10; ++i) {
    EXPECT_EQ(cut.windows.tokens[10 * i], 7777);
    EXPECT_NE(cut.windows.tokens[10 * i + 1], 7777);
  }
  EXPECT_EQ(cut.texts[0].used, 90);
  EXPECT_EQ(cut.texts[0].dropped(), 5);
}

TEST(CutTexts, AShortTextIsOneShortWindow) {
  for (const std::int32_t n : {1, 5, 10}) {
    ASSERT_OK_AND_ASSIGN(const CutTexts cut, cut_texts(std::vector{text("a", {n})}, options(10, 4)));
    EXPECT_EQ(cut.windows.lengths, std::vector<std::int64_t>{n});
  }
}

TEST(CutTexts, ConversationsBeginWindowsOfTheirOwn) {
  const std::vector<TokenText> texts = {text("chats", {4, 25, 3, 10})};
  ASSERT_OK_AND_ASSIGN(const CutTexts all, cut_texts(texts, options(10, 0)));
  EXPECT_EQ(all.windows.lengths, (std::vector<std::int64_t>{4, 10, 10, 5, 3, 10}));
  EXPECT_EQ(all.texts[0].dropped(), 0);
  ASSERT_OK_AND_ASSIGN(const CutTexts half, cut_texts(texts, options(10, 21)));
  EXPECT_EQ(half.windows.lengths, (std::vector<std::int64_t>{10, 5, 10}));
  EXPECT_EQ(half.texts[0].used, 25);
}

TEST(CutTexts, MoreTextsThanTokensLeaveSomeOut) {
  const std::vector<TokenText> texts = {text("a", {9}), text("empty", {0}), text("b", {9})};
  ASSERT_OK_AND_ASSIGN(const CutTexts cut, cut_texts(texts, options(10, 1)));
  EXPECT_EQ(cut.windows.lengths.size(), 1u);
  EXPECT_NE(describe(cut, 1).find("nothing used of "), std::string::npos);
}

TEST(CutTexts, OptionsOutOfRangeAndNoTokensAreRefused) {
  const std::vector<TokenText> some = {text("a", {9})};
  for (const std::int64_t n_ctx : {1, 0, -5, 513}) EXPECT_FALSE(cut_texts(some, options(n_ctx, 0)).ok());
  EXPECT_FALSE(cut_texts(some, options(10, -1)).ok());
  const auto none = cut_texts(std::vector{text("a", {0}), text("b", {})}, options(10, 0));
  ASSERT_FALSE(none.ok());
  EXPECT_EQ(none.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(none.error().message.find("no token"), std::string::npos);
}

}  // namespace
}  // namespace narrow::calib
