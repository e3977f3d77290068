// Draws against a full sort, and at the edges of what numbers can hold.
#include "executor/sampler.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace {

using namespace lorikeet;

using Logits = std::vector<float>;

void require(bool holds, const std::string& what) {
  if (holds) return;
  std::printf("failed: %s\n", what.c_str());
  std::exit(1);
}

int32_t sample(const Logits& logits, const SamplingParams& params, const std::vector<int32_t>& tokens = {}) {
  LogitRow row;
  row.sampling = &params;
  row.tokens = tokens;
  row.prompt_length = static_cast<int64_t>(tokens.size());
  return Sampler(static_cast<int64_t>(logits.size())).choose(logits, row).token;
}

std::vector<double> weights_of(const Logits& logits, double temperature) {
  const double highest = *std::max_element(logits.begin(), logits.end());
  std::vector<double> weights;
  for (const float logit : logits) weights.push_back(std::exp((logit - highest) / temperature));
  return weights;
}

// All sorted, as one would write it down.
int32_t sample_sorted(const Logits& logits, const SamplingParams& params) {
  std::vector<double> weights = weights_of(logits, params.temperature);
  std::vector<size_t> order(weights.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return weights[a] > weights[b]; });
  size_t kept = params.top_k > 0 ? std::min(order.size(), static_cast<size_t>(params.top_k)) : order.size();
  if (params.top_p < 1) {
    double missing = 0;
    for (size_t i = 0; i < kept; ++i) missing += weights[order[i]];
    missing *= params.top_p;
    for (size_t i = 0; i < kept; ++i) {
      missing -= weights[order[i]];
      if (missing <= 0) kept = i + 1;
    }
  }
  for (size_t i = 0; i < order.size(); ++i) {
    if (i >= kept || weights[order[i]] < params.min_p) weights[order[i]] = 0;
  }
  double left = uniform_at(params.seed, 0) * std::accumulate(weights.begin(), weights.end(), 0.0);
  for (size_t token = 0; token < weights.size(); ++token) {
    left -= weights[token];
    if (left < 0) return static_cast<int32_t>(token);
  }
  return -1;
}

struct Distribution {
  const char* name;
  std::function<float(std::mt19937&, int)> logit;  // of a token
};
const Distribution kDistributions[] = {
    {"normal", [](auto& random, int) { return std::normal_distribution<float>(0, 2)(random); }},
    {"flat", [](auto& random, int) { return std::normal_distribution<float>(0, 1e-6f)(random); }},
    {"peaked", [](auto& random, int) { return std::normal_distribution<float>(0, 300)(random); }},
    {"tied", [](auto& random, int) { return static_cast<float>(random() % 5); }},
    {"equal", [](auto&, int) { return 1.5f; }},
    {"rising", [](auto&, int token) { return 1e-3f * static_cast<float>(token); }},
    {"falling", [](auto&, int token) { return -1e-3f * static_cast<float>(token); }},
};

void draws_are_those_of_a_full_sort() {
  std::mt19937 random(1);
  for (const Distribution& distribution : kDistributions) {
    for (const int vocab : {1, 2, 7, 1000, 20'000}) {
      Logits logits;
      for (int token = 0; token < vocab; ++token) logits.push_back(distribution.logit(random, token));
      for (const double top_p : {0.0, 0.5, 0.9, 0.9999, 1.0}) {
        for (const int64_t top_k : {0, 1, 50, 5000}) {
          for (const double min_p : {0.0, 1e-9, 0.2, 1.0}) {
            SamplingParams params;
            params.temperature = random() % 2 ? 1 : 0.3;
            params.top_p = top_p;
            params.top_k = top_k;
            params.min_p = min_p;
            params.seed = random();
            require(sample(logits, params) == sample_sorted(logits, params),
                    distribution.name + (" of " + std::to_string(vocab)) + " at top_p " +
                        std::to_string(top_p) + ", top_k " + std::to_string(top_k) + ", min_p " +
                        std::to_string(min_p));
          }
        }
      }
    }
  }
}

uint64_t inverse_of(uint64_t odd) {  // modulo 2^64, by Newton
  uint64_t inverse = odd;
  for (int i = 0; i < 6; ++i) inverse *= 2 - odd * inverse;
  return inverse;
}

uint64_t unmix(uint64_t z) {  // undoes the finaliser of SplitMix64
  z = z ^ (z >> 31) ^ (z >> 62);
  z *= inverse_of(0x94d049bb133111ebu);
  z = z ^ (z >> 27) ^ (z >> 54);
  z *= inverse_of(0xbf58476d1ce4e5b9u);
  return z ^ (z >> 30) ^ (z >> 60);
}

// The seed whose first draw is as near to 1 as a double can be.
uint64_t seed_of_the_highest_draw() {
  constexpr uint64_t kGamma = 0x9e3779b97f4a7c15u;
  return unmix(unmix(~uint64_t{0}) - kGamma) - kGamma;
}

void a_draw_never_lands_on_a_token_without_weight() {
  SamplingParams params;
  params.temperature = 1;
  params.seed = seed_of_the_highest_draw();
  require(uniform_at(params.seed, 0) == 1 - 0x1p-53, "the seed draws next to 1");
  std::mt19937 random(2);
  for (int round = 0; round < 100; ++round) {
    Logits logits;
    for (int token = 0; token < 1000; ++token)
      logits.push_back(std::normal_distribution<float>(0, 1)(random));
    logits.resize(1100, -1e4f);  // exp of which is 0
    require(sample(logits, params) < 1000, "what the rounding leaves goes to a token that has weight");
  }
}

void a_penalty_may_overflow() {
  SamplingParams params;
  params.temperature = 1;
  params.top_p = 0.9;
  params.repetition_penalty = 1e-3;
  require(sample({1, 3e38f, 2, 3}, params, {1}) == 1, "an infinite logit is the likeliest");
}

}  // namespace

int main() {
  draws_are_those_of_a_full_sort();
  a_draw_never_lands_on_a_token_without_weight();
  a_penalty_may_overflow();
  std::printf("3 passed\n");
  return 0;
}
