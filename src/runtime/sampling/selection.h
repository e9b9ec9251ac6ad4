// Choosing among many logits without sorting or copying them: one pass finds the largest of every block, and
// later passes read only the blocks that can matter.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace narrow::runtime {

struct Candidate {
  float logit = 0.0f;
  std::int32_t id = 0;
  double weight = 0.0;
};

// Greater logit first, lower id on a tie: a total order, so results do not depend on the selection algorithm.
struct Better {
  bool operator()(const Candidate& a, const Candidate& b) const {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
  }
};

// The finite ones among logits [n_vocab], which must outlive this. Ids are positions.
class LogitBlocks {
 public:
  static constexpr std::size_t kBlock = 256;

  void reset(std::span<const float> logits);
  bool empty() const { return best_ == -std::numeric_limits<float>::infinity(); }
  float best() const { return best_; }  // -infinity when empty
  std::int32_t best_id() const;         // the lowest id of the best logit

  // A value that at least k logits reach, as large as the blocks tell; k >= 1.
  float reached_by(std::size_t k);
  // Appends the logits >= least in order of id, weight 0.
  void gather(float least, std::vector<Candidate>& out) const;

  // e^(logit - best), subtracted in float, over all logits.
  double sum_of_exp() const;
  // A guess, from some of the blocks: the logits below it have a sum of about `tail` or a little less.
  float bound_of_tail(double tail) const;
  // The id where the running sum of e^((logit - best) / temperature), in order of id, exceeds `fraction` of
  // the sum of all; fraction in [0, 1).
  std::int32_t draw(double temperature, double fraction);

 private:
  std::span<const float> block(std::size_t b) const;

  std::span<const float> logits_;
  float best_ = -std::numeric_limits<float>::infinity();
  std::vector<float> largest_;  // of each block
  std::vector<float> selected_;
  std::vector<double> sums_;
};

// The last candidate of the shortest prefix of c, in order of Better, whose weight reaches the target, or
// exceeds it; the last of all when none does. c is not empty. Takes time proportional to c.size().
Candidate last_of_prefix(std::span<const Candidate> c, double target, bool exceed);

// e^x for x <= 0 to about 2e-16 relative; 0 below -708, where e^x leaves the normal numbers. Written so that
// loops over it vectorise: x = n ln 2 + r, |r| <= ln 2 / 2, Taylor's polynomial in r, 2^n by its exponent.
double exp_of_negative(double x);

}  // namespace narrow::runtime
