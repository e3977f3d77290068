// clang-format off: each of these builds on those before it.
#include "kernels/avx512/vec.h"
#include "kernels/simd/ops.inc.h"
#include "kernels/amx/tiles.inc.h"
// clang-format on

namespace lorikeet {
namespace {

const uint16_t* halves(const void* data) { return static_cast<const uint16_t*>(data); }

void product(float* y, int64_t y_stride, const Rows& x, const Panels& w, const PanelPart& part) {
  const TileScope tiles(TileShapes::kProduct);
  product_rows(y, y_stride, halves(x.data), x.stride, x.rows, w, part);
}

void shrink(void* h, const Rows& x, float scale, const float* scales, const Panels& a) {
  const TileScope tiles(TileShapes::kProduct);
  for (int64_t row = 0; row < x.rows; row += kTileRowsMax) {
    alignas(64) float sums[kTileRowsMax * kPanelOuts];
    const int64_t left = x.rows - row;
    const int64_t count = left < kTileRowsMax ? left : kTileRowsMax;
    product_1x1({sums, kPanelOuts, kTileRowsMax},
                {halves(x.data) + row * x.stride, x.stride, halves(a.data), a.cols * kPanelOuts, a.cols});
    for (int64_t i = 0; i < count; ++i) {
      store_hidden(h, row + i, load(sums + i * kPanelOuts) * broadcast(scale * scales[row + i]));
    }
  }
}

void look_up(void* h, const int32_t* tokens, int64_t rows, float scale, const float* scales,
             const Panels& a) {
  for (int64_t i = 0; i < rows; ++i) {
    Vec ranks[kPanelVecs];
    load_column(ranks, halves(a.data), tokens[i]);
    store_hidden(h, i, ranks[0] * broadcast(scale * scales[i]));
  }
}

void expand(float* y, int64_t y_stride, const void* h, int64_t rows, const Panels& b, int64_t begin,
            int64_t end) {
  const TileScope tiles(TileShapes::kPages);
  expand_rows(y, y_stride, h, rows, halves(b.data) + begin * kPageRanks * kPanelOuts, end - begin);
}

// Scores and values of attention on tiles; a block's weights go through bf16 in two parts, as h does.
struct AmxTiles {
  using X = uint16_t;
  using Stored = uint16_t;
  struct Scope : TileScope {
    Scope() : TileScope(TileShapes::kPages) {}
  };
  static void score(const Queries& queries, int64_t first, const Stored* keys) {
    const auto* q = reinterpret_cast<const X*>(queries.q);
    for (int64_t i = first; i < queries.count; i += kTileRowsMax) {
      const int64_t left = queries.count - i;
      product_1x1(
          {queries.scores + i * kBlockTokens, kBlockTokens, left < kTileRowsMax ? left : kTileRowsMax},
          {q + i * queries.q_cols, queries.q_cols, keys, queries.q_cols * kPanelOuts, queries.q_cols});
    }
  }
  static void add_values(const Queries& queries, int64_t first, const Stored* values) {
    alignas(64) unsigned char h[kAttentionQueries * kHiddenBytes];
    for (int64_t i = first; i < queries.count; ++i) {
      store_hidden(h, i - first, load(queries.scores + i * kBlockTokens));
    }
    expand_rows(queries.sums + first * queries.out_cols, queries.out_cols, h, queries.count - first, values,
                queries.out_cols / kPanelOuts);
  }
};

constexpr Ops amx_table() {
  Ops ops = bfloat16_table();
  ops.x = Dtype::kBF16;
  ops.columns = 512;  // 2 panels, which 64 rows meet, fit the first-level cache beside 16 rows
  ops.norm = norm_as<uint16_t>;
  ops.product = product;
  ops.shrink = shrink;
  ops.look_up = look_up;
  ops.expand = expand;
  ops.attention = attention_as<AmxTiles>;
  ops.silu_mul = silu_mul_as<uint16_t>;
  return ops;
}

}  // namespace

const Ops kAmx = amx_table();

}  // namespace lorikeet
