// Rows of bf16 times panels of bf16, a pair of columns per instruction (VDPBF16PS: rounds to nearest, flushes
// subnormals).
#pragma once

namespace lorikeet {
namespace {

struct DotPanels {
  using X = uint16_t;
  using W = uint16_t;
  static constexpr Dtype kStored = Dtype::kBF16;
  static constexpr int kHalves = 1;
  static Vec load(const W* step, int, int) { return _mm512_loadu_ps(step); }
  static Vec spread(const X* step, int) {
    int32_t pair;
    __builtin_memcpy(&pair, step, sizeof pair);
    return _mm512_castsi512_ps(_mm512_set1_epi32(pair));
  }
  static Vec multiply(Vec x, Vec w, Vec sum) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(w), reinterpret_cast<__m512bh>(x));
  }
};

// h stays float32, and so do the weights of attention.
constexpr Ops dot_table() {
  Ops ops = bfloat16_table();
  ops.x = Dtype::kBF16;
  ops.norm = norm_as<uint16_t>;
  ops.product = product_as<DotPanels>;
  ops.shrink = shrink_as<DotPanels>;
  ops.attention = attention_as<RegisterTiles<DotPanels, Bfloat16Panels>>;
  ops.silu_mul = silu_mul_as<uint16_t>;
  return ops;
}

}  // namespace
}  // namespace lorikeet
