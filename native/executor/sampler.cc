#include "sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>

namespace lorikeet {
namespace {

int32_t argmax(std::span<const float> logits) {
  size_t best = 0;
  for (size_t i = 1; i < logits.size(); ++i) {
    if (logits[i] > logits[best]) best = i;
  }
  return static_cast<int32_t>(best);
}

bool all_finite(std::span<const float> logits) {
  uint32_t worst = 0;
  for (const float logit : logits) worst = std::max(worst, std::bit_cast<uint32_t>(logit) & 0x7f800000u);
  return worst != 0x7f800000u;
}

// From the highest logit, which a penalty may have made infinite.
double below(float logit, double highest) { return logit == highest ? 0 : logit - highest; }

uint64_t mix(uint64_t z) {  // the finaliser of SplitMix64
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

}  // namespace

double uniform_at(uint64_t seed, uint64_t position) {
  constexpr uint64_t kGamma = 0x9e3779b97f4a7c15u;
  return static_cast<double>(mix(mix(seed + kGamma) + (position + 1) * kGamma) >> 11) * 0x1p-53;
}

Sampler::Sampler(int64_t vocab)
    : changed_(static_cast<size_t>(vocab)),
      counts_(static_cast<size_t>(vocab)),
      weights_(static_cast<size_t>(vocab)),
      cutter_(vocab) {
  candidates_.reserve(static_cast<size_t>(vocab));
}

RowResult Sampler::choose(std::span<const float> logits, const LogitRow& wanted) {
  RowResult result;
  result.finite = all_finite(logits);
  if (!result.finite) return result;
  if (wanted.sampling != nullptr) prepare(logits, wanted);
  result.token = wanted.scored >= 0 ? wanted.scored : sample(logits, wanted);
  if (wanted.top < 0) return result;
  const bool processed =
      wanted.sampling != nullptr && wanted.sampling->logprobs_mode == LogprobsMode::kProcessed;
  result.logprobs = processed ? score_processed(logits, *wanted.sampling, result.token, wanted.top)
                              : score(logits, result.token, wanted.top);
  return result;
}

TokenLogprobs Sampler::score(std::span<const float> logits, int32_t token, int64_t top) {
  const double highest = logits[static_cast<size_t>(argmax(logits))];
  double sum = 0;
  for (const float logit : logits) sum += std::exp(below(logit, highest));
  const double log_sum = std::log(sum);
  const auto logprob = [&](int32_t of) { return below(logits[static_cast<size_t>(of)], highest) - log_sum; };

  TokenLogprobs scores{logprob(token), {}};
  for (const int32_t of : likeliest(logits, top)) scores.top.emplace_back(of, logprob(of));
  return scores;
}

TokenLogprobs Sampler::score_processed(std::span<const float> logits, const SamplingParams& params,
                                       int32_t token, int64_t top) {
  if (params.temperature == 0) return score(params.changes_logits() ? changed_ : logits, token, top);
  const double highest = changed_[static_cast<size_t>(argmax(changed_))];
  const double log_sum = std::log(std::accumulate(weights_.begin(), weights_.end(), 0.0));
  const auto logprob = [&](int32_t of) {
    const auto at = static_cast<size_t>(of);
    if (weights_[at] == 0) return -std::numeric_limits<double>::infinity();
    return below(changed_[at], highest) / params.temperature - log_sum;
  };

  TokenLogprobs scores{logprob(token), {}};
  for (const int32_t of : likeliest(changed_, top)) scores.top.emplace_back(of, logprob(of));
  return scores;
}

std::span<const int32_t> Sampler::likeliest(std::span<const float> logits, int64_t count) {
  const auto wanted = std::min(count, static_cast<int64_t>(logits.size()));
  if (wanted == 0) return {};
  candidates_.resize(logits.size());
  std::iota(candidates_.begin(), candidates_.end(), 0);
  const auto likelier = [&](int32_t a, int32_t b) {
    const float x = logits[static_cast<size_t>(a)];
    const float y = logits[static_cast<size_t>(b)];
    return x > y || (x == y && a < b);
  };
  std::partial_sort(candidates_.begin(), candidates_.begin() + wanted, candidates_.end(), likelier);
  return std::span(candidates_).first(static_cast<size_t>(wanted));
}

void Sampler::prepare(std::span<const float> logits, const LogitRow& wanted) {
  const SamplingParams& params = *wanted.sampling;
  if (params.temperature == 0 && !params.changes_logits()) return;
  std::copy(logits.begin(), logits.end(), changed_.begin());
  apply_penalties(wanted);
  if (params.temperature == 0) return;
  const double highest = changed_[static_cast<size_t>(argmax(changed_))];
  for (size_t i = 0; i < changed_.size(); ++i) {
    weights_[i] = std::exp(below(changed_[i], highest) / params.temperature);
  }
  drop_unlikely(params);
}

int32_t Sampler::sample(std::span<const float> logits, const LogitRow& wanted) {
  const SamplingParams& params = *wanted.sampling;
  if (params.temperature == 0) return argmax(params.changes_logits() ? changed_ : logits);
  return draw(uniform_at(params.seed, wanted.tokens.size()));
}

// The repetition penalty counts prompt and answer (as transformers does), the other two the answer alone
// (OpenAI).
void Sampler::apply_penalties(const LogitRow& wanted) {
  const SamplingParams& params = *wanted.sampling;
  const std::span<const int32_t> tokens = wanted.tokens;
  if (params.repetition_penalty != 1) {
    for (const int32_t token : tokens) {
      if (counts_[static_cast<size_t>(token)]++ > 0) continue;
      float& logit = changed_[static_cast<size_t>(token)];
      const auto penalty = static_cast<float>(params.repetition_penalty);
      logit = logit > 0 ? logit / penalty : logit * penalty;
    }
    for (const int32_t token : tokens) counts_[static_cast<size_t>(token)] = 0;
  }
  if (params.presence_penalty != 0 || params.frequency_penalty != 0) {
    const std::span<const int32_t> answer = tokens.subspan(static_cast<size_t>(wanted.prompt_length));
    for (const int32_t token : answer) ++counts_[static_cast<size_t>(token)];
    for (const int32_t token : answer) {
      int32_t& count = counts_[static_cast<size_t>(token)];
      if (count == 0) continue;
      changed_[static_cast<size_t>(token)] -=
          static_cast<float>(params.presence_penalty + params.frequency_penalty * count);
      count = 0;
    }
  }
  for (const auto& [token, bias] : params.logit_bias) changed_[static_cast<size_t>(token)] += bias;
}

int32_t Sampler::draw(double uniform) {
  double left = uniform * std::accumulate(weights_.begin(), weights_.end(), 0.0);
  size_t token = 0;
  while (token < weights_.size() && (left -= weights_[token]) >= 0) ++token;
  if (token == weights_.size()) {  // where rounding used the sum up, the last that can be drawn
    do {
      --token;
    } while (weights_[token] == 0);
  }
  return static_cast<int32_t>(token);
}

// Takes the weight of all tokens that cannot be drawn: top_k, then top_p of what is left, then min_p relative
// to the likeliest.
void Sampler::drop_unlikely(const SamplingParams& params) {
  const auto vocab = static_cast<int64_t>(weights_.size());
  constexpr double kAny = std::numeric_limits<double>::infinity();
  if (params.top_k > 0 && params.top_k < vocab) keep(cutter_.cut(weights_, params.top_k, kAny));
  if (params.top_p < 1) {
    const double sum = std::accumulate(weights_.begin(), weights_.end(), 0.0);
    keep(cutter_.cut(weights_, vocab, params.top_p * sum));
  }
  for (double& weight : weights_) weight = weight < params.min_p ? 0 : weight;
}

void Sampler::keep(Cut cut) {
  for (double& weight : weights_) {
    const bool is_tied = weight == cut.weight;
    const bool stays = weight > cut.weight || (is_tied && cut.ties > 0);
    cut.ties -= is_tied ? 1 : 0;
    weight = stays ? weight : 0;
  }
}

}  // namespace lorikeet
