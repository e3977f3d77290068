// From a row of logits to log-probabilities and the next token.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "plan.h"
#include "sampler_cut.h"

namespace lorikeet {

class Sampler {
 public:
  explicit Sampler(int64_t vocab);

  // The row's token and log-probabilities from its logits, [vocab].
  RowResult choose(std::span<const float> logits, const LogitRow& wanted);

 private:
  // Log-softmax of the logits: of `token`, and the `top` most likely ones.
  TokenLogprobs score(std::span<const float> logits, int32_t token, int64_t top);
  // The same under what `prepare` has just made ready; tokens that were cut off have minus infinity.
  TokenLogprobs score_processed(std::span<const float> logits, const SamplingParams& params, int32_t token,
                                int64_t top);
  // The `count` highest logits, those of the lower id first where they are equal.
  std::span<const int32_t> likeliest(std::span<const float> logits, int64_t count);

  // Fills `changed_` and `weights_` with what the next token after the row's is drawn from, as far as its
  // parameters need them.
  void prepare(std::span<const float> logits, const LogitRow& wanted);
  void apply_penalties(const LogitRow& wanted);
  // From what is prepared. A draw depends on the seed and the position only, so a preempted sequence
  // continues as it would have.
  int32_t sample(std::span<const float> logits, const LogitRow& wanted);
  int32_t draw(double uniform);
  void drop_unlikely(const SamplingParams& params);
  void keep(Cut cut);

  std::vector<float> changed_;   // [vocab], logits after penalties and bias
  std::vector<int32_t> counts_;  // [vocab], zero between calls
  std::vector<double> weights_;  // [vocab], unnormalised probabilities
  Cutter cutter_;
  std::vector<int32_t> candidates_;  // token ids
};

// In [0, 1), from a counter-based generator.
double uniform_at(uint64_t seed, uint64_t position);

}  // namespace lorikeet
