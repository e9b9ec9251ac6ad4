#include <fmt/format.h>
#include <fmt/ranges.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/text.h"

namespace narrow::cli {
namespace {

using Json = nlohmann::ordered_json;

struct Listing {
  Table table;
  Json json = Json::array();
};

Listing types() {
  Listing l{Table({"type", ">bpw", ">block", ">bytes", "read", "write", "storage"})};
  for (const TypeRow& r : list_types()) {
    l.table.add({r.name, fmt::format("{:.4g}", r.bpw), fmt::format("{}", r.block_size),
                 fmt::format("{}", r.block_bytes), r.can_read ? "yes" : "no", r.can_write ? "yes" : "no",
                 r.description});
    l.json.push_back({{"name", r.name},
                      {"bpw", r.bpw},
                      {"block_size", r.block_size},
                      {"block_bytes", r.block_bytes},
                      {"read", r.can_read},
                      {"write", r.can_write},
                      {"description", r.description}});
  }
  return l;
}

Listing mixes() {
  Listing l{Table({"mix", "base type", ">bpw on an 8B Llama", "what it is"})};
  for (const MixRow& r : list_mixes()) {
    l.table.add({r.name, r.base_type, fmt::format("{:.2f}", r.typical_bpw), r.description});
    l.json.push_back({{"name", r.name},
                      {"base_type", r.base_type},
                      {"typical_bpw", r.typical_bpw},
                      {"description", r.description}});
  }
  return l;
}

Listing methods() {
  Listing l{Table({"method", "calibration", "what it does"})};
  for (const MethodRow& r : list_methods()) {
    l.table.add({r.name, r.needs_calibration ? "needed" : "none", r.description});
    l.json.push_back(
        {{"name", r.name}, {"needs_calibration", r.needs_calibration}, {"description", r.description}});
  }
  return l;
}

Listing architectures() {
  Listing l{Table({"architecture (GGUF)", "model_type (config.json)"})};
  for (const ArchRow& r : list_architectures()) {
    l.table.add({r.name, fmt::format("{}", fmt::join(r.hf_model_types, ", "))});
    l.json.push_back({{"name", r.name}, {"hf_model_types", r.hf_model_types}});
  }
  return l;
}

struct Choice {
  std::string_view name;
  Listing (*make)();
};
constexpr Choice kChoices[] = {
    {"mixes", mixes}, {"types", types}, {"methods", methods}, {"architectures", architectures}};

struct ListArgs {
  std::string what;
  bool markdown = false, json = false;
};

void run(const ListArgs& a) {
  Json all = Json::object();
  bool first = true;
  for (const Choice& c : kChoices) {
    if (!a.what.empty() && a.what != c.name) continue;
    const Listing l = c.make();
    if (a.json) {
      all[std::string(c.name)] = l.json;
      continue;
    }
    fmt::print("{}{}", first ? "" : "\n", a.markdown ? l.table.markdown() : l.table.plain());
    first = false;
  }
  if (a.json) fmt::print("{}\n", all.dump(2));
}

}  // namespace

void add_list(CLI::App& app, Context& /*context*/) {
  CLI::App* sub = app.add_subcommand("list", "Show the types, mixes, methods and architectures narrow knows");
  sub->footer(
      "Examples:\n"
      "  narrow list mixes\n"
      "  narrow list types --markdown\n"
      "  narrow list --json");
  auto args = std::make_shared<ListArgs>();
  std::vector<std::string> names;
  for (const Choice& c : kChoices) names.emplace_back(c.name);
  sub->add_option("what", args->what, "mixes, types, methods or architectures; all when left out")
      ->check(CLI::IsMember(names));
  CLI::Option* markdown = sub->add_flag("--markdown", args->markdown, "As Markdown tables");
  sub->add_flag("--json", args->json, "As JSON")->excludes(markdown);
  sub->callback([args] { run(*args); });
}

}  // namespace narrow::cli
