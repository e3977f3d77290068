// The table of kernels. Every backend fills the same table; the engine calls
// nothing else. Activations are float32, accumulation is float32.
//
// Rules that every backend keeps:
//  - A row's result depends on that row alone: the order of every reduction is
//    fixed by the shapes, never by `rows`, by neighbours or by the thread. So a
//    batch of N equals each row alone, bit for bit.
//  - No op allocates, throws, or reads outside what its shapes say. What lies there
//    beyond a shape (other ranks of a page, tokens past the context) may be NaN.
//  - Pointers need no alignment beyond that of their element type.
//  - Ops that take [begin, end) write that part of the output only, so that the
//    caller can split the work over threads. Any split gives the same bits.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/dtypes.h"
#include "kernels/layout.h"

namespace lorikeet {

// Row-major [rows, cols], as stored in a safetensors file.
struct Matrix {
  const void* data = nullptr;
  Dtype dtype = Dtype::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
};

struct Ops {
  const char* name;  // "reference", "avx2", "avx512"

  // Semantics: y[i, :] = table[tokens[i], :]            y [rows, table.cols]
  void (*embed)(float* y, const Matrix& table, const int32_t* tokens, int64_t rows);

  // Semantics: y[i, :] = x[i, :] / sqrt(mean(x[i, :]^2) + eps) * weight      x, y [rows, cols]; y may be x
  void (*rms_norm)(float* y, const float* x, const float* weight, float eps, int64_t rows, int64_t cols);

  // Semantics: y[i, o] = sum_k x[i, k] * w[o, k]        for o in [begin, end)
  // x [rows, w.cols] dense; y has y_stride floats from row to row.
  void (*linear)(float* y, int64_t y_stride, const float* x, const Matrix& w, int64_t rows, int64_t begin,
                 int64_t end);

  // Semantics: y[i, :] += bias                          y [rows, cols]
  void (*add_bias)(float* y, const float* bias, int64_t rows, int64_t cols);

  // Rotary embedding in the half-split layout of Hugging Face (rotate_half), in place.
  // x [rows, heads, head_dim] with x_stride floats from row to row; cos, sin [positions, head_dim / 2].
  // Semantics: with p = positions[i], h = head_dim / 2, for j < h:
  //   x[j], x[j + h] = x[j] * cos[p, j] - x[j + h] * sin[p, j],  x[j + h] * cos[p, j] + x[j] * sin[p, j]
  void (*rope)(float* x, int64_t x_stride, const int32_t* positions, const float* cos, const float* sin,
               int64_t rows, int64_t heads, int64_t head_dim);

  // Causal attention of one query row over a paged cache, grouped-query, for heads [begin, end).
  // q, out [heads, head_dim]. k_cache, v_cache [blocks, kv_heads, kBlockTokens, head_dim] of one layer;
  // blocks [ceil(context / kBlockTokens)]: the sequence's block table. scores [context]: scratch of this
  // call. context >= 1; kv_heads divides heads. Semantics: for each head: out = softmax(q . K^T * scale) . V
  // over positions 0 .. context - 1.
  void (*attention)(float* out, const float* q, const float* k_cache, const float* v_cache,
                    const int32_t* blocks, int64_t context, int64_t heads, int64_t kv_heads, int64_t head_dim,
                    float scale, int64_t begin, int64_t end, float* scores);

  // Semantics: y[i] = gate[i] / (1 + exp(-gate[i])) * up[i]                 y may be gate
  void (*silu_mul)(float* y, const float* gate, const float* up, int64_t n);

  // Semantics: y[i] += x[i]
  void (*add)(float* y, const float* x, int64_t n);

  // One page's share of a LoRA's first product.
  // Semantics: h[i, j] = scales[i] * sum_k x[i, k] * a[j, k]   for j < ranks
  // x [rows, cols] gathered by row_index: the i-th row is x + row_index[i] * cols. a [ranks, cols].
  // h [rows, kPageRanks]. scales [rows] is alpha / r (or its rsLoRA form) times the request's own scale.
  void (*lora_shrink)(float* h, const float* x, const int32_t* row_index, const float* scales, const float* a,
                      int64_t ranks, int64_t rows, int64_t cols);

  // One page's share of a LoRA's second product, added to the base result.
  // Semantics: y[row_index[i], o] += sum_{j < ranks} h[i, j] * b[o, j]   for o in [begin, end)
  // h [rows, kPageRanks]; b [out, kPageRanks]; y has y_stride floats from row to row. No row occurs twice.
  void (*lora_expand)(float* y, int64_t y_stride, const float* h, const int32_t* row_index, const float* b,
                      int64_t ranks, int64_t rows, int64_t begin, int64_t end);
};

// An instruction set that kernels are written for.
struct Isa {
  const char* name;
  const Ops* ops;
  bool (*is_available)();  // on this processor
};

// All of this build, the plainest first: reference, then faster and faster ones.
std::span<const Isa> instruction_sets();

}  // namespace lorikeet
