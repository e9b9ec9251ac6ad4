// str(), repr() and json.dumps().
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "text/jinja/interpreter.h"
#include "text/jinja/unicode.h"
#include "text/jinja/value.h"

namespace narrow::text::jinja {

using Flavor = SeqObj::Flavor;

std::string repr_float(double d) {
  if (std::isnan(d)) return "nan";
  if (std::isinf(d)) return d < 0 ? "-inf" : "inf";
  // The shortest digits that read back as d; positional unless the exponent is < -4 or >= 16.
  char buffer[64];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, d, std::chars_format::scientific).ptr;
  const std::string sci(buffer, end);
  const std::size_t e = sci.find('e');
  const int exponent = std::stoi(sci.substr(e + 1));
  if (exponent < -4 || exponent >= 16) {
    return fmt::format("{}e{}{:02}", sci.substr(0, e), exponent < 0 ? '-' : '+', std::abs(exponent));
  }
  const auto fixed_end = std::to_chars(buffer, buffer + sizeof buffer, d, std::chars_format::fixed).ptr;
  std::string fixed(buffer, fixed_end);
  if (fixed.find('.') == std::string::npos) fixed += ".0";
  return fixed;
}

std::string repr_str(std::string_view s) {
  const char quote = s.find('\'') != s.npos && s.find('"') == s.npos ? '"' : '\'';
  std::string out(1, quote);
  for (std::size_t pos = 0; pos < s.size();) {
    const std::size_t start = pos;
    const char32_t c = next_code_point(s, pos);
    if (c == static_cast<char32_t>(quote) || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (is_printable(c)) {
      out += s.substr(start, pos - start);
    } else if (c < 0x100) {
      out += fmt::format("\\x{:02x}", static_cast<unsigned>(c));
    } else if (c < 0x10000) {
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    } else {
      out += fmt::format("\\U{:08x}", static_cast<unsigned>(c));
    }
  }
  return out + quote;
}

namespace {

void append_items(std::string& out, const Values& items, std::string_view open, std::string_view close,
                  Budget& budget) {
  out += open;
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out += ", ";
    append_repr(out, items[i], budget);
  }
  out += close;
}

void append_seq(std::string& out, const SeqObj& s, Budget& budget) {
  switch (s.flavor) {
    case Flavor::kList:
      return append_items(out, s.items, "[", "]", budget);
    case Flavor::kTuple:
      return append_items(out, s.items, "(", s.items.size() == 1 ? ",)" : ")", budget);
    case Flavor::kKeys:
      return append_items(out, s.items, "dict_keys([", "])", budget);
    case Flavor::kValues:
      return append_items(out, s.items, "dict_values([", "])", budget);
    case Flavor::kItems:
      return append_items(out, s.items, "dict_items([", "])", budget);
    case Flavor::kRange:
    case Flavor::kIterator:
      out += s.label;
  }
}

}  // namespace

void append_repr(std::string& out, const Value& v, Budget& budget) {
  const std::size_t before = out.size();
  budget.step();
  switch (v.kind()) {
    case Kind::kUndefined:
      out += "Undefined";
      break;
    case Kind::kNone:
      out += "None";
      break;
    case Kind::kBool:
      out += v.as_bool() ? "True" : "False";
      break;
    case Kind::kInt:
      out += fmt::format("{}", v.as_int());
      break;
    case Kind::kFloat:
      out += repr_float(v.as_float());
      break;
    case Kind::kStr:
      budget.bytes(v.text().size());
      out += v.is_markup() ? "Markup(" + repr_str(v.text()) + ")" : repr_str(v.text());
      break;
    case Kind::kSeq:
      append_seq(out, v.seq(), budget);
      return;  // its elements were charged
    case Kind::kDict: {
      out += '{';
      bool first = true;
      for (const auto& [k, x] : v.dict().items) {
        if (!first) out += ", ";
        first = false;
        append_repr(out, k, budget);
        out += ": ";
        append_repr(out, x, budget);
      }
      out += '}';
      return;
    }
    case Kind::kFunction:
      out += "<function " + v.function().name + ">";
      break;
    case Kind::kNamespace:
      // Namespaces may contain each other, so their contents are not followed.
      out += "<Namespace>";
      break;
    case Kind::kMacro:
      out += "<Macro " + repr_str(v.macro().name) + ">";
      break;
    case Kind::kLoop:
      out += fmt::format("<LoopContext {}/{}>", v.loop().index0 + 1, v.loop().items.size());
      break;
  }
  budget.bytes(out.size() - before);
}

std::string repr(const Value& v, Budget& budget) {
  std::string out;
  append_repr(out, v, budget);
  return out;
}

