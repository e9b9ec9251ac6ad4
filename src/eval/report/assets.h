// Files that are part of the page, built into the binary.
#pragma once

#include <string_view>

namespace narrow::eval::report {

std::string_view page_html();  // with places for the others: see page.cc
std::string_view page_css();
std::string_view page_js();
std::string_view chart_js();  // Chart.js (MIT), as the distribution packages it

}  // namespace narrow::eval::report
