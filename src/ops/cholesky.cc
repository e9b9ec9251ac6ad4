#include "ops/cholesky.h"

#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <cmath>

namespace narrow::ops {
namespace {

template <class T>
using Square = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// With h in reverse order, h' = l l^T, the inverse of l in reverse order again is the upper factor of h^-1:
// one factorisation instead of two and an inversion.
template <class T>
bool try_factor(std::int64_t k, const float* h, float* u) {
  Square<T> a(k, k);
  for (std::int64_t i = 0; i < k; ++i) {
    for (std::int64_t j = 0; j < k; ++j) a(i, j) = static_cast<T>(h[(k - 1 - i) * k + (k - 1 - j)]);
  }
  const Eigen::LLT<Eigen::Ref<Square<T>>> factor(a);
  if (factor.info() != Eigen::Success) return false;
  Square<T> inverse = Square<T>::Identity(k, k);
  a.template triangularView<Eigen::Lower>().solveInPlace(inverse);
  for (std::int64_t i = 0; i < k; ++i) {
    const float d = static_cast<float>(inverse(i, i));
    if (!std::isfinite(d) || !(d > 0)) return false;
  }
  for (std::int64_t i = 0; i < k; ++i) {
    for (std::int64_t j = 0; j < i; ++j) u[i * k + j] = 0.0f;
    for (std::int64_t j = i; j < k; ++j) u[i * k + j] = static_cast<float>(inverse(k - 1 - i, k - 1 - j));
  }
  return true;
}

}  // namespace

Status inverse_factor(std::int64_t k, const float* h, float* u) {
  if (try_factor<float>(k, h, u) || try_factor<double>(k, h, u)) return {};
  return make_error(ErrorCode::kNumeric, "a Hessian of {} inputs is not positive definite; more damping", k);
}

Status solve_rows(std::int64_t k, const float* h, std::int64_t n, float* b) {
  Square<double> a(k, k);
  for (std::int64_t i = 0; i < k * k; ++i) a.data()[i] = static_cast<double>(h[i]);
  const Eigen::LLT<Eigen::Ref<Square<double>>> factor(a);
  if (factor.info() != Eigen::Success) {
    return make_error(ErrorCode::kNumeric, "a Hessian of {} inputs is not positive definite; more damping",
                      k);
  }
  Eigen::Map<Square<float>> rows(b, n, k);
  const Square<double> x = factor.solve(rows.cast<double>().transpose()).transpose();
  rows = x.cast<float>();
  return {};
}

}  // namespace narrow::ops
