// From a row of logits to log-probabilities and the next token. One block per row of logits.
#pragma once

#include "../../api.h"
#include "lora.cuh"
#include "reduce.cuh"

namespace lorikeet::cuda {

constexpr int kChooseThreads = kIsSmall ? 64 : 1024;
constexpr size_t kChooseShared = sizeof(double) * kChooseThreads;

struct ChooseArgs {
  Chosen* chosen;        // [rows]
  const float* logits;   // [rows, vocab]
  const Wanted* wanted;  // [rows]
  int32_t vocab;
};

// Tokens by likelihood: a larger one is likelier, of equals the lower id. No two tokens are equal.
__device__ __forceinline__ uint64_t rank_of(float logit, int id) {
  const uint32_t bits = __float_as_uint(logit + 0.0f);
  const uint32_t ordered = bits >> 31 ? ~bits : bits | 0x80000000u;
  return static_cast<uint64_t>(ordered) << 32 | (0xffffffffu - static_cast<uint32_t>(id));
}
__device__ __forceinline__ int id_of(uint64_t rank) {
  return static_cast<int>(0xffffffffu - static_cast<uint32_t>(rank));
}

struct Row {
  const float* logits;
  int vocab;
  float highest, temperature;
  __device__ __forceinline__ float weight(int id) const { return expf((logits[id] - highest) / temperature); }
  __device__ __forceinline__ uint64_t rank(int id) const { return rank_of(logits[id], id); }
};

// The largest rank below `bound`.
__device__ __forceinline__ uint64_t likeliest(const Row& row, uint64_t bound, void* shared) {
  uint64_t best = 0;
  for (int i = threadIdx.x; i < row.vocab; i += kChooseThreads) {
    const uint64_t rank = row.rank(i);
    if (rank < bound && rank > best) best = rank;
  }
  return over_block<Largest>(best, shared);
}

// The largest rank at which the measure of all tokens from there up reaches `wanted`, bit by bit. Tokens
// below `floor` do not count.
template <typename Measure>
__device__ __forceinline__ uint64_t rank_where(const Row& row, double wanted, uint64_t floor,
                                               const Measure& measure, void* shared) {
  int id_bits = 1;
  while (row.vocab > 1 << id_bits) ++id_bits;
  uint64_t found = 0;
  const auto try_bit = [&](int bit) {
    const uint64_t from = max(found | uint64_t{1} << bit, floor);
    double sum = 0;
    for (int i = threadIdx.x; i < row.vocab; i += kChooseThreads) {
      if (row.rank(i) >= from) sum += measure(i);
    }
    if (over_block<Plus>(sum, shared) >= wanted) found |= uint64_t{1} << bit;
  };
  for (int bit = 63; bit >= 32; --bit) try_bit(bit);
  found |= 0xffffffffu & ~((1u << id_bits) - 1);  // which all ids have
  for (int bit = id_bits - 1; bit >= 0; --bit) try_bit(bit);
  return max(found, floor);
}

// Temperature, then top_k, then top_p of what is left, then min_p relative to the likeliest. Sums over tokens
// by id.
__device__ __forceinline__ int draw(const Row& row, const Wanted& wanted, void* shared) {
  uint64_t floor = 0;
  if (wanted.top_k > 0 && wanted.top_k < row.vocab) {
    floor = rank_where(row, wanted.top_k, 0, [](int) { return 1.0; }, shared);
  }
  if (wanted.top_p < 1) {
    const auto weight = [&](int i) { return static_cast<double>(row.weight(i)); };
    double sum = 0;
    for (int i = threadIdx.x; i < row.vocab; i += kChooseThreads) {
      if (row.rank(i) >= floor) sum += weight(i);
    }
    sum = over_block<Plus>(sum, shared);
    floor = rank_where(row, wanted.top_p * sum, floor, weight, shared);
  }
  const auto kept = [&](int i) {
    const float weight = row.weight(i);
    return row.rank(i) >= floor && weight >= wanted.min_p ? static_cast<double>(weight) : 0.0;
  };
  const int each = (row.vocab + kChooseThreads - 1) / kChooseThreads;
  const auto end_of = [&](int thread) { return min((thread + 1) * each, row.vocab); };
  double sum = 0;
  for (int i = threadIdx.x * each; i < end_of(threadIdx.x); ++i) sum += kept(i);
  auto* sums = static_cast<double*>(shared);  // [kChooseThreads]
  __syncthreads();
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x != 0) return -1;
  double total = 0;
  for (int t = 0; t < kChooseThreads; ++t) total += sums[t];
  double left = wanted.uniform * total;
  int t = 0;
  while (t + 1 < kChooseThreads && left >= sums[t]) left -= sums[t++];
  // Where rounding used the sum up, the last that stays.
  for (; t > 0 && sums[t] == 0; --t) {
  }
  int drawn = -1;
  for (int i = t * each; i < end_of(t); ++i) {
    const double weight = kept(i);
    if (weight == 0) continue;
    drawn = i;
    left -= weight;
    if (left < 0) break;
  }
  return drawn;
}

