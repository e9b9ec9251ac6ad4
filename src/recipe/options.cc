#include "recipe/options.h"

#include <algorithm>
#include <numeric>
#include <set>
#include <string_view>
#include <type_traits>

#include "base/atomic_file.h"
#include "base/result.h"
#include "io/hf_config/json_text.h"
#include "narrow/train_fields.h"

namespace narrow::recipe {
namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

constexpr std::uint64_t kMaxRecipeBytes = 1 << 20;

constexpr std::string_view kNotOfTheResult[] = {"output",           "hf_output",      "checkpoint",
                                                "checkpoint_every", "validate_every", "metrics",
                                                "report",           "resume",         "micro_batch"};

bool decides(std::string_view name) {
  return std::find(std::begin(kNotOfTheResult), std::end(kNotOfTheResult), name) == std::end(kNotOfTheResult);
}

template <class T>
Json value_of(const T& member) {
  if constexpr (std::is_same_v<T, fs::path>) {
    return member.string();
  } else if constexpr (std::is_same_v<T, std::vector<fs::path>>) {
    Json out = Json::array();
    for (const fs::path& p : member) out.push_back(p.string());
    return out;
  } else {
    return member;
  }
}

template <class Options>
Json all_of(Options options, bool result_only) {
  Json out = Json::object();
  visit_fields(options, [&](const char* name, auto& member, const char*, Choices = {}) {
    if (!result_only || decides(name)) out[name] = value_of(member);
  });
  return out;
}

// What a member takes, for messages; "" when `j` is that.
template <class T>
std::string_view assign(T& member, const Json& j) {
  if constexpr (std::is_same_v<T, bool>) {
    if (!j.is_boolean()) return "true or false";
    member = j.get<bool>();
  } else if constexpr (std::is_integral_v<T>) {
    if (!j.is_number_integer() || (std::is_unsigned_v<T> && !j.is_number_unsigned())) {
      return std::is_unsigned_v<T> ? "a whole number of 0 or more" : "a whole number";
    }
    member = j.get<T>();
  } else if constexpr (std::is_floating_point_v<T>) {
    if (!j.is_number()) return "a number";
    member = j.get<T>();
  } else if constexpr (std::is_same_v<T, std::vector<fs::path>>) {
    std::vector<fs::path> list;
    for (const Json& item : j.is_array() ? j : Json::array({j})) {
      if (!item.is_string()) return "a file or a list of files";
      list.emplace_back(item.get<std::string>());
    }
    member = std::move(list);
  } else {
    if (!j.is_string()) return std::is_same_v<T, fs::path> ? "a path as a string" : "a string";
    member = T(j.get<std::string>());
  }
  return "";
}

// Edits from one name to the other (Levenshtein).
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = row[0]++;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t next = std::min({row[j] + 1, row[j + 1] + 1, diagonal + (a[i] == b[j] ? 0 : 1)});
      diagonal = std::exchange(row[j + 1], next);
    }
  }
  return row.back();
}

// The known names most like `name`, three at most.
std::string nearest(std::string_view name, std::vector<std::string_view> known) {
  const auto unlike = [&](std::string_view k) {
    return k.find(name) != std::string_view::npos || name.find(k) != std::string_view::npos
               ? 0
               : distance(name, k);
  };
  std::stable_sort(known.begin(), known.end(),
                   [&](std::string_view a, std::string_view b) { return unlike(a) < unlike(b); });
  std::string out;
  for (std::size_t i = 0; i < std::min<std::size_t>(3, known.size()); ++i) {
    out += fmt::format("{}{}", out.empty() ? "" : ", ", known[i]);
  }
  return out;
}

std::string quoted_list(Choices choices) {
  std::string out;
  for (const std::string_view c : choices) out += fmt::format("{}\"{}\"", out.empty() ? "" : ", ", c);
  return out;
}

template <class Options>
Status set_from(const fs::path& file, Options& options) {
  NARROW_ASSIGN(const std::string text, read_text_file(file, kMaxRecipeBytes));
  NARROW_ASSIGN(const Json recipe, io::parse_json(text, file.string(), io::DuplicateKeys::kError));
  if (!recipe.is_object()) {
    return make_error(ErrorCode::kInvalidArgument,
                      "{}: a recipe is a JSON object of options, e.g. {{\"lr\": 1e-4}}", file.string());
  }
  Options next = options;
  std::vector<std::string_view> known;
  std::set<std::string, std::less<>> used;
  Status wrong;
  visit_fields(next, [&](const char* name, auto& member, const char*, Choices choices = {}) {
    known.emplace_back(name);
    std::string dashed = name;
    std::replace(dashed.begin(), dashed.end(), '_', '-');
    for (const std::string& spelling : {std::string(name), dashed}) {
      if (!recipe.contains(spelling) || !used.insert(spelling).second || !wrong.ok()) continue;
      const Json& j = recipe[spelling];
      std::string expected(assign(member, j));
      if constexpr (std::is_same_v<std::decay_t<decltype(member)>, std::string>) {
        const bool fixed = choices.size() > 0 && expected.empty();
        if (fixed && std::find(choices.begin(), choices.end(), member) == choices.end()) {
          expected = "one of " + quoted_list(choices);
        }
      }
      if (!expected.empty()) {
        wrong = make_error(ErrorCode::kInvalidArgument, "{}: option '{}' is {}, but must be {}",
                           file.string(), spelling, j.dump(), expected);
      }
    }
  });
  NARROW_TRY(wrong);
  for (const auto& [key, value] : recipe.items()) {
    if (used.contains(key)) continue;
    return make_error(ErrorCode::kInvalidArgument, "{}: unknown option '{}'; the nearest known ones are {}",
                      file.string(), key, nearest(key, known));
  }
  options = std::move(next);
  return {};
}

}  // namespace

Json to_json(const QatOptions& options, bool result_only) { return all_of(options, result_only); }
Json to_json(const FinetuneOptions& options, bool result_only) { return all_of(options, result_only); }
Json to_json(const PretrainOptions& options, bool result_only) { return all_of(options, result_only); }

}  // namespace narrow::recipe

namespace narrow {

Status read_recipe(const std::filesystem::path& file, QatOptions& options) {
  return recipe::set_from(file, options);
}
Status read_recipe(const std::filesystem::path& file, FinetuneOptions& options) {
  return recipe::set_from(file, options);
}
Status read_recipe(const std::filesystem::path& file, PretrainOptions& options) {
  return recipe::set_from(file, options);
}

std::string graph_text(const std::vector<TrainNode>& nodes) {
  std::size_t name = 6, shape = 5, weight = 6;
  for (const TrainNode& n : nodes) {
    name = std::max(name, n.name.size());
    shape = std::max(shape, n.shape.size());
    weight = std::max(weight, n.weight.size());
  }
  std::string out =
      fmt::format("{:{}}  {:{}}  trained  {:{}}  input\n", "tensor", name, "shape", shape, "weight", weight);
  for (const TrainNode& n : nodes) {
    out += fmt::format("{:{}}  {:{}}  {:7}  {:{}}  {}\n", n.name, name, n.shape, shape,
                       n.trained ? "yes" : "", n.weight, weight, n.input);
  }
  return out;
}

}  // namespace narrow
