// Where a row's tokens by likelihood end: what top_k and top_p leave. Of equal weights the lower id is
// likelier.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace lorikeet {

// All tokens of a larger weight stay, and the first `ties` of this one.
struct Cut {
  double weight = 0;
  int64_t ties = 0;
};

// Takes a few passes over the row however its weights are distributed, and sorts nothing.
class Cutter {
 public:
  explicit Cutter(int64_t vocab);

  // The fewest likeliest tokens, at least one, that are `count` or whose weights reach `sum`. No weight is
  // negative; those of 0 are out already, and one is not.
  Cut cut(std::span<const double> weights, int64_t count, double sum);

 private:
  // Weights that share a digit.
  struct Bin {
    double sum = 0;
    int64_t count = 0;
  };
  void fill_bins(std::span<const double> weights, int shift);

  std::vector<double> rest_;  // [vocab]: weights among which the end is
  std::vector<Bin> bins_;     // of those, by digit
};

}  // namespace lorikeet
