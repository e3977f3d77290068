// Draws and their log-probabilities against a full sort, and at the edges of what numbers can hold.
#include "executor/sampler.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <limits>
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

struct Drawn {
  int32_t token;
  TokenLogprobs scores;  // all tokens among the alternatives
};

// The first two of `tokens` are the prompt.
constexpr int64_t kPrompt = 2;
Drawn draw(const Logits& logits, const SamplingParams& params, const std::vector<int32_t>& tokens) {
  LogitRow row;
  row.sampling = &params;
  row.tokens = tokens;
  row.prompt_length = kPrompt;
  row.top = std::ssize(logits);
  const RowResult result = Sampler(std::ssize(logits)).choose(logits, row);
  return {result.token, *result.logprobs};
}

// What a token is drawn from, as one would write it down.
std::vector<double> logprobs_processed(const Logits& logits, const SamplingParams& params,
                                       const std::vector<int32_t>& tokens) {
  Logits bent = logits;
  for (size_t token = 0; token < bent.size(); ++token) {
    const auto id = static_cast<int32_t>(token);
    const auto answered = std::count(tokens.begin() + kPrompt, tokens.end(), id);
    const bool seen = answered > 0 || std::count(tokens.begin(), tokens.begin() + kPrompt, id) > 0;
    const auto penalty = static_cast<float>(seen ? params.repetition_penalty : 1);
    bent[token] = bent[token] > 0 ? bent[token] / penalty : bent[token] * penalty;
    if (answered > 0) {
      bent[token] -= static_cast<float>(params.presence_penalty +
                                        params.frequency_penalty * static_cast<double>(answered));
    }
    for (const auto& [biased, bias] : params.logit_bias) bent[token] += biased == id ? bias : 0;
  }
  const bool greedy = params.temperature == 0;
  std::vector<double> weights = weights_of(bent, greedy ? 1 : params.temperature);
  std::vector<size_t> order(weights.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return weights[a] > weights[b]; });
  if (!greedy) {
    for (size_t rank = static_cast<size_t>(params.top_k); params.top_k > 0 && rank < order.size(); ++rank) {
      weights[order[rank]] = 0;
    }
    const double mass = params.top_p * std::accumulate(weights.begin(), weights.end(), 0.0);
    double before = 0;
    for (const size_t token : order) {
      const double weight = weights[token];
      if (params.top_p < 1 && before >= mass && before > 0) weights[token] = 0;
      if (weight < params.min_p) weights[token] = 0;
      before += weight;
    }
  }
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  for (double& weight : weights) weight = std::log(weight / sum);
  return weights;
}

// exp of less than -700 is nearly 0.
bool near(double a, double b) { return std::abs(std::max(a, -700.0) - std::max(b, -700.0)) < 1e-5; }

using Change = void (*)(SamplingParams&);
const std::pair<const char*, Change> kChanges[] = {
    {"temperature 0.7", [](SamplingParams& p) { p.temperature = 0.7; }},
    {"temperature 1.6", [](SamplingParams& p) { p.temperature = 1.6; }},
    {"greedy", [](SamplingParams& p) { p.temperature = 0; }},
    {"top_k", [](SamplingParams& p) { p.top_k = 9; }},
    {"top_p", [](SamplingParams& p) { p.top_p = 0.8; }},
    {"min_p", [](SamplingParams& p) { p.min_p = 0.1; }},
    {"repetition", [](SamplingParams& p) { p.repetition_penalty = 1.7; }},
    {"presence", [](SamplingParams& p) { p.presence_penalty = 1.1; }},
    {"frequency", [](SamplingParams& p) { p.frequency_penalty = 0.6; }},
    {"bias", [](SamplingParams& p) { p.logit_bias = {{5, 3.5f}, {11, -100.0f}}; }},
};

SamplingParams processed() {
  SamplingParams params;
  params.temperature = 1;
  params.logprobs_mode = LogprobsMode::kProcessed;
  return params;
}

