// How many rows a step may have while sequences wait in it for their next token. Pure: times in, rows out.
#pragma once

#include <algorithm>
#include <cstdint>

namespace lorikeet {

class StepPacer {
 public:
  // Between two tokens, where prompts would make it longer.
  static constexpr double kStepMs = 250;
  // Prompts go on by a block at least, also where that takes longer.
  static constexpr int64_t kPromptRowsMin = 16;

  explicit StepPacer(int64_t rows_max) : rows_max_(static_cast<double>(rows_max)), rows_(rows_max) {}

  // Rows of prompts beside `decoding` rows.
  int64_t prompt_rows(int64_t decoding) const { return std::max(rows_ - decoding, kPromptRowsMin); }

  // A step with rows of prompts took so long. Where its time is a + b rows, repeated steps come to take
  // kStepMs from below: a smaller one seems to have dearer rows.
  void took(int64_t rows, double ms) {
    const double fitting = static_cast<double>(rows) * kStepMs / std::max(ms, 1e-3);
    rows_ = static_cast<int64_t>(std::min(fitting, rows_max_));
  }

 private:
  double rows_max_;
  int64_t rows_;
};

}  // namespace lorikeet