std::string to_str(const Value& v, Budget& budget) {
  if (v.is_str()) return v.text();
  if (v.is_undefined()) return {};
  return repr(v, budget);
}

namespace {

class JsonWriter {
 public:
  JsonWriter(const JsonStyle& style, Budget& budget) : style_(style), budget_(budget) {}

  void write(const Value& v, std::size_t level) {
    budget_.step();
    switch (v.kind()) {
      case Kind::kNone:
        out += "null";
        break;
      case Kind::kBool:
        out += v.as_bool() ? "true" : "false";
        break;
      case Kind::kInt:
        out += fmt::format("{}", v.as_int());
        break;
      case Kind::kFloat:
        out += number(v.as_float());
        break;
      case Kind::kStr:
        string(v.text());
        break;
      case Kind::kDict:
        object(v.dict(), level);
        break;
      case Kind::kSeq:
        if (is_list_or_tuple(v)) {
          array(v.seq().items, level);
          break;
        }
        [[fallthrough]];
      default:
        if (v.is_undefined()) fail("{}, so it cannot become JSON", v.undefined_reason());
        fail("a value of type {} cannot become JSON", type_name(v));
    }
  }

  std::string out;

 private:
  static std::string number(double d) {
    if (std::isnan(d)) return "NaN";
    if (std::isinf(d)) return d < 0 ? "-Infinity" : "Infinity";
    return repr_float(d);
  }

  void string(std::string_view s) {
    budget_.bytes(s.size() + 2);
    out += '"';
    for (std::size_t pos = 0; pos < s.size();) {
      const std::size_t start = pos;
      const char32_t c = next_code_point(s, pos);
      switch (c) {
        case '"':
          out += "\\\"";
          break;
        case '\\':
          out += "\\\\";
          break;
        case '\n':
          out += "\\n";
          break;
        case '\r':
          out += "\\r";
          break;
        case '\t':
          out += "\\t";
          break;
        case '\b':
          out += "\\b";
          break;
        case '\f':
          out += "\\f";
          break;
        default:
          if (c < 0x20 || (style_.ensure_ascii && c > 0x7E && c < 0x10000)) {
            out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
          } else if (style_.ensure_ascii && c >= 0x10000) {
            const unsigned x = static_cast<unsigned>(c) - 0x10000;
            out += fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + (x >> 10), 0xDC00 + (x & 0x3FF));
          } else {
            out += s.substr(start, pos - start);
          }
      }
    }
    out += '"';
  }

  void key(const Value& k) {
    switch (k.kind()) {
      case Kind::kStr:
        return string(k.text());
      case Kind::kNone:
        return string("null");
      case Kind::kBool:
        return string(k.as_bool() ? "true" : "false");
      case Kind::kInt:
        return string(fmt::format("{}", k.as_int()));
      case Kind::kFloat:
        return string(number(k.as_float()));
      default:
        fail("a key of type {} cannot become JSON", type_name(k));
    }
  }

  void line(std::size_t level) {
    if (!style_.indent) return;
    budget_.bytes(level + 1, style_.indent->size() + 1);
    out += '\n';
    for (std::size_t i = 0; i < level; ++i) out += *style_.indent;
  }

  void separate(bool first, std::size_t level) {
    if (!first) {
      budget_.bytes(style_.item_separator.size());
      out += style_.item_separator;
    }
    line(level);
  }

  void array(const Values& items, std::size_t level) {
    out += '[';
    for (std::size_t i = 0; i < items.size(); ++i) {
      separate(i == 0, level + 1);
      write(items[i], level + 1);
    }
    if (!items.empty()) line(level);
    out += ']';
  }

  void object(const DictObj& d, std::size_t level) {
    std::vector<const std::pair<Value, Value>*> items;
    for (const auto& item : d.items) items.push_back(&item);
    if (style_.sort_keys) {
      std::stable_sort(items.begin(), items.end(),
                       [&](const auto* a, const auto* b) { return less(a->first, b->first, budget_); });
    }
    out += '{';
    for (std::size_t i = 0; i < items.size(); ++i) {
      separate(i == 0, level + 1);
      key(items[i]->first);
      budget_.bytes(style_.key_separator.size());
      out += style_.key_separator;
      write(items[i]->second, level + 1);
    }
    if (!items.empty()) line(level);
    out += '}';
  }

  const JsonStyle& style_;
  Budget& budget_;
};

}  // namespace

std::string to_json(const Value& v, const JsonStyle& style, Budget& budget) {
  JsonWriter writer(style, budget);
  writer.write(v, 0);
  return std::move(writer.out);
}

}  // namespace narrow::text::jinja
