// Sizes and the one memory layout that plans, executors and kernels agree on.
//
// What stands on the right of a product lies in panels of 16 outputs: base weights, A and B of adapters, keys
// (16 tokens are 16 outputs), values (16 columns of the head are 16 outputs, tokens are what is summed over).
// One layout serves one row and five hundred, vector units and tile units:
//
//   float32:   [outs / 16][cols][16]
//   bfloat16:  [outs / 16][cols / 2][16][2]      pairs of columns, as dot and tile instructions read them
#pragma once

#include <cstdint>

#include "kernels/dtypes.h"

namespace lorikeet {

// Tokens of one block of the KV cache.
constexpr int64_t kBlockTokens = 16;
// Ranks of one page of an adapter.
constexpr int64_t kPageRanks = 16;
// Columns of a query head.
constexpr int64_t kHeadDimMax = 512;
// Outputs of a panel.
constexpr int64_t kPanelOuts = 16;
// Columns of panels that rows of activations are multiplied with are padded with zeros to a multiple of this.
constexpr int64_t kColumnStep = 32;
// Rows that an op reads beside those it is asked for: buffers of rows end at a multiple of this.
constexpr int64_t kRowStep = 16;

constexpr int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }
constexpr int64_t blocks_for(int64_t tokens) { return (tokens + kBlockTokens - 1) / kBlockTokens; }
constexpr int64_t pages_for(int64_t rank) { return (rank + kPageRanks - 1) / kPageRanks; }
constexpr int64_t panels_for(int64_t outs) { return (outs + kPanelOuts - 1) / kPanelOuts; }

// A matrix in panels. `cols` is padded; outputs and columns beyond the true ones are zero.
struct Panels {
  const void* data = nullptr;
  Dtype dtype = Dtype::kF32;  // kF32 or kBF16
  int64_t panels = 0;
  int64_t cols = 0;
};

// Index of element (out, col).
constexpr int64_t panel_index(Dtype dtype, int64_t cols, int64_t out, int64_t col) {
  const int64_t panel = out / kPanelOuts * cols * kPanelOuts, lane = out % kPanelOuts;
  if (dtype == Dtype::kF32) return panel + col * kPanelOuts + lane;
  return panel + col / 2 * 2 * kPanelOuts + 2 * lane + col % 2;
}

}  // namespace lorikeet
