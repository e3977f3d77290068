// Answers worked out by hand: they hold the reference itself to the words of ops.h.
#include "known.h"

#include <algorithm>

#include "case.h"

namespace lorikeet::test {
namespace {

// Every f16 and bf16 there is, against ldexp of its fields.
void check_widening(const Ops& ops, Known& known) {
  constexpr int64_t kAll = 0x10000;
  Halves bits(kAll);
  for (int64_t i = 0; i < kAll; ++i) bits[i] = static_cast<uint16_t>(i);
  Floats f16(kAll), bf16(kAll);
  const int32_t token = 0;
  ops.embed(f16.data(), kAll, {bits.data(), Dtype::kF16, 1, kAll, kAll}, &token, 1);
  ops.embed(bf16.data(), kAll, {bits.data(), Dtype::kBF16, 1, kAll, kAll}, &token, 1);
  for (int64_t i = 0; i < kAll; ++i) {
    known.expect("f16", i, f16[i], f16_by_fields(bits[i]));
    known.expect("bf16", i, bf16[i], bf16_by_fields(bits[i]));
  }
}

// Every bf16 and what lies around the middle between it and the next, through an op that stores the table's
// x: silu(64) is 64, and v / 64 * 64 is v.
void check_rounding(const Ops& ops, Known& known) {
  constexpr int64_t kAll = 0x10000;
  for (uint32_t beyond : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
    Floats gate(kAll, 64), up(kAll), value(kAll);
    for (int64_t i = 0; i < kAll; ++i) {
      value[i] = std::bit_cast<float>(static_cast<uint32_t>(i) << 16 | beyond);
      up[i] = value[i] / 64;
      if (!std::isnan(value[i]) && up[i] * 64 != value[i]) value[i] = up[i] = 0;
    }
    Elements y(ops.x, kAll, 0);
    ops.silu_mul(y.data(), kAll, gate.data(), up.data(), kAll, 1, kAll);
    for (int64_t i = 0; i < kAll; ++i) {
      known.expect("stored", i, y.get(i), ops.x == Dtype::kBF16 ? bf16_by_distance(value[i]) : value[i]);
    }
  }
}

// [rows, cols] as rows of the table's x, and [outs, cols] as panels of what it stores.
Elements rows_of(const Ops& ops, const Floats& x, int64_t rows, int64_t cols) {
  Part all{{}, 0, 0};
  for (int64_t i = 0; i < rows; ++i) all.rows.push_back(i);
  return lay_out(ops.x, x, all, activation_layout(cols, rows));
}
Elements panels_of(const Ops& ops, const Floats& w, int64_t outs, int64_t cols, int64_t padded) {
  Elements data(ops.stored, kPanelOuts * padded, 0);
  for (int64_t i = 0; i < outs * cols; ++i) {
    data.set(panel_index(ops.stored, padded, i / cols, i % cols), w[i]);
  }
  return data;
}
Floats floats(std::initializer_list<float> values) {
  Floats all(static_cast<int64_t>(values.size()));
  std::copy(values.begin(), values.end(), all.data());
  return all;
}

// Two rows of two outputs.
void expect_outputs(Known& known, const char* what, const float* y, const float (&answers)[4]) {
  for (int i = 0; i < 4; ++i) known.expect(what, i, y[i / 2 * kPanelOuts + i % 2], answers[i]);
}

void check_products(const Ops& ops, Known& known) {
  Elements x = rows_of(ops, floats({1, 2, 3, 4, 5, 6}), 2, 3);
  Elements w = panels_of(ops, floats({1, 0, -1, 2, 2, 2}), 2, 3, kColumnStep);
  const Rows rows = {x.data(), activation_layout(3, 2).stride, 2};
  const Panels a = {w.data(), ops.stored, 1, kColumnStep};
  float y[2 * kPanelOuts] = {};
  ops.product(y, kPanelOuts, rows, a, {0, 1, 0, kColumnStep});
  expect_outputs(known, "product", y, {-2, 12, -2, 30});
  known.expect("product beyond the outputs", 2, y[2], 0);

  // h is [[-2, 12], [-2, 30]] times 4 times 0.5 and 0.25.
  const float scales[] = {0.5f, 0.25f};
  Elements second = panels_of(ops, floats({3, 1, 0, 2}), 2, 2, kPageRanks);
  const Panels b = {second.data(), ops.stored, 1, kPageRanks};
  Floats h(kRowStep * kHiddenBytes / 4);
  ops.shrink(h.data(), rows, 4, scales, a);
  y[0] = 100, y[1] = 200, y[kPanelOuts] = 300, y[kPanelOuts + 1] = 400;
  ops.expand(y, kPanelOuts, h.data(), 2, b, 0, 1);
  expect_outputs(known, "shrink and expand", y, {100 - 12 + 24, 200 + 48, 300 - 6 + 30, 400 + 60});

  // Columns 2 and 0 of [[1, 0, -1], [2, 2, 2]]: h is [[-2, 4], [1, 2]].
  const int32_t tokens[] = {2, 0};
  ops.look_up(h.data(), tokens, 2, 4, scales, a);
  y[0] = 100, y[1] = 200, y[kPanelOuts] = 300, y[kPanelOuts + 1] = 400;
  ops.expand(y, kPanelOuts, h.data(), 2, b, 0, 1);
  expect_outputs(known, "look_up and expand", y, {100 - 6 + 4, 200 + 8, 300 + 3 + 2, 400 + 4});
}

void check_attention(const Ops& ops, Known& known) {
  // One head of 2 and a block per 16 tokens: equal keys give the mean of the values; a key far ahead gives
  // its own.
  constexpr int64_t kKeys = kColumnStep * kBlockTokens, kValues = kPanelOuts * kBlockTokens;
  const float q[] = {1, 1, 1, 1};
  const int32_t blocks[] = {1, 0};
  Elements cache(ops.stored, 2 * (kKeys + kValues), 0), out(ops.x, 4, 0);
  Floats scratch(attention_scratch(2));
  const auto token = [&](int64_t t, float key, float first, float second) {
    const int64_t block = blocks[t / kBlockTokens] * (kKeys + kValues), at = t % kBlockTokens;
    cache.set(block + panel_index(ops.stored, kColumnStep, at, 0), key);
    cache.set(block + kKeys + panel_index(ops.stored, kBlockTokens, 0, at), first);
    cache.set(block + kKeys + panel_index(ops.stored, kBlockTokens, 1, at), second);
  };
  Attention a;
  a.q = q, a.q_stride = 2, a.rows = 2, a.heads = 1, a.head_dim = 2, a.position = 15;
  a.blocks = blocks, a.keys = cache.data(), a.values = cache.data(kKeys), a.block_elements = kKeys + kValues;
  a.scale = 1, a.out = out.data(), a.out_stride = 2, a.scratch = scratch.data();
  // Row 0 sees tokens 0 .. 15, row 1 token 16 too.
  for (int64_t t = 0; t < 16; ++t) token(t, 0, t % 2 == 0 ? 1 : 3, 10);
  token(16, 0, 2 + 17, 10 + 34);
  ops.attention(a);
  const float means[] = {2, 10, 3, 12};
  for (int64_t i = 0; i < 4; ++i) known.expect("attention mean", i, out.get(i), means[i]);
  token(16, 1000, 19, 44);
  ops.attention(a);
  const float ones[] = {2, 10, 19, 44};
  for (int64_t i = 0; i < 4; ++i) known.expect("attention one", i, out.get(i), ones[i]);
}

void check_elements(const Ops& ops, Known& known) {
  // A quarter turn of the second pair of each head, none of the first.
  float x[] = {1, 2, 3, 4, 5, 6, 7, 8};
  const float cos[] = {1, 0}, sin[] = {0, 1};
  ops.rope(x, cos, sin, 2, 4);
  const float turned[] = {1, -4, 3, 2, 5, -8, 7, 6};
  for (int i = 0; i < 8; ++i) known.expect("rope", i, x[i], turned[i]);

  // The mean square is 12.5, so that the root of it and eps is 5.
  const float row[] = {3, 4, 3, 4}, weight[] = {5, 10, 20, 40}, normal[] = {3, 8, 12, 32};
  float heads[] = {3, 4, 3, 4};
  Elements y(ops.x, 4, 0);
  ops.norm(y.data(), 4, row, 4, weight, 12.5f, 1, 4);
  ops.norm_heads(heads, weight, 12.5f, 1, 4);
  for (int i = 0; i < 4; ++i) {
    known.expect("norm", i, std::round(y.get(i) * 1e5f) / 1e5f, normal[i]);
    known.expect("norm_heads", i, std::round(heads[i] * 1e5f) / 1e5f, normal[i]);
  }

  const float gate[] = {0, 1000, -1000}, up[] = {5, 2, 2};
  ops.silu_mul(y.data(), 3, gate, up, 3, 1, 3);
  known.expect("silu_mul of 0", 0, y.get(0), 0);
  known.expect("silu_mul of 1000", 1, y.get(1), 2000);
  known.expect("silu_mul of -1000", 2, y.get(2), -0.0f);

  float sums[] = {1, 2, 0, 3, 4};
  const float bias[] = {1, 2};
  ops.add(sums, 3, up, 1, 2, 2);
  ops.add_bias(sums, 3, bias, 2, 2);
  const float added[] = {7, 6, 0, 6, 8};
  for (int i = 0; i < 5; ++i) known.expect("add and add_bias", i, sums[i], added[i]);
}

}  // namespace

void check_known_answers(const Ops& ops, const Record& record) {
  struct Check {
    const char* name;
    void (*run)(const Ops&, Known&);
  };
  for (auto [name, run] : {Check{"known widening", check_widening}, Check{"known rounding", check_rounding},
                           Check{"known products", check_products}, Check{"known attention", check_attention},
                           Check{"known elements", check_elements}}) {
    Known known;
    run(ops, known);
    record(name, known.first_wrong());
  }
}

}  // namespace lorikeet::test
