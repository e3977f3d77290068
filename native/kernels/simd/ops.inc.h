// The SIMD tables: one source, compiled once per instruction set after that set's vec.h.
#pragma once

// clang-format off: each of these builds on those before it.
#include "kernels/tables.h"
#include "kernels/simd/exp.inc.h"
#include "kernels/simd/product.inc.h"
#include "kernels/simd/attention.inc.h"
#include "kernels/simd/elements.inc.h"
// clang-format on

namespace lorikeet {
namespace {

// Weights that came as bf16 are kept so where the rest is float32: widening is exact.
void product_float32(float* y, int64_t y_stride, const Rows& x, const Panels& w, const PanelPart& part) {
  if (w.dtype == Dtype::kBF16) return product_as<Bfloat16Panels>(y, y_stride, x, w, part);
  product_as<Float32Panels>(y, y_stride, x, w, part);
}

constexpr Ops kFloat32Table = {
    .x = Dtype::kF32,
    .stored = Dtype::kF32,
    .columns = 4096,
    .embed = embed,
    .norm = norm_as<float>,
    .norm_heads = norm_heads,
    .product = product_float32,
    .shrink = shrink_as<Float32Panels>,
    .look_up = look_up_as<Float32Panels>,
    .expand = expand_as<Float32Panels>,
    .add_bias = add_bias,
    .rope = rope,
    .attention = attention_as<RegisterTiles<Float32Panels, Float32Panels>>,
    .silu_mul = silu_mul_as<float>,
    .add = add,
};

// bf16 in memory, float32 in registers.
constexpr Ops bfloat16_table() {
  Ops ops = kFloat32Table;
  ops.stored = Dtype::kBF16;
  ops.product = product_as<Bfloat16Panels>;
  ops.shrink = shrink_as<Bfloat16Panels>;
  ops.look_up = look_up_as<Bfloat16Panels>;
  ops.expand = expand_as<Bfloat16Panels>;
  ops.attention = attention_as<RegisterTiles<Bfloat16Panels, Bfloat16Panels>>;
  return ops;
}

}  // namespace
}  // namespace lorikeet
