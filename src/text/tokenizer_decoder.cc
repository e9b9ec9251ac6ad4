#include "text/tokenizer_decoder.h"

#include "text/tokenizer_unicode.h"

namespace narrow::text {
namespace {

std::string join(const std::vector<std::string>& parts) {
  std::string out;
  for (const std::string& p : parts) out += p;
  return out;
}

std::vector<std::string> byte_fallback(std::vector<std::string> tokens) {
  std::vector<std::string> out;
  std::string pending;
  const auto flush = [&] {
    if (pending.empty()) return;
    if (is_valid_utf8(pending)) {
      out.push_back(pending);
    } else {
      for (std::size_t i = 0; i < pending.size(); ++i) out.emplace_back(kReplacementChar);
    }
    pending.clear();
  };
  for (std::string& t : tokens) {
    const int b = parse_byte_token(t);
    if (b >= 0) {
      pending.push_back(static_cast<char>(b));
    } else {
      flush();
      out.push_back(std::move(t));
    }
  }
  flush();
  return out;
}

void strip(std::string& s, const DecodeStep& step) {
  const std::string& c = step.content;
  if (c.empty()) return;
  std::size_t begin = 0, end = s.size();
  for (int i = 0; i < step.start && s.compare(begin, c.size(), c) == 0; ++i) begin += c.size();
  for (int i = 0; i < step.stop && end >= begin + c.size() && s.compare(end - c.size(), c.size(), c) == 0;
       ++i) {
    end -= c.size();
  }
  s = s.substr(begin, end - begin);
}

Status replace_regex(const Regex& regex, const std::string& content, std::string& s) {
  std::vector<Span> matches;
  NARROW_TRY(regex.find_all(s, matches));
  std::string out;
  std::size_t i = 0;
  for (const Span& m : matches) {
    out.append(s, i, m.begin - i);
    out += content;
    i = m.end;
  }
  out.append(s, i);
  s = std::move(out);
  return {};
}

}  // namespace

Result<DecoderChain> DecoderChain::create(const std::vector<DecodeStep>& steps) {
  DecoderChain chain;
  for (const DecodeStep& spec : steps) {
    Step step{spec, nullptr};
    if (spec.kind == DecodeStep::Kind::kReplace && spec.is_regex) {
      NARROW_ASSIGN(Regex r, Regex::compile(spec.pattern));
      step.regex = std::make_shared<const Regex>(std::move(r));
    }
    chain.steps_.push_back(std::move(step));
  }
  return chain;
}

Result<std::string> DecoderChain::run(std::vector<std::string> tokens) const {
  if (steps_.empty()) {
    std::string out;
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      if (i > 0) out += ' ';
      out += tokens[i];
    }
    return out;
  }
  for (const Step& step : steps_) {
    const DecodeStep& spec = step.spec;
    switch (spec.kind) {
      case DecodeStep::Kind::kByteLevel: {
        std::string bytes;
        for (const std::string& t : tokens) {
          if (!printable_to_bytes(t, bytes)) bytes += t;
        }
        tokens = {sanitize_utf8(bytes)};
        break;
      }
      case DecodeStep::Kind::kByteFallback:
        tokens = byte_fallback(std::move(tokens));
        break;
      case DecodeStep::Kind::kReplace:
        for (std::string& t : tokens) {
          if (step.regex) {
            NARROW_TRY(replace_regex(*step.regex, spec.content, t));
          } else {
            replace_all(t, spec.pattern, spec.content);
          }
        }
        break;
      case DecodeStep::Kind::kFuse:
        tokens = {join(tokens)};
        break;
      case DecodeStep::Kind::kStrip:
        for (std::string& t : tokens) strip(t, spec);
        break;
      case DecodeStep::Kind::kMetaspace:
        for (std::size_t i = 0; i < tokens.size(); ++i) {
          replace_all(tokens[i], kMetaChar, i == 0 && spec.drop_first ? "" : " ");
        }
        break;
    }
  }
  return join(tokens);
}

}  // namespace narrow::text
