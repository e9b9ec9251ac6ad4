#include "eval/report/assets.h"

// The assembler takes a file in as it is: no step before, the same with every compiler and for every target.
// CMakeLists.txt gives the paths and makes this file depend on what they hold.
#define NARROW_ASSET(symbol, path)                                                   \
  asm(".pushsection .rodata\n"                                                       \
      ".global narrow_asset_" #symbol "\nnarrow_asset_" #symbol ":\n.incbin \"" path \
      "\"\n"                                                                         \
      ".global narrow_asset_" #symbol "_end\nnarrow_asset_" #symbol                  \
      "_end:\n.byte 0\n"                                                             \
      ".popsection\n");                                                              \
  extern "C" const char narrow_asset_##symbol[];                                     \
  extern "C" const char narrow_asset_##symbol##_end[]

NARROW_ASSET(page_html, NARROW_REPORT_FOLDER "/page.html");
NARROW_ASSET(page_css, NARROW_REPORT_FOLDER "/page.css");
NARROW_ASSET(page_js, NARROW_REPORT_FOLDER "/page.js");
NARROW_ASSET(chart_js, NARROW_CHART_JS);

namespace narrow::eval::report {
namespace {

std::string_view between(const char* begin, const char* end) {
  return {begin, static_cast<std::size_t>(end - begin)};
}

}  // namespace

std::string_view page_html() { return between(narrow_asset_page_html, narrow_asset_page_html_end); }
std::string_view page_css() { return between(narrow_asset_page_css, narrow_asset_page_css_end); }
std::string_view page_js() { return between(narrow_asset_page_js, narrow_asset_page_js_end); }
std::string_view chart_js() { return between(narrow_asset_chart_js, narrow_asset_chart_js_end); }

}  // namespace narrow::eval::report
