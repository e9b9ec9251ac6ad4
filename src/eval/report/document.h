// A report as data: sections of text, charts and tables, which the page draws without knowing what they show.
// The JSON form is described in docs/report.md.
#pragma once

#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace narrow::eval::report {

// How a number is written, on axes, in tooltips and in tables.
enum class NumberFormat {
  kPlain,       // four significant digits
  kInteger,     // no digits after the point
  kPercent,     // 0.1 is "10 %"
  kSigned,      // kPlain with a plus sign
  kBytes,       // powers of ten: "1.2 MB"
  kMoreBytes,   // kBytes with a plus sign
  kMorePercent  // kPercent with a plus sign
};

struct Axis {
  std::string title;
  NumberFormat format = NumberFormat::kPlain;
  bool log = false;
  std::vector<std::string> categories;  // x axis only; empty: x is a number
};

enum class Mark {
  kPoints,
  kLine,      // with a point at each value
  kBareLine,  // without
  kArea,      // steps filled down to 0: a histogram's outline
  kBars,      // categories only
};

// Values that are not finite are gaps.
struct Series {
  std::string name;
  Mark mark = Mark::kLine;
  std::vector<double> x;  // empty with categories
  std::vector<double> y;
  std::vector<double> error;        // half-length of each value's error bar; empty: none
  std::vector<std::string> labels;  // drawn beside the points; empty: none
};

struct Chart {
  std::string title, note;
  Axis x, y;
  bool stacked = false;  // bars stand on each other
  std::vector<Series> series;
};

// A piece of a cell's text. Styles: "" plain, "mark" highlighted, "dim", "strong", "code".
struct Span {
  std::string text, style;
};
using Cell = std::variant<std::monostate, double, std::string, std::vector<Span>>;

struct Column {
  std::string title;
  bool is_number = true;
  NumberFormat format = NumberFormat::kPlain;
};

struct Table {
  std::string title, note;
  std::vector<Column> columns;
  std::vector<std::vector<Cell>> rows;
  std::size_t shown = 0;  // rows shown before "show all"; 0: all
};

struct Section {
  std::string title;
  std::string group;  // sections of one group share a part of the page that opens on demand; "": always open
  std::vector<std::string> text;  // paragraphs
  std::vector<std::variant<Chart, Table>> items;
};

struct Document {
  std::string title, subtitle;
  std::vector<std::pair<std::string, std::string>> facts;
  std::vector<Section> sections;
  // What was measured, for programs: a JSON object.
  std::string measurements_json = "{}";
};

// One JSON object in ASCII, without line breaks in it; bytes that are not UTF-8 become U+FFFD.
std::string to_json(const Document& document);

// The page around such an object. It works from a file, without a network.
std::string to_html(const std::string& document_json);

}  // namespace narrow::eval::report
