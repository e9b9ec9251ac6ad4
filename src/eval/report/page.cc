#include <array>
#include <string_view>

#include "eval/report/assets.h"
#include "eval/report/document.h"

namespace narrow::eval::report {
namespace {

// Inside a script element nothing but "<" could end it or change how it is read ("</script", "<!--"); in JSON
// it occurs in strings only, where it may be written as an escape.
std::string safe_in_script(std::string_view json) {
  std::string out;
  out.reserve(json.size());
  for (const char c : json) {
    if (c == '<') {
      out += "\\u003c";
    } else {
      out += c;
    }
  }
  return out;
}

}  // namespace

std::string to_html(const std::string& document_json) {
  const std::string data = safe_in_script(document_json);
  struct Part {
    std::string_view mark, content;
  };
  // In the order of the page.
  const std::array<Part, 4> parts = {
      {{"{{css}}", page_css()}, {"{{chart.js}}", chart_js()}, {"{{data}}", data}, {"{{js}}", page_js()}}};
  std::string out;
  std::string_view rest = page_html();
  out.reserve(rest.size() + page_css().size() + chart_js().size() + data.size() + page_js().size());
  for (const Part& p : parts) {
    const std::size_t at = rest.find(p.mark);
    if (at == std::string_view::npos) continue;
    out.append(rest.substr(0, at)).append(p.content);
    rest.remove_prefix(at + p.mark.size());
  }
  out.append(rest);
  return out;
}

}  // namespace narrow::eval::report
