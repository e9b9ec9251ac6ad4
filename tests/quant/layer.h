// A small matrix with what is known of its inputs, for methods that look at data.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/rng.h"
#include "formats/format.h"
#include "quant/quantizer.h"
#include "testing/testing.h"

namespace narrow::quant {

inline constexpr std::int64_t kRows = 40, kColumns = 256;

// A matrix and the second moments of inputs that depend on each other.
struct Layer {
  Layer() {
    Rng rng(6);
    for (std::int64_t i = 0; i < kRows * kColumns; ++i) w.push_back(0.05f * rng.normal());
    hessian.assign(kColumns * kColumns, 0.0f);
    std::vector<float> x(kColumns), common(8);
    for (int t = 0; t < 400; ++t) {
      for (float& v : common) v = rng.normal();
      for (std::size_t j = 0; j < x.size(); ++j) {
        x[j] = (j % 19 == 3 ? 4.0f : 1.0f) * (rng.normal() + 1.5f * common[j % common.size()]);
      }
      for (std::size_t i = 0; i < x.size(); ++i) {
        for (std::size_t j = 0; j < x.size(); ++j) hessian[i * x.size() + j] += x[i] * x[j] / 400.0f;
      }
    }
    for (std::size_t j = 0; j < x.size(); ++j) mean_square.push_back(hessian[j * x.size() + j]);
    stats.hessian = hessian;
    stats.mean_square = mean_square;
  }
  Layer(const Layer&) = delete;
  std::vector<double> errors(Format f, const std::vector<std::byte>& stored) const {
    std::vector<double> out;
    std::vector<float> d(kColumns);
    for (std::int64_t r = 0; r < kRows; ++r) {
      EXPECT_OK(decode_row(f, stored.data() + static_cast<std::size_t>(r) * row_bytes(f, kColumns), d.data(),
                           kColumns));
      for (std::int64_t j = 0; j < kColumns; ++j) {
        d[static_cast<std::size_t>(j)] -= w[static_cast<std::size_t>(r * kColumns + j)];
      }
      double sum = 0;
      for (std::size_t i = 0; i < d.size(); ++i) {
        for (std::size_t j = 0; j < d.size(); ++j) {
          sum += static_cast<double>(d[i]) * static_cast<double>(hessian[i * d.size() + j]) *
                 static_cast<double>(d[j]);
        }
      }
      out.push_back(sum);
    }
    return out;
  }
  std::vector<float> w, hessian, mean_square;
  LayerStats stats;
};

}  // namespace narrow::quant
