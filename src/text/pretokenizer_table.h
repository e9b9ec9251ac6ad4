// The splitting rules behind the names of GGUF's tokenizer.ggml.pre, as llama.cpp knows them.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer_spec.h"

namespace narrow::text {

struct PreRule {
  std::string_view name;
  std::vector<std::string_view> patterns;  // applied one after another; matches and gaps both stay
  bool ignore_merges = false;
  bool add_bos = false;      // where the file does not say
  bool clean_spaces = true;  // transformers' clean-up, where the file does not say
};

std::span<const PreRule> pre_rules();
const PreRule* find_pre_rule(std::string_view name);  // null: unknown

// The steps that a rule stands for, the final byte step included.
std::vector<PreStep> pre_steps(const PreRule& rule);

// The name under which llama.cpp splits as `spec` does; empty when there is none. Compares patterns in
// canonical form, then, for patterns written differently, the words that both make of a text of hard cases.
std::string find_pre_name(const TokenizerSpec& spec);

}  // namespace narrow::text
