// Options of training as command line options, from the lists in narrow/train_fields.h.
#pragma once

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "narrow/train_fields.h"

namespace narrow::cli {

// "--lr-scales"; positional and short names where there are such.
inline std::string option_names(std::string name) {
  std::replace(name.begin(), name.end(), '_', '-');
  if (name == "source" || name == "config") return name + ",--" + name;
  if (name == "output") return "-o,--output";
  if (name == "type") return "-t,--type";
  return "--" + name;
}

template <class T>
CLI::Option* add_field(CLI::App& sub, const char* name, T& member, const char* help, Choices choices) {
  const std::string names = option_names(name);
  CLI::Option* option = nullptr;
  if constexpr (std::is_same_v<T, bool>) {
    // Either way, so that the command line can undo what a recipe says.
    option = sub.add_flag(names + ",!--no-" + names.substr(2), member, help);
  } else {
    option = sub.add_option(names, member, help);
    if constexpr (std::is_arithmetic_v<T>) option->capture_default_str();
    if constexpr (std::is_same_v<T, std::string>) {
      if (!member.empty()) option->capture_default_str();
      std::vector<std::string> words;
      for (const std::string_view c : choices) {
        if (!c.empty()) words.emplace_back(c);
      }
      if (!words.empty()) option->check(CLI::IsMember(words));
    }
  }
  return option;
}

// All options of `options`, and --recipe, whose file is read before any other option is set: what the command
// line says wins. `status` is what became of the recipe.
template <class Options>
void add_fields(CLI::App& sub, Options& options, Status& status) {
  // CLI11 applies options in the order in which they were added.
  sub.add_option_function<std::filesystem::path>(
      "--recipe",
      [&options, &status](const std::filesystem::path& file) { status = read_recipe(file, options); },
      "Options from a JSON file, e.g. {\"lr\": 1e-4, \"steps\": 400}; the command line wins");
  visit_fields(options, [&sub](const char* name, auto& member, const char* help, Choices choices = {}) {
    add_field(sub, name, member, help, choices);
  });
}

}  // namespace narrow::cli