__global__ void __launch_bounds__(kChooseThreads) choose(ChooseArgs p) {
  grid_wait();
  grid_launch_next();
  auto* shared = dynamic_shared<double>();
  const Wanted& wanted = p.wanted[blockIdx.x];
  Chosen& chosen = p.chosen[blockIdx.x];
  Row row = {p.logits + static_cast<int64_t>(blockIdx.x) * p.vocab, p.vocab, 0, wanted.temperature};

  // finite?
  uint32_t worst = 0;
  for (int i = threadIdx.x; i < p.vocab; i += kChooseThreads) {
    worst = max(worst, __float_as_uint(row.logits[i]) & 0x7f800000u);
  }
  const bool finite = over_block<Largest>(worst, shared) != 0x7f800000u;
  if (threadIdx.x == 0) chosen.finite = finite;
  if (!finite) return;

  // token
  const uint64_t best = likeliest(row, ~uint64_t{0}, shared);
  row.highest = row.logits[id_of(best)];
  int token = wanted.scored >= 0 ? wanted.scored : id_of(best);
  if (wanted.scored < 0 && wanted.temperature != 0) token = draw(row, wanted, shared);
  if (threadIdx.x == 0) chosen.token = token;
  if (wanted.top < 0) return;

  // log-probabilities
  double sum = 0;
  for (int i = threadIdx.x; i < p.vocab; i += kChooseThreads) sum += expf(row.logits[i] - row.highest);
  const double log_sum = row.highest + log(over_block<Plus>(sum, shared));
  if (threadIdx.x == 0) chosen.logprob = static_cast<float>(row.logits[token] - log_sum);
  uint64_t bound = ~uint64_t{0};
  for (int i = 0; i < min(wanted.top, p.vocab); ++i) {
    bound = likeliest(row, bound, shared);
    if (threadIdx.x != 0) continue;
    chosen.top_tokens[i] = id_of(bound);
    chosen.top_logprobs[i] = static_cast<float>(row.logits[id_of(bound)] - log_sum);
  }
}

// logits += B h for rows whose adapter has a part of the head. Grid [vocab / 256, rows].
struct HeadArgs {
  float* logits;  // [rows, vocab]
  int32_t vocab;
  Expand expand;
};
__global__ void __launch_bounds__(256) add_head(HeadArgs p) {
  grid_wait();
  grid_launch_next();
  const int row = blockIdx.y, out = blockIdx.x * 256 + threadIdx.x, slot = p.expand.slot(row);
  if (slot < 0 || out >= p.vocab) return;
  float& logit = p.logits[static_cast<int64_t>(row) * p.vocab + out];
  logit = p.expand.add(logit, row, slot, Module::kHead, 0, out);
}

}  // namespace lorikeet::cuda
