#pragma once

namespace lorikeet {
namespace {

// One query head over the blocks of its sequence.
struct Head {
  const float* keys;    // of this head in block 0
  const float* values;  // of this head in block 0
  const int32_t* blocks;
  int64_t block_stride;  // floats from block to block
  int64_t context;
  int64_t head_dim;
};

inline int64_t tokens_of_block(const Head& head, int64_t t) {
  const int64_t left = head.context - t;
  return left < kBlockTokens ? left : kBlockTokens;
}

void score_keys(const Head& head, const float* query, float scale, float* scores) {
  for (int64_t t = 0; t < head.context; t += kBlockTokens) {
    const float* keys = head.keys + head.blocks[t / kBlockTokens] * head.block_stride;
    const Products p = {scores + t, 0, query, nullptr, &scale, 1, head.head_dim};
    products<F32>(p, keys, 0, tokens_of_block(head, t));
  }
}

// Turns scores into exp(score - largest) and returns their sum.
float exponentiate(float* scores, int64_t n) {
  float largest = scores[0];
  int64_t t = 0;
  if (n >= kLanes) {
    Vec most = load(scores);
    for (t = kLanes; t + kLanes <= n; t += kLanes) most = max(most, load(scores + t));
    largest = reduce_max(most);
  }
  for (; t < n; ++t) largest = scores[t] > largest ? scores[t] : largest;

  Vec total = zero();
  for (t = 0; t + kLanes <= n; t += kLanes) {
    const Vec e = exp(load(scores + t) - broadcast(largest));
    store(scores + t, e);
    total = total + e;
  }
  if (t < n) {
    store_part(scores + t, exp(load_part(scores + t, n - t) - broadcast(largest)), n - t);
    // Read back, so that the lanes beyond n are 0.
    total = total + load_part(scores + t, n - t);
  }
  return reduce_add(total);
}

// out[0 .. V * kLanes) = sum_t weights[t] * values[t, d ..) / total
template <int V>
void average_values(float* out, const Head& head, const float* weights, float total, int64_t d) {
  Vec sums[V];
  for (int v = 0; v < V; ++v) sums[v] = zero();
  for (int64_t t = 0; t < head.context; t += kBlockTokens) {
    const float* values = head.values + head.blocks[t / kBlockTokens] * head.block_stride + d;
    const int64_t tokens = tokens_of_block(head, t);
    for (int64_t i = 0; i < tokens; ++i) {
      const Vec weight = broadcast(weights[t + i]);
      for (int v = 0; v < V; ++v) {
        sums[v] = fma(weight, load(values + i * head.head_dim + v * kLanes), sums[v]);
      }
    }
  }
  for (int v = 0; v < V; ++v) store(out + v * kLanes, sums[v] / broadcast(total));
}

// The same for the last n < kLanes elements of a head.
void average_values_part(float* out, const Head& head, const float* weights, float total, int64_t n) {
  Vec sum = zero();
  const int64_t d = head.head_dim - n;
  for (int64_t t = 0; t < head.context; ++t) {
    const float* values = head.values + head.blocks[t / kBlockTokens] * head.block_stride;
    const Vec value = load_part(values + t % kBlockTokens * head.head_dim + d, n);
    sum = fma(broadcast(weights[t]), value, sum);
  }
  store_part(out, sum / broadcast(total), n);
}

void attention(float* out, const float* q, const float* k_cache, const float* v_cache, const int32_t* blocks,
               int64_t context, int64_t heads, int64_t kv_heads, int64_t head_dim, float scale, int64_t begin,
               int64_t end, float* scores) {
  const int64_t head_stride = kBlockTokens * head_dim;
  const int64_t group = heads / kv_heads;
  for (int64_t h = begin; h < end; ++h) {
    const int64_t offset = h / group * head_stride;
    const Head head = {k_cache + offset, v_cache + offset, blocks, kv_heads * head_stride, context, head_dim};
    score_keys(head, q + h * head_dim, scale, scores);
    const float total = exponentiate(scores, context);

    float* to = out + h * head_dim;
    int64_t d = 0;
    for (; d + 4 * kLanes <= head_dim; d += 4 * kLanes) average_values<4>(to + d, head, scores, total, d);
    for (; d + kLanes <= head_dim; d += kLanes) average_values<1>(to + d, head, scores, total, d);
    if (d < head_dim) average_values_part(to + d, head, scores, total, head_dim - d);
  }
}

}  // namespace
}  // namespace lorikeet