// Calls `check` with each change alone, and with mixtures of them.
void with_changes(int mixtures,
                  const std::function<void(const SamplingParams&, const std::string& name)>& check) {
  for (const auto& [name, change] : kChanges) {
    SamplingParams params = processed();
    change(params);
    check(params, name);
  }
  std::mt19937 random(3);
  for (int i = 0; i < mixtures; ++i) {
    SamplingParams params = processed();
    std::string names;
    for (const auto& [name, change] : kChanges) {
      if (random() % 2) continue;
      change(params);
      names += std::string(name) + ", ";
    }
    params.seed = random();
    check(params, names);
  }
}

void log_probabilities_are_of_what_was_drawn_from() {
  std::mt19937 random(4);
  with_changes(300, [&](const SamplingParams& params, const std::string& name) {
    for (const Distribution& distribution : kDistributions) {
      Logits logits;
      for (int token = 0; token < 40; ++token) logits.push_back(distribution.logit(random, token));
      const std::vector<int32_t> tokens = {3, 5, 7, 7, 5, 20};
      const Drawn drawn = draw(logits, params, tokens);
      const std::vector<double> wanted = logprobs_processed(logits, params, tokens);
      const std::string what = name + " of " + distribution.name;
      require(near(drawn.scores.logprob, wanted[static_cast<size_t>(drawn.token)]), "the token's, " + what);
      double last = 0;
      for (const auto& [token, logprob] : drawn.scores.top) {
        require(near(logprob, wanted[static_cast<size_t>(token)]), "an alternative's, " + what);
        require(logprob <= last, "the likeliest first, " + what);
        last = logprob;
      }
      SamplingParams raw = params;
      raw.logprobs_mode = LogprobsMode::kRaw;
      const Drawn same = draw(logits, raw, tokens);
      require(same.token == drawn.token, "the mode changes no draw, " + what);
      const std::vector<double> plain = logprobs_processed(logits, SamplingParams{}, tokens);
      require(near(same.scores.logprob, plain[static_cast<size_t>(same.token)]), "raw is raw, " + what);
    }
  });
}

void tokens_come_as_often_as_their_log_probabilities_say() {
  std::mt19937 random(5);
  Logits logits;
  for (int token = 0; token < 12; ++token) logits.push_back(std::normal_distribution<float>(0, 2)(random));
  with_changes(20, [&](SamplingParams params, const std::string& name) {
    if (params.temperature == 0) return;
    constexpr int kDraws = 4000;
    std::vector<int> counts(logits.size());
    Drawn drawn;
    for (int i = 0; i < kDraws; ++i) {
      params.seed = static_cast<uint64_t>(i);
      drawn = draw(logits, params, {3, 5, 7, 7, 5});
      ++counts[static_cast<size_t>(drawn.token)];
    }
    for (const auto& [token, logprob] : drawn.scores.top) {
      const double share = std::exp(logprob), seen = counts[static_cast<size_t>(token)];
      const double deviation = 5 * std::sqrt(kDraws * share * (1 - share));
      require(std::abs(seen - kDraws * share) <= deviation + 1, "how often tokens come, " + name);
    }
  });
}

void an_infinite_logit_has_all_of_the_probability() {
  SamplingParams params = processed();
  params.repetition_penalty = 1e-3;
  for (const double temperature : {0.0, 1.0}) {
    params.temperature = temperature;
    const Drawn drawn = draw({1, 3e38f, 2, 3}, params, {1, 1});
    require(drawn.scores.logprob == 0, "its logarithm is 0");
    require(drawn.scores.top[1].second == -std::numeric_limits<double>::infinity(), "and no other has any");
  }
}

}  // namespace

int main() {
  draws_are_those_of_a_full_sort();
  a_draw_never_lands_on_a_token_without_weight();
  a_penalty_may_overflow();
  log_probabilities_are_of_what_was_drawn_from();
  tokens_come_as_often_as_their_log_probabilities_say();
  an_infinite_logit_has_all_of_the_probability();
  std::printf("6 passed\n");
  return 0;
}
