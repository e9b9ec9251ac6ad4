// Orthogonal matrices that spread a spike over all channels: randomized Hadamard rotations of any dimension
// (QuaRot, Ashkboos et al. 2024, https://arxiv.org/abs/2404.00456).
#pragma once

#include <cstdint>
#include <vector>

namespace narrow::ops {

// R [n, n] = (Q x W) D: D random signs, W a Walsh-Hadamard matrix of order s (a power of two), Q an
// orthogonal matrix of order q, q s = n: a Hadamard matrix after Paley where one of a fitting order is known
// (12 for 3 * 2^p, 20 for 5, 28 for 7, 36 for 9, ...), else a random one. The same for the same (n, seed,
// keeps_mean) on every machine.
class Rotation {
 public:
  // keeps_mean: R = H^T D H instead, with R 1 = 1, so that LayerNorm, too, commutes with it.
  explicit Rotation(std::int64_t n, std::uint64_t seed, bool keeps_mean = false);
  std::int64_t size() const { return n_; }
  bool is_hadamard() const { return hadamard_; }  // all entries of Q have the same magnitude

  // x [n, inner] <- R x, or R^T x, on this thread. scratch: n * inner floats.
  void apply(float* x, std::int64_t inner, float* scratch) const;
  void apply_transposed(float* x, std::int64_t inner, float* scratch) const;

 private:
  void signs(float* x, std::int64_t inner) const;
  void mix(float* x, std::int64_t inner, bool transposed, float* scratch) const;

  std::int64_t n_, s_ = 1, q_ = 1;
  bool keeps_mean_, hadamard_ = true;
  std::vector<float> outer_;  // [q, q], orthogonal
  std::vector<float> signs_;  // [n]
};

// On all threads; the same bits for any number of them.
// w [rows, k], k a multiple of r.size(): every stretch of a row is turned: w <- w R^T. For inputs x -> R x.
void rotate_inputs(const Rotation& r, float* w, std::int64_t rows, std::int64_t k);
// w [rows, k], rows a multiple of r.size(): every stretch of a column is turned: w <- R w.
void rotate_outputs(const Rotation& r, float* w, std::int64_t rows, std::int64_t k);

}  // namespace narrow::ops
