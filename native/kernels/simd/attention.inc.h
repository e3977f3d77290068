// Attention in one pass over keys and values: the queries of a tile meet one block of 16 tokens after the other.
#pragma once

namespace lorikeet {
namespace {

// The queries of one call: query i is head i % heads of row i / heads. All arrays are parts of the call's scratch.
struct Queries {
  int64_t count;
  int64_t q_cols;    // padded columns of a query
  int64_t out_cols;  // padded columns of a sum
  float* q;          // [count, q_cols], elements of the table's x
  float* sums;       // [count, out_cols]
  float* scores;     // [count, kBlockTokens]: then the weights of a block's tokens
  float* largest;    // [count]
  float* total;      // [count]
};

template <class X>
void load_queries(const Attention& a, const Queries& queries) {
  for (int64_t i = 0; i < queries.count; ++i) {
    const float* from = a.q + i / a.heads * a.q_stride + i % a.heads * a.head_dim;
    X* to = reinterpret_cast<X*>(queries.q) + i * queries.q_cols;
    for (int64_t d = 0; d < queries.q_cols; d += kLanes) {
      const int64_t n = a.head_dim - d;
      store(to + d, n >= kLanes ? load(from + d) : n > 0 ? load_part(from + d, n) : zero());
    }
    float* sums = queries.sums + i * queries.out_cols;
    for (int64_t d = 0; d < queries.out_cols; d += kLanes) store(sums + d, zero());
    queries.largest[i] = -__builtin_inff();
    queries.total[i] = 0;
  }
}

// Turns a query's scores of one block into weights exp(score - largest), of which `visible` tokens count, and brings
// its earlier sums to the new largest score. Only scores, totals and sums of this query are touched.
inline void weigh_block(const Queries& queries, int64_t query, float scale, int64_t visible) {
  float* scores = queries.scores + query * kBlockTokens;
  Vec most = broadcast(-__builtin_inff());
  for (int64_t t = 0; t < kBlockTokens; t += kLanes) {
    const int64_t n = visible - t;
    if (n <= 0) break;
    const Vec scaled = load(scores + t) * broadcast(scale);
    store(scores + t, scaled);
    if (n >= kLanes) {
      most = max(scaled, most);
    } else {
      for (int64_t i = n; i < kLanes; ++i) scores[t + i] = -__builtin_inff();
      most = max(load(scores + t), most);
    }
  }
  const float before = queries.largest[query];
  const float block_largest = reduce_max(most);
  const float largest = block_largest > before ? block_largest : before;
  Vec total = zero();
  for (int64_t t = 0; t < kBlockTokens; t += kLanes) {
    if (t >= visible) {
      store(scores + t, zero());
      continue;
    }
    Vec weights = exp(load(scores + t) - broadcast(largest));
    if (visible - t < kLanes) {
      store(scores + t, weights);
      for (int64_t i = visible - t; i < kLanes; ++i) scores[t + i] = 0;
      weights = load(scores + t);
    }
    store(scores + t, weights);
    total = total + weights;
  }
  queries.largest[query] = largest;
  if (largest == before) {
    queries.total[query] += reduce_add(total);
    return;
  }
  float kept[kLanes];
  store(kept, exp(broadcast(before - largest)));
  queries.total[query] = queries.total[query] * kept[0] + reduce_add(total);
  float* sums = queries.sums + query * queries.out_cols;
  for (int64_t d = 0; d < queries.out_cols; d += kLanes) store(sums + d, load(sums + d) * broadcast(kept[0]));
}

template <class X>
void store_averages(const Attention& a, const Queries& queries) {
  for (int64_t i = 0; i < queries.count; ++i) {
    const float* sums = queries.sums + i * queries.out_cols;
    X* to = static_cast<X*>(a.out) + i / a.heads * a.out_stride + i % a.heads * a.head_dim;
    const Vec total = broadcast(queries.total[i]);
    int64_t d = 0;
    for (; d + kLanes <= a.head_dim; d += kLanes) store(to + d, load(sums + d) / total);
    if (d < a.head_dim) store_part(to + d, load(sums + d) / total, a.head_dim - d);
  }
}

// T says how scores and weighted sums of a block are computed; its Scope lives as long as the call.
template <class T>
void attention_as(const Attention& a) {
  [[maybe_unused]] const typename T::Scope scope;
  Queries queries;
  queries.count = a.rows * a.heads;
  queries.q_cols = round_up(a.head_dim, kColumnStep);
  queries.out_cols = round_up(a.head_dim, kPanelOuts);
  queries.q = a.scratch;
  queries.sums = queries.q + kAttentionQueries * queries.q_cols;
  queries.scores = queries.sums + kAttentionQueries * queries.out_cols;
  queries.largest = queries.scores + kAttentionQueries * kBlockTokens;
  queries.total = queries.largest + kAttentionQueries;
  load_queries<typename T::X>(a, queries);

  const int64_t context = a.position + a.rows;
  for (int64_t t = 0; t < context; t += kBlockTokens) {
    // Rows that see the block are the last ones: those from position t on.
    const int64_t first = t > a.position ? (t - a.position) * a.heads : 0;
    const int64_t block = a.blocks[t / kBlockTokens] * a.block_elements;
    const auto* keys = static_cast<const typename T::Stored*>(a.keys) + block;
    const auto* values = static_cast<const typename T::Stored*>(a.values) + block;
    T::score(queries, first, keys);
    for (int64_t i = first; i < queries.count; ++i) {
      const int64_t seen = a.position + i / a.heads + 1 - t;
      weigh_block(queries, i, a.scale, seen < kBlockTokens ? seen : kBlockTokens);
    }
    T::add_values(queries, first, values);
  }
  store_averages<typename T::X>(a, queries);
}

// In registers. K: how queries meet keys, V: how weights meet values.
template <class K, class V>
struct RegisterTiles {
  using X = typename K::X;
  using Stored = typename K::W;
  struct Scope {};
  static void score(const Queries& queries, int64_t first, const Stored* keys) {
    float* scores = queries.scores + first * kBlockTokens;
    const X* q = reinterpret_cast<const X*>(queries.q) + first * queries.q_cols;
    products<K>({q, queries.q_cols, queries.count - first, keys, queries.q_cols * kPanelOuts, queries.q_cols}, 0, 1,
                {scores, kBlockTokens});
  }
  static void add_values(const Queries& queries, int64_t first, const Stored* values) {
    const Panels panels = {values, V::kStored, queries.out_cols / kPanelOuts, kBlockTokens};
    expand_as<V>(queries.sums + first * queries.out_cols, queries.out_cols, queries.scores + first * kBlockTokens,
                 queries.count - first, panels, 0, panels.panels);
  }
};

}  // namespace
}  // namespace lorikeet
