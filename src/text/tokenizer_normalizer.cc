#include "text/tokenizer_normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "text/tokenizer_unicode.h"

namespace narrow::text {
namespace {

bool is_ascii(std::string_view s) {
  return std::all_of(s.begin(), s.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

Result<std::string> unicode_form(std::string_view s, int options) {
  if (is_ascii(s)) return std::string(s);
  utf8proc_uint8_t* mapped = nullptr;
  const utf8proc_ssize_t n = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(s.data()),
                                          static_cast<utf8proc_ssize_t>(s.size()), &mapped,
                                          static_cast<utf8proc_option_t>(UTF8PROC_STABLE | options));
  if (n < 0) {
    std::free(mapped);
    return make_error(ErrorCode::kInternal, "Unicode normalization failed: {}", utf8proc_errmsg(n));
  }
  std::string out(reinterpret_cast<const char*>(mapped), static_cast<std::size_t>(n));
  std::free(mapped);
  return out;
}

std::string lowercase(std::string_view s) {
  std::string out;
  out.reserve(s.size());
  for (std::size_t i = 0; i < s.size(); i += utf8_lead_length(static_cast<unsigned char>(s[i]))) {
    const char32_t c = decode_utf8_at(s, i);
    if (c == 0x130) {
      out += "i\xcc\x87";  // the one character whose lower case is two
    } else {
      append_utf8(static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))), out);
    }
  }
  return out;
}

std::string_view strip(std::string_view s, bool left, bool right) {
  while (left && !s.empty() && is_white_space(decode_utf8_at(s, 0))) {
    s.remove_prefix(utf8_lead_length(static_cast<unsigned char>(s[0])));
  }
  while (right && !s.empty()) {
    std::size_t i = s.size() - 1;
    while (i > 0 && (static_cast<unsigned char>(s[i]) & 0xc0) == 0x80) --i;
    if (!is_white_space(decode_utf8_at(s, i))) break;
    s.remove_suffix(s.size() - i);
  }
  return s;
}

}  // namespace

Result<CharsMap> CharsMap::parse(std::string_view blob) {
  std::uint32_t bytes = 0;
  if (blob.size() < sizeof bytes) {
    return make_error(ErrorCode::kCorrupt, "precompiled_charsmap: {} bytes, no room for its size",
                      blob.size());
  }
  std::memcpy(&bytes, blob.data(), sizeof bytes);
  if (bytes % 4 != 0 || bytes > blob.size() - sizeof bytes) {
    return make_error(ErrorCode::kCorrupt, "precompiled_charsmap: array of {} bytes in {} bytes", bytes,
                      blob.size());
  }
  CharsMap map;
  map.units_.resize(bytes / 4);
  if (bytes > 0) std::memcpy(map.units_.data(), blob.data() + sizeof bytes, bytes);
  map.replacements_ = blob.substr(sizeof bytes + bytes);
  return map;
}

// A unit (darts-clone by S. Yata): bit 31 set: a value in bits 0-30. Else: bits 0-7 the label, bit 8 says
// that a value hangs below, bits 10-30 the offset to the children, shifted by 8 more when bit 9 is set.
std::size_t CharsMap::longest_prefix(std::string_view text, std::size_t& replacement) const {
  const auto offset = [](std::uint32_t unit) { return (unit >> 10) << ((unit & (1u << 9)) >> 6); };
  if (units_.empty()) return 0;
  std::size_t best = 0;
  std::uint32_t at = offset(units_[0]);
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    at ^= c;
    if (at >= units_.size()) break;
    const std::uint32_t unit = units_[at];
    if ((unit & ((1u << 31) | 0xff)) != c) break;
    at ^= offset(unit);
    if ((unit >> 8 & 1) && at < units_.size()) {
      best = i + 1;
      replacement = units_[at] & 0x7fffffff;
    }
  }
  return best;
}

void CharsMap::apply(std::string_view text, std::string& out) const {
  for (std::size_t i = 0; i < text.size();) {
    std::size_t replacement = 0;
    const std::size_t n = longest_prefix(text.substr(i), replacement);
    if (n > 0 && replacement < replacements_.size()) {
      out += replacements_.c_str() + replacement;  // ends at its NUL or with the string
      i += n;
    } else {
      const std::size_t k = utf8_lead_length(static_cast<unsigned char>(text[i]));
      out += text.substr(i, k);
      i += k;
    }
  }
}

Result<Normalizer> Normalizer::create(const std::vector<NormStep>& steps) {
  Normalizer n;
  for (const NormStep& spec : steps) {
    Step step{spec, nullptr, nullptr};
    if (spec.kind == NormStep::Kind::kReplace && spec.is_regex) {
      NARROW_ASSIGN(Regex r, Regex::compile(spec.pattern));
      step.regex = std::make_shared<const Regex>(std::move(r));
    }
    if (spec.kind == NormStep::Kind::kPrecompiled) {
      if (spec.content.empty()) continue;  // identity
      NARROW_ASSIGN(CharsMap m, CharsMap::parse(spec.content));
      step.charsmap = std::make_shared<const CharsMap>(std::move(m));
    }
    n.steps_.push_back(std::move(step));
  }
  return n;
}

Result<std::string> Normalizer::apply(std::string_view text) const {
  std::string s(text);
  for (const Step& step : steps_) {
    switch (step.spec.kind) {
      case NormStep::Kind::kNfc: {
        NARROW_ASSIGN(s, unicode_form(s, UTF8PROC_COMPOSE));
        break;
      }
      case NormStep::Kind::kNfd: {
        NARROW_ASSIGN(s, unicode_form(s, UTF8PROC_DECOMPOSE));
        break;
      }
      case NormStep::Kind::kNfkc: {
        NARROW_ASSIGN(s, unicode_form(s, UTF8PROC_COMPOSE | UTF8PROC_COMPAT));
        break;
      }
      case NormStep::Kind::kNfkd: {
        NARROW_ASSIGN(s, unicode_form(s, UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT));
        break;
      }
      case NormStep::Kind::kLowercase:
        s = lowercase(s);
        break;
      case NormStep::Kind::kPrepend:
        if (!s.empty()) s.insert(0, step.spec.content);
        break;
      case NormStep::Kind::kReplace:
        if (step.regex) {
          std::vector<Span> matches;
          NARROW_TRY(step.regex->find_all(s, matches));
          std::string out;
          std::size_t i = 0;
          for (const Span& m : matches) {
            out.append(s, i, m.begin - i);
            out += step.spec.content;
            i = m.end;
          }
          out.append(s, i);
          s = std::move(out);
        } else {
          replace_all(s, step.spec.pattern, step.spec.content);
        }
        break;
      case NormStep::Kind::kStrip:
        s = std::string(strip(s, step.spec.left, step.spec.right));
        break;
      case NormStep::Kind::kPrecompiled: {
        std::string out;
        step.charsmap->apply(s, out);
        s = std::move(out);
        break;
      }
    }
  }
  return s;
}

}  // namespace narrow::text
