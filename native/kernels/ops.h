// The table of kernels. Every instruction set fills the same table; the executor calls nothing else.
// Accumulation and residual are float32; what products read and what is stored is float32 or bfloat16, by
// table.
//
// Rules that every table keeps:
//  - A row's result depends on that row alone: the order of every reduction is fixed by the shapes, never by
//    `rows`, by neighbours, by [begin, end) or by the thread. So a batch of N equals each row alone, bit for
//    bit.
//  - No op allocates, throws, or writes outside what its shapes say. Where rows of activations or of h are
//    read, whole groups of kRowStep rows may be read; their content beyond `rows` may be NaN.
//  - Pointers need no alignment beyond that of their element type.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/layout.h"
#include "kernels/pack.h"

namespace lorikeet {

// Rows of activations, of the table's type `x`: zero between the true columns and those of the panels they
// meet.
struct Rows {
  const void* data = nullptr;
  int64_t stride = 0;  // elements from row to row
  int64_t rows = 0;
};

// A part of panels: outputs of panels [begin, end), columns [from, to), both multiples of kColumnStep.
struct PanelPart {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t from = 0;
  int64_t to = 0;
};

// Queries of consecutive positions of one sequence, for `heads` query heads that share one kv head.
struct Attention {
  const float* q = nullptr;  // [rows, heads, head_dim] with q_stride floats from row to row
  int64_t q_stride = 0;
  int64_t rows = 0;
  int64_t heads = 0;
  int64_t head_dim = 0;
  int64_t position = 0;  // of the first row; row i sees tokens 0 .. position + i
  const int32_t* blocks = nullptr;
  // Of this kv head in block 0; one block after the other at block_elements. All values of a block that a row
  // meets are finite, those of tokens that it does not see too: they are multiplied by 0.
  const void* keys = nullptr;    // panels [1][round_up(head_dim, kColumnStep)] of 16 tokens
  const void* values = nullptr;  // panels [head_dim / 16, rounded up][kBlockTokens]
  int64_t block_elements = 0;
  float scale = 0;
  void* out = nullptr;  // as q, of type `x`
  int64_t out_stride = 0;
  float* scratch = nullptr;  // attention_scratch(head_dim) floats
};
// rows * heads of one call.
constexpr int64_t kAttentionQueries = 64;
constexpr int64_t attention_scratch(int64_t head_dim) {
  return kAttentionQueries * (2 * round_up(head_dim, kColumnStep) + 2 * kBlockTokens);
}

// Bytes of a row of h, the product of a row with one page's A: 16 ranks, in a form of the table's own.
constexpr int64_t kHiddenBytes = 64;

struct Ops {
  Dtype x;       // of the rows that products read
  Dtype stored;  // of keys, values and adapters' pages; of weights that are not stored so already
  // Columns of a part that many rows had best meet at a time; 0: all, and the table takes them no other way.
  int64_t columns;

  // Semantics: y[i, :] = table[tokens[i], :]            y [rows, table.cols] with y_stride
  void (*embed)(float* y, int64_t y_stride, const Matrix& table, const int32_t* tokens, int64_t rows);

  // Semantics: y[i, :] = x[i, :] / sqrt(mean(x[i, :]^2) + eps) * weight
  // x [rows, cols] with x_stride; y of type `x`, y_stride elements from row to row.
  void (*norm)(void* y, int64_t y_stride, const float* x, int64_t x_stride, const float* weight, float eps,
               int64_t rows, int64_t cols);

  // The same in place, float32, for [heads, head_dim] dense.
  void (*norm_heads)(float* x, const float* weight, float eps, int64_t heads, int64_t head_dim);

  // Semantics: y[i, o - 16 begin] = sum_k x[i, k] * w[o, k]     for outputs o and columns k of the part
  // Where the part does not begin with column 0, y holds the sums of the columns before it, and they go on:
  // parts in turn give the bits of the whole.
  void (*product)(float* y, int64_t y_stride, const Rows& x, const Panels& w, const PanelPart& part);

  // A LoRA's first product, with one page's A.
  // Semantics: h[i, j] = scale * scales[i] * sum_k x[i, k] * a[j, k]     h [rows] of kHiddenBytes
  void (*shrink)(void* h, const Rows& x, float scale, const float* scales, const Panels& a);

  // The same where x is one-hot, as for the embedding: a column of A per row.
  // Semantics: h[i, j] = scale * scales[i] * a[j, tokens[i]]     h [rows] of kHiddenBytes
  void (*look_up)(void* h, const int32_t* tokens, int64_t rows, float scale, const float* scales,
                  const Panels& a);

  // A LoRA's second product, with one page's B, panels of kPageRanks columns.
  // Semantics: y[i, o - 16 begin] += sum_j h[i, j] * b[o, j]     for outputs o of panels [begin, end)
  void (*expand)(float* y, int64_t y_stride, const void* h, int64_t rows, const Panels& b, int64_t begin,
                 int64_t end);

  // Semantics: y[i, o] += bias[o]                       y [rows, cols] with y_stride
  void (*add_bias)(float* y, int64_t y_stride, const float* bias, int64_t rows, int64_t cols);

  // Rotary embedding in the half-split layout of Hugging Face (rotate_half), in place.
  // x [heads, head_dim] of one row; cos, sin [head_dim / 2] of its position.
  // Semantics: with h = head_dim / 2, for j < h:
  //   x[j], x[j + h] = x[j] * cos[j] - x[j + h] * sin[j],  x[j + h] * cos[j] + x[j] * sin[j]
  void (*rope)(float* x, const float* cos, const float* sin, int64_t heads, int64_t head_dim);

  // Causal attention over a paged cache, grouped-query, in one pass (online softmax).
  // Semantics: out[i, h] = softmax(q[i, h] . K^T * scale) . V over tokens 0 .. position + i
  void (*attention)(const Attention& a);

  // Semantics: y[i, o] = gate[i, o] / (1 + exp(-gate[i, o])) * up[i, o]     y of type `x`
  // gate and up [rows, cols] with g_stride floats from row to row.
  void (*silu_mul)(void* y, int64_t y_stride, const float* gate, const float* up, int64_t g_stride,
                   int64_t rows, int64_t cols);

  // Semantics: y[i, o] += x[i, o]                       [rows, cols] with strides
  void (*add)(float* y, int64_t y_stride, const float* x, int64_t x_stride, int64_t rows, int64_t cols);
};

// An instruction set that kernels are written for.
struct Isa {
  const char* name;
  const Ops* float32;
  const Ops* bfloat16;     // nullptr for `reference`, which is exact
  bool (*is_available)();  // on this processor
};

// All of this build, the plainest first: reference, then faster and faster ones.
std::span<const Isa> instruction_sets();

}  // namespace lorikeet
