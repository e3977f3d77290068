// Dot products of rows of x with rows of w, in tiles held in registers: what linear,
// lora_shrink and the scores of attention have in common.
#pragma once

namespace lorikeet {
namespace {

// Semantics: y[i, o] = scales[i] * sum_k x[row_index[i], k] * w[o, k]
struct Products {
  float* y;
  int64_t y_stride;
  const float* x;            // [.., cols]
  const int32_t* row_index;  // [rows], or nullptr for 0, 1, 2, ...
  const float* scales;       // [rows], or nullptr for 1
  int64_t rows;
  int64_t cols;
};

// Rows that share one pass over w: such a panel of x stays in the second-level cache.
constexpr int64_t kPanelRows = 32;

template <class W, int R, int O, bool kTail>
[[gnu::always_inline]] inline void accumulate(Vec (&sums)[R][O], const float* const (&x)[R],
                                              const typename W::Element* w, int64_t cols, int64_t k) {
  Vec wide[O];
  for (int o = 0; o < O; ++o) {
    wide[o] = kTail ? W::load_part(w + o * cols + k, cols - k) : W::load(w + o * cols + k);
  }
  for (int r = 0; r < R; ++r) {
    const Vec v = kTail ? load_part(x[r] + k, cols - k) : load(x[r] + k);
    for (int o = 0; o < O; ++o) sums[r][o] = fma(v, wide[o], sums[r][o]);
  }
}

// R rows of x from `row` on times O rows of w from `out` on. Each sum takes the same steps in
// every tile shape: lane l adds k = l, l + kLanes, ... in turn, then the lanes are added.
template <class W, int R, int O>
void tile(const Products& p, const typename W::Element* w, int64_t row, int64_t out) {
  const float* x[R];
  for (int r = 0; r < R; ++r) x[r] = p.x + (p.row_index ? p.row_index[row + r] : row + r) * p.cols;
  w += out * p.cols;

  Vec sums[R][O];
  for (int r = 0; r < R; ++r) {
    for (int o = 0; o < O; ++o) sums[r][o] = zero();
  }
  int64_t k = 0;
  for (; k + kLanes <= p.cols; k += kLanes) accumulate<W, R, O, false>(sums, x, w, p.cols, k);
  if (k < p.cols) accumulate<W, R, O, true>(sums, x, w, p.cols, k);

  for (int r = 0; r < R; ++r) {
    const float scale = p.scales ? p.scales[row + r] : 1;
    for (int o = 0; o < O; ++o) p.y[(row + r) * p.y_stride + out + o] = scale * reduce_add(sums[r][o]);
  }
}

template <class W, int O>
void tiles_of_rows(const Products& p, const typename W::Element* w, int64_t row, int64_t row_end,
                   int64_t out) {
  if constexpr (O <= kTileOuts) {
    static_assert(kTileRows == 4);
    for (; row + 4 <= row_end; row += 4) tile<W, 4, O>(p, w, row, out);
    if (row_end - row == 3) tile<W, 3, O>(p, w, row, out);
  }
  if (row_end - row == 2) tile<W, 2, O>(p, w, row, out);
  if (row_end - row == 1) tile<W, 1, O>(p, w, row, out);
}

template <class W>
void products(const Products& p, const typename W::Element* w, int64_t begin, int64_t end) {
  for (int64_t row = 0; row < p.rows; row += kPanelRows) {
    const int64_t row_end = row + kPanelRows < p.rows ? row + kPanelRows : p.rows;
    int64_t out = begin;
    if (row_end - row <= 2) {
      // Few rows leave registers free: more rows of w at once keep more loads in flight.
      for (; out + kFewRowsOuts <= end; out += kFewRowsOuts) {
        tiles_of_rows<W, kFewRowsOuts>(p, w, row, row_end, out);
      }
    }
    for (; out + kTileOuts <= end; out += kTileOuts) tiles_of_rows<W, kTileOuts>(p, w, row, row_end, out);
    for (; out < end; ++out) tiles_of_rows<W, 1>(p, w, row, row_end, out);
  }
}

}  // namespace
}  // namespace lorikeet
