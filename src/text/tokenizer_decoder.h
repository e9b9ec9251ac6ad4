// Token texts back to text, by the steps of Hugging Face's decoders.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "text/tokenizer_regex.h"
#include "text/tokenizer_spec.h"

namespace narrow::text {

class DecoderChain {
 public:
  static Result<DecoderChain> create(const std::vector<DecodeStep>& steps);
  // Without any step the texts are joined by spaces, as the tokenizers library does.
  Result<std::string> run(std::vector<std::string> tokens) const;

 private:
  struct Step {
    DecodeStep spec;
    std::shared_ptr<const Regex> regex;
  };
  std::vector<Step> steps_;
};

}  // namespace narrow::text
