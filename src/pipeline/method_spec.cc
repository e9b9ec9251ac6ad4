#include "pipeline/method_spec.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "pipeline/transform.h"

namespace narrow::pipeline {

bool MethodSpec::needs_statistics() const {
  for (const std::string& t : transforms) {
    if (pipeline::needs_statistics(t)) return true;
  }
  return false;
}

bool MethodSpec::has_transform(std::string_view name) const {
  return std::find(transforms.begin(), transforms.end(), name) != transforms.end();
}

Result<MethodSpec> parse_method(std::string_view text) {
  MethodSpec spec;
  std::size_t begin = 0;
  while (begin <= text.size()) {
    const std::size_t end = std::min(text.find('+', begin), text.size());
    const std::string_view name = text.substr(begin, end - begin);
    begin = end + 1;
    if (is_transform(name)) {
      if (spec.encoder != nullptr || spec.norms) {
        return make_error(ErrorCode::kInvalidArgument,
                          "method '{}': '{}' changes the model and comes before what quantizes it", text,
                          name);
      }
      spec.transforms.emplace_back(name);
    } else if (name == "norms") {
      spec.norms = true;
    } else if (const quant::Method* m = quant::find_method(name); m != nullptr) {
      if (spec.encoder != nullptr) {
        return make_error(ErrorCode::kInvalidArgument,
                          "method '{}': '{}' and '{}' both choose codes; take one", text, spec.encoder->name,
                          name);
      }
      spec.encoder = m;
    } else {
      std::vector<std::string_view> known = transform_names();
      known.push_back("norms");
      for (const quant::Method& each : quant::all_methods()) known.push_back(each.name);
      return make_error(ErrorCode::kInvalidArgument,
                        "unknown method '{}'; known methods: {}; join several by '+'", name,
                        fmt::join(known, ", "));
    }
  }
  if (spec.encoder == nullptr) spec.encoder = quant::find_method(spec.norms ? "auto" : "rtn");
  return spec;
}

}  // namespace narrow::pipeline
