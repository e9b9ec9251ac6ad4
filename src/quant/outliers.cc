#include "quant/outliers.h"

#include <algorithm>
#include <cmath>

namespace narrow::quant {
namespace {

// A row's largest values, largest first: only they can become its maximum.
struct Row {
  std::vector<std::pair<float, std::int32_t>> largest;  // |x| and its column
  std::size_t at = 0;                                   // the first that is left
  double weight = 0;                                    // 1 / |x|^2

  double square(std::size_t i) const {
    return i < largest.size() ? static_cast<double>(largest[i].first) * static_cast<double>(largest[i].first)
                              : 0;
  }
};

std::vector<Row> prepare(ops::ConstMatrix x, std::size_t keep) {
  std::vector<Row> rows;
  for (std::int64_t r = 0; r < x.rows; ++r) {
    Row row;
    double energy = 0;
    for (std::int64_t i = 0; i < x.cols; ++i) {
      const float v = std::abs(x.row(r)[i]);
      energy += static_cast<double>(v) * static_cast<double>(v);
      row.largest.emplace_back(v, static_cast<std::int32_t>(i));
    }
    if (!(energy > 0) || !std::isfinite(energy)) continue;
    const auto more = [](const auto& a, const auto& b) {
      return a.first != b.first ? a.first > b.first : a.second < b.second;
    };
    const std::size_t n = std::min(keep, row.largest.size());
    std::partial_sort(row.largest.begin(), row.largest.begin() + static_cast<std::ptrdiff_t>(n),
                      row.largest.end(), more);
    row.largest.resize(n);
    row.weight = 1 / energy;
    rows.push_back(std::move(row));
  }
  return rows;
}

std::vector<std::int32_t> largest_columns(const std::vector<Row>& rows, std::span<const float> abs_max,
                                          std::int64_t k, std::int64_t count) {
  std::vector<float> size(abs_max.begin(), abs_max.end());
  size.resize(static_cast<std::size_t>(k), 0.0f);
  for (const Row& row : rows) {
    for (const auto& [v, column] : row.largest) {
      size[static_cast<std::size_t>(column)] = std::max(size[static_cast<std::size_t>(column)], v);
    }
  }
  std::vector<std::int32_t> order;
  for (std::int64_t i = 0; i < k; ++i) {
    if (size[static_cast<std::size_t>(i)] > 0.0f) order.push_back(static_cast<std::int32_t>(i));
  }
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    return size[static_cast<std::size_t>(a)] > size[static_cast<std::size_t>(b)];
  });
  order.resize(std::min(order.size(), static_cast<std::size_t>(count)));
  return order;
}

}  // namespace

std::vector<std::int32_t> choose_outliers(ops::ConstMatrix x, const OutlierOptions& options) {
  const std::int64_t most = std::clamp<std::int64_t>(options.most, 0, x.cols);
  std::vector<std::int32_t> chosen;
  if (most == 0) return chosen;
  std::vector<Row> rows = prepare(x, static_cast<std::size_t>(most) + 2);
  std::vector<char> taken(static_cast<std::size_t>(x.cols), 0);
  std::vector<double> gain(static_cast<std::size_t>(x.cols));
  chosen = largest_columns(rows, options.abs_max, x.cols, std::clamp<std::int64_t>(options.by_size, 0, most));
  for (const std::int32_t c : chosen) taken[static_cast<std::size_t>(c)] = 1;
  while (static_cast<std::int64_t>(chosen.size()) < most) {
    std::fill(gain.begin(), gain.end(), 0.0);
    double noise = 0;
    for (Row& row : rows) {
      const auto is_taken = [&](std::size_t i) {
        return i < row.largest.size() && taken[static_cast<std::size_t>(row.largest[i].second)];
      };
      while (is_taken(row.at)) ++row.at;
      if (row.at >= row.largest.size()) continue;
      std::size_t next = row.at + 1;
      while (is_taken(next)) ++next;
      noise += row.square(row.at) * row.weight;
      gain[static_cast<std::size_t>(row.largest[row.at].second)] +=
          (row.square(row.at) - row.square(next)) * row.weight;
    }
    const auto best = std::max_element(gain.begin(), gain.end());
    if (!(*best > options.least_gain * noise)) break;
    const auto column = static_cast<std::int32_t>(best - gain.begin());
    taken[static_cast<std::size_t>(column)] = 1;
    chosen.push_back(column);
  }
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

}  // namespace narrow::quant
