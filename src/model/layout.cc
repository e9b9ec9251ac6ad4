#include "model/layout.h"

namespace narrow::model {

Units units_of(const TensorRule& rule) {
  const std::int64_t n = rule.shape.elements();
  const bool moves_elements = rule.layout == Layout::kRopePairs || rule.layout == Layout::kFusedHeads;
  if (rule.shape.rank() == 1 && moves_elements) return {n, 1};
  return {rule.shape.rows(), rule.shape.row_length()};
}

UnitSource source_of(const TensorRule& rule, std::int64_t u) {
  switch (rule.layout) {
    case Layout::kRopePairs: {
      const std::int64_t d = units_of(rule).count / rule.heads;
      const std::int64_t head = u / d, pair = u % d / 2, which = u % 2;
      return {0, head * d + which * (d / 2) + pair};
    }
    case Layout::kFusedHeads: {
      const std::int64_t d = units_of(rule).count / (3 * rule.heads);
      const std::int64_t part = u / (rule.heads * d), head = u / d % rule.heads;
      return {0, (head * 3 + part) * d + u % d};
    }
    case Layout::kStack: {
      const std::int64_t rows = rule.shape[1];
      return {static_cast<std::size_t>(u / rows), u % rows};
    }
    default:
      return {0, u};
  }
}

}  // namespace narrow::model
