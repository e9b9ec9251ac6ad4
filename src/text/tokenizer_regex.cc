#include "text/tokenizer_regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>

#include "text/tokenizer_unicode.h"

namespace narrow::text {
namespace {

constexpr std::uint32_t kMatchLimit = 20'000'000;
constexpr std::size_t kJitStackStart = 64 << 10, kJitStackMax = 16 << 20;
constexpr std::uint32_t kHeapLimitKib = 64 << 10;
constexpr std::string_view kSpaces =
    R"(\x{09}-\x{0d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";

// Alphabetic characters, marks, numbers, connectors; PCRE2's own \w lacks the marks.
constexpr std::string_view kWord = R"(\p{L}\p{M}\p{N}\p{Pc}\x{24b6}-\x{24e9})";

// What one thread needs to match; patterns themselves are shared between threads.
struct MatchState {
  pcre2_match_data* data = pcre2_match_data_create(16, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(kJitStackStart, kJitStackMax, nullptr);
  MatchState() {
    if (!context) return;
    pcre2_set_match_limit(context, kMatchLimit);
    pcre2_set_heap_limit(context, kHeapLimitKib);
    if (stack) pcre2_jit_stack_assign(context, nullptr, stack);
  }
  MatchState(const MatchState&) = delete;
  MatchState& operator=(const MatchState&) = delete;
  ~MatchState() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    pcre2_jit_stack_free(stack);
  }
};

std::string error_text(int code) {
  PCRE2_UCHAR buffer[160] = {};
  pcre2_get_error_message(code, buffer, sizeof buffer);
  return reinterpret_cast<const char*>(buffer);
}

// End (after the bracket) of the set that opens at p[i] == '['; npos when it never closes.
std::size_t set_end(std::string_view p, std::size_t i) {
  int depth = 0;
  bool first = false;
  for (; i < p.size(); ++i) {
    if (p[i] == '\\') {
      ++i;
      first = false;
    } else if (p[i] == '[') {
      ++depth;
      first = true;
      if (i + 1 < p.size() && p[i + 1] == '^') ++i;
    } else if (p[i] == ']' && !first) {
      if (--depth == 0) return i + 1;
    } else {
      first = false;
    }
  }
  return std::string_view::npos;
}

// One escape at p[i] == '\\' to `out`; returns the place after it.
std::size_t copy_escape(std::string_view p, std::size_t i, bool in_set, std::string& out) {
  if (i + 1 >= p.size()) {
    out += '\\';
    return i + 1;
  }
  const char c = p[i + 1];
  if (c == 's') {
    out += in_set ? std::string(kSpaces) : '[' + std::string(kSpaces) + ']';
    return i + 2;
  }
  if (c == 'w') {
    out += in_set ? std::string(kWord) : '[' + std::string(kWord) + ']';
    return i + 2;
  }
  if ((c == 'S' || c == 'W') && !in_set) {
    out += "[^" + std::string(c == 'S' ? kSpaces : kWord) + ']';
    return i + 2;
  }
  const std::size_t close =
      (c == 'p' || c == 'P') && i + 2 < p.size() && p[i + 2] == '{' ? p.find('}', i) : p.npos;
  if (close != p.npos) {
    std::string_view name = p.substr(i + 3, close - i - 3);
    const bool negated = !name.empty() && name[0] == '^';
    if (negated) name.remove_prefix(1);
    // One or two letters are a general category; longer names are scripts in the files seen.
    const bool script = name.size() > 2 && name != "Any" && name.find(':') == name.npos;
    out += p.substr(i, 3);
    if (negated) out += '^';
    if (script) out += "sc:";
    out += name;
    out += '}';
    return close + 1;
  }
  out += p.substr(i, 2);
  return i + 2;
}

std::string copy_set(std::string_view set) {
  // [A&&[^B]] or [A&&B]: a lookahead for the second set, then the first.
  const std::size_t both = set.find("&&");
  if (both != set.npos) {
    std::string_view right = set.substr(both + 2, set.size() - both - 3);
    std::string right_set =
        right.empty() || right[0] != '[' ? '[' + std::string(right) + ']' : std::string(right);
    return "(?:(?=" + copy_set(right_set) + ")" + copy_set(std::string(set.substr(0, both)) + "]") + ")";
  }
  std::string out = "[";
  std::size_t i = 1;
  if (i < set.size() && set[i] == '^') out += set[i++];
  while (i + 1 < set.size()) {
    if (set[i] == '\\') {
      i = copy_escape(set, i, true, out);
    } else if (set[i] == '[') {
      const std::size_t end = std::min(set_end(set, i), set.size());
      std::string_view inner = set.substr(i, end - i);
      // A set inside a set is a union; PCRE2 has [:posix:] there and nothing else.
      const std::string copied = inner.size() > 1 && inner[1] == ':' ? std::string(inner) : copy_set(inner);
      out += inner.size() > 1 && inner[1] == ':' ? copied : copied.substr(1, copied.size() - 2);
      i = end;
    } else {
      out += set[i++];
    }
  }
  return out + ']';
}

}  // namespace

std::string pcre_dialect(std::string_view p) {
  std::string out;
  for (std::size_t i = 0; i < p.size();) {
    if (p[i] == '\\') {
      i = copy_escape(p, i, false, out);
    } else if (p[i] == '[') {
      const std::size_t end = set_end(p, i);
      if (end == p.npos) return std::string(p);  // PCRE2 will say what is wrong
      out += copy_set(p.substr(i, end - i));
      i = end;
    } else {
      out += p[i++];
    }
  }
  return out;
}

Result<Regex> Regex::compile(std::string_view pattern) {
  const std::string dialect = pcre_dialect(pattern);
  int error = 0;
  PCRE2_SIZE at = 0;
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  if (!context) return make_error(ErrorCode::kOutOfMemory, "no memory to compile a tokenizer pattern");
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  // Oniguruma's ^ and $ are those of lines.
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(dialect.data()), dialect.size(),
                                   PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &error, &at, context);
  pcre2_compile_context_free(context);
  if (!code) {
    return make_error(ErrorCode::kCorrupt, "pre-tokenizer pattern '{}' does not compile: {} at offset {}",
                      dialect, error_text(error), at);
  }
  Regex r;
  r.pattern_ = pattern;
  r.code_ = std::shared_ptr<void>(code, [](void* c) { pcre2_code_free(static_cast<pcre2_code*>(c)); });
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);  // without JIT the interpreter runs: slower, the same result
  return r;
}

