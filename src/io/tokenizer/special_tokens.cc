#include "io/tokenizer/special_tokens.h"

#include <algorithm>
#include <set>
#include <span>
#include <unordered_map>

namespace narrow::io {
namespace {

using text::AddedToken;
using text::TokenizerSpec;
using text::TokenType;

// In order of preference for eot.
constexpr std::string_view kTurnEnds[] = {
    "<|eot_id|>", "<|im_end|>", "<|end|>",         "<end_of_turn>",         "<|endoftext|>",     "<EOT>",
    "_<EOT>",     "[EOT]",      "<|end_of_text|>", "<｜end▁of▁sentence｜>", "<end_of_utterance>"};
constexpr std::string_view kOtherEnds[] = {"<|return|>", "<|call|>", "<|flush|>",        "<|calls|>",
                                           "<|eom_id|>", "[EOS]",    "<|tool_response>", "<turn|>",
                                           "<eos>",      "[e~["};
// Fill-in-the-middle tokens that end the completion of a hole.
constexpr std::string_view kHoleEnds[] = {"<|fim_pad|>",  "<fim-pad>",     "<fim_pad>",
                                          "<|fim_repo|>", "<|repo_name|>", "<fim-repo>",
                                          "<REPO>",       "<reponame>",    "<|file_sep|>"};

void mark_special(TokenizerSpec& spec, std::int32_t id) {
  spec.types[static_cast<std::size_t>(id)] = TokenType::kControl;
  const auto it =
      std::find_if(spec.added.begin(), spec.added.end(), [&](const AddedToken& a) { return a.id == id; });
  if (it != spec.added.end()) {
    it->special = true;
  } else {
    AddedToken a;
    a.id = id;
    a.special = true;
    spec.added.push_back(a);
  }
}

}  // namespace

bool looks_special(std::string_view t) {
  if (t == "<pad>" || t == "<mask>" || t == "<2mass>" || t == "[@BOS@]") return true;
  return (t.starts_with("<|") && t.ends_with("|>")) || (t.starts_with("<｜") && t.ends_with("｜>")) ||
         (t.starts_with("<unused") && t.ends_with(">"));
}

void complete_special_tokens(TokenizerSpec& spec, bool mark) {
  std::unordered_map<std::string_view, std::int32_t> ids;
  ids.reserve(spec.tokens.size());
  for (std::size_t i = 0; i < spec.tokens.size(); ++i)
    ids.try_emplace(spec.tokens[i], static_cast<std::int32_t>(i));
  const auto find = [&](std::string_view t) {
    const auto it = ids.find(t);
    return it == ids.end() ? -1 : it->second;
  };
  const auto is_added = [&](std::int32_t id) {
    return std::any_of(spec.added.begin(), spec.added.end(), [&](const AddedToken& a) { return a.id == id; });
  };
  std::set<std::int32_t> ends(spec.end_tokens.begin(), spec.end_tokens.end());
  for (const auto& list :
       {std::span<const std::string_view>(kTurnEnds), std::span<const std::string_view>(kOtherEnds),
        std::span<const std::string_view>(kHoleEnds)}) {
    for (const std::string_view t : list) {
      const std::int32_t id = find(t);
      if (id < 0 || (!mark && !is_added(id))) continue;
      if (mark) mark_special(spec, id);
      ends.insert(id);
      if (!spec.eot && list.data() == kTurnEnds) spec.eot = id;
    }
  }
  // "</s>" is plain text in many vocabularies, and an end only where the file marks it.
  const std::int32_t s = find("</s>");
  if (s >= 0 && spec.types[static_cast<std::size_t>(s)] == TokenType::kControl) ends.insert(s);
  if (spec.eos) ends.insert(*spec.eos);
  if (spec.eot) ends.insert(*spec.eot);

  // Harmony (gpt-oss) and Solar end a message with <|end|> and go on; the turn ends with another token.
  const bool harmony = (find("<|return|>") >= 0 && find("<|call|>") >= 0) ||
                       (find("<|calls|>") >= 0 && find("<|flush|>") >= 0);
  if (harmony && find("<|end|>") >= 0) {
    ends.erase(find("<|end|>"));
    if (spec.eot == find("<|end|>")) spec.eot.reset();
  }
  std::erase_if(
      ends, [&](std::int32_t id) { return id < 0 || static_cast<std::size_t>(id) >= spec.tokens.size(); });
  spec.end_tokens.assign(ends.begin(), ends.end());
}

}  // namespace narrow::io
