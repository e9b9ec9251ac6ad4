// Texts as token ids -> the windows that a model is calibrated on.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "calib/walk.h"

namespace narrow::calib {

// A text cut into tokens, without BOS: one document for plain text, one per conversation for chats.
struct TokenText {
  std::string name;
  std::vector<std::vector<std::int32_t>> documents;
};

struct CutOptions {
  std::int64_t n_ctx = kMaxWindow;  // tokens of a window, BOS included; 2 to kMaxWindow
  std::int64_t max_tokens = 0;      // of all texts together; 0: all there are
  std::optional<std::int32_t> bos;  // begins every window
};

// What became of the tokens of one text.
struct TextUse {
  std::string name;
  std::int64_t available = 0;  // tokens
  std::int64_t used = 0;       // of them
  std::int64_t windows = 0;
  std::int64_t dropped() const { return available - used; }
};

struct CutTexts {
  TokenWindows windows;  // texts in order, windows in the order of their text
  std::vector<TextUse> texts;
};

// The budget is spread over the texts: an equal share each, and what a short text leaves goes to the others.
// Windows lie evenly over each text; of conversations, evenly chosen ones each begin a window of their own. A
// document shorter than a window is one short window. The end of a text that fills no window is dropped,
// unless it is all there is. kInvalidArgument: no token at all, or options out of range.
Result<CutTexts> cut_texts(std::span<const TokenText> texts, const CutOptions& options);

// One line: tokens asked for, there, used and dropped.
std::string describe(const CutTexts& cut, std::int64_t asked);

}  // namespace narrow::calib