Status Regex::find_all(std::string_view subject, std::vector<Span>& out) const {
  static thread_local MatchState state;
  if (!state.data || !state.context)
    return make_error(ErrorCode::kOutOfMemory, "no memory for a tokenizer pattern");
  const auto* code = static_cast<const pcre2_code*>(code_.get());
  const auto* text = reinterpret_cast<PCRE2_SPTR>(subject.data());
  constexpr std::size_t kNone = static_cast<std::size_t>(-1);
  std::size_t from = 0, last_end = kNone;
  while (from <= subject.size()) {
    const int rc =
        pcre2_match(code, text, subject.size(), from, PCRE2_NO_UTF_CHECK, state.data, state.context);
    if (rc == PCRE2_ERROR_NOMATCH) break;
    if (rc < 0) {
      return make_error(ErrorCode::kCorrupt, "pre-tokenizer pattern '{}' gives up on this text: {}", pattern_,
                        error_text(rc));
    }
    const PCRE2_SIZE* v = pcre2_get_ovector_pointer(state.data);
    const Span m{v[0], v[1]};
    if (m.begin == m.end && m.begin == last_end) {
      from = m.end < subject.size() ? m.end + utf8_lead_length(static_cast<unsigned char>(subject[m.end]))
                                    : m.end + 1;
      continue;
    }
    out.push_back(m);
    from = last_end = m.end;
  }
  return {};
}

std::string Regex::escape(std::string_view literal) {
  std::string out;
  for (const char c : literal) {
    if (std::string_view(R"(\.+*?()|[]{}^$#&-~)").find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
}

}  // namespace narrow::text
