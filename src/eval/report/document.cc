#include "eval/report/document.h"

#include <nlohmann/json.hpp>
#include <type_traits>

namespace narrow::eval::report {
namespace {

using Json = nlohmann::ordered_json;

const char* name_of(NumberFormat f) {
  switch (f) {
    case NumberFormat::kPlain:
      break;
    case NumberFormat::kInteger:
      return "integer";
    case NumberFormat::kPercent:
      return "percent";
    case NumberFormat::kSigned:
      return "+plain";
    case NumberFormat::kBytes:
      return "bytes";
    case NumberFormat::kMoreBytes:
      return "+bytes";
    case NumberFormat::kMorePercent:
      return "+percent";
  }
  return "plain";
}

const char* name_of(Mark m) {
  switch (m) {
    case Mark::kPoints:
      return "points";
    case Mark::kLine:
      break;
    case Mark::kBareLine:
      return "bare line";
    case Mark::kArea:
      return "area";
    case Mark::kBars:
      return "bars";
  }
  return "line";
}

Json json_of(const Axis& a) {
  Json j = {{"title", a.title}, {"format", name_of(a.format)}, {"log", a.log}};
  if (!a.categories.empty()) j["categories"] = a.categories;
  return j;
}

Json json_of(const Chart& c) {
  Json j = {{"kind", "chart"},   {"title", c.title},     {"note", c.note},         {"x", json_of(c.x)},
            {"y", json_of(c.y)}, {"stacked", c.stacked}, {"series", Json::array()}};
  for (const Series& s : c.series) {
    Json one = {{"name", s.name}, {"mark", name_of(s.mark)}};
    if (!s.x.empty()) one["x"] = s.x;
    one["y"] = s.y;
    if (!s.error.empty()) one["error"] = s.error;
    if (!s.labels.empty()) one["labels"] = s.labels;
    j["series"].push_back(std::move(one));
  }
  return j;
}

Json json_of(const Cell& cell) {
  return std::visit(
      [](const auto& c) -> Json {
        using T = std::decay_t<decltype(c)>;
        if constexpr (std::is_same_v<T, std::monostate>) {
          return nullptr;
        } else if constexpr (std::is_same_v<T, std::vector<Span>>) {
          Json spans = Json::array();
          for (const Span& s : c) {
            Json one = {{"text", s.text}};
            if (!s.style.empty()) one["style"] = s.style;
            spans.push_back(std::move(one));
          }
          return spans;
        } else {
          return c;
        }
      },
      cell);
}

Json json_of(const Table& t) {
  Json j = {{"kind", "table"},  {"title", t.title},         {"note", t.note},
            {"shown", t.shown}, {"columns", Json::array()}, {"rows", Json::array()}};
  for (const Column& c : t.columns) {
    j["columns"].push_back({{"title", c.title}, {"format", c.is_number ? name_of(c.format) : "text"}});
  }
  for (const auto& row : t.rows) {
    Json cells = Json::array();
    for (const Cell& c : row) cells.push_back(json_of(c));
    j["rows"].push_back(std::move(cells));
  }
  return j;
}

}  // namespace

std::string to_json(const Document& d) {
  Json j = {{"schema", "narrow-report-1"},
            {"title", d.title},
            {"subtitle", d.subtitle},
            {"facts", Json::array()},
            {"sections", Json::array()}};
  for (const auto& [name, value] : d.facts) j["facts"].push_back({{"name", name}, {"value", value}});
  for (const Section& s : d.sections) {
    Json one = {{"title", s.title}, {"group", s.group}, {"text", s.text}, {"items", Json::array()}};
    for (const auto& item : s.items) {
      one["items"].push_back(std::visit([](const auto& x) { return json_of(x); }, item));
    }
    j["sections"].push_back(std::move(one));
  }
  j["measurements"] = Json::parse(d.measurements_json);
  return j.dump(-1, ' ', true, Json::error_handler_t::replace);
}

}  // namespace narrow::eval::report
