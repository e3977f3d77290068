// Tiles of products in registers: rows of x times panels. What base products, both products of a LoRA, scores and
// values of attention have in common.
#pragma once

namespace lorikeet {
namespace {

// How rows of X meet panels of W. A panel's columns come in steps of two; a step has kHalves parts, in order: two
// columns one after the other, or a pair at once.

struct Float32Panels {
  using X = float;
  using W = float;
  static constexpr Dtype kStored = Dtype::kF32;
  static constexpr int kHalves = 2;
  static Vec load(const W* step, int half, int v) { return lorikeet::load(step + half * kPanelOuts + v * kLanes); }
  static Vec spread(const X* step, int half) { return broadcast(step[half]); }
  static Vec multiply(Vec x, Vec w, Vec sum) { return fma(x, w, sum); }
};

struct Bfloat16Panels {
  using X = float;
  using W = uint16_t;
  static constexpr Dtype kStored = Dtype::kBF16;
  static constexpr int kHalves = 2;
  static Vec load(const W* step, int half, int v) {
    return half == 0 ? load_even(step + 2 * v * kLanes) : load_odd(step + 2 * v * kLanes);
  }
  static Vec spread(const X* step, int half) { return broadcast(step[half]); }
  static Vec multiply(Vec x, Vec w, Vec sum) { return fma(x, w, sum); }
};

// What a tile asks memory for while it multiplies, as weights are in no cache: a few rows, what comes a little later in
// their own panels; tiles of more rows, which meet the same panels one after the other, their share of the next ones.
constexpr int64_t kPrefetchBytes = 1024;
struct Ahead {
  const char* at;
  int64_t step;  // bytes per two columns
};

// R rows times O panels, added to the sums. Each sum takes the same steps in every tile: columns in turn.
template <class P, int R, int O>
[[gnu::always_inline]] inline void tile(Vec (&sums)[R][O][kPanelVecs], const typename P::X* const (&x)[R],
                                        const typename P::W* w, int64_t panel, int64_t cols, Ahead ahead) {
  for (int64_t k = 0; k < cols; k += 2) {
    const typename P::W* step = w + k * kPanelOuts;
    if constexpr (R <= 2) {
      for (int o = 0; o < O; ++o) {
        _mm_prefetch(reinterpret_cast<const char*>(step + o * panel) + kPrefetchBytes, _MM_HINT_T0);
      }
    } else {
      _mm_prefetch(ahead.at, _MM_HINT_T1);
      ahead.at += ahead.step;
    }
    for (int half = 0; half < P::kHalves; ++half) {
      Vec wide[O][kPanelVecs];
      for (int o = 0; o < O; ++o) {
        for (int v = 0; v < kPanelVecs; ++v) wide[o][v] = P::load(step + o * panel, half, v);
      }
      for (int r = 0; r < R; ++r) {
        Vec spread = P::spread(x[r] + k, half);
        if constexpr (R > 1) asm volatile("" : "+v"(spread));  // in this order: else sums are spilled
        for (int o = 0; o < O; ++o) {
          for (int v = 0; v < kPanelVecs; ++v) {
            sums[r][o][v] = P::multiply(spread, wide[o][v], sums[r][o][v]);
          }
        }
      }
    }
  }
}

template <class P>
struct Operands {
  const typename P::X* x;
  int64_t x_stride;
  int64_t rows;
  const typename P::W* w;
  int64_t panel;  // elements from panel to panel
  int64_t cols;   // that meet
};

// Where sums begin and what becomes of them: y[row, out] = scale * scales[row] * sum, or with `adds` y[row, out] += sum,
// or with `goes_on` y[row, out] is where the sum begins. Decided at run time: as a parameter of the templates it would
// compile every tile once per use.
struct Put {
  float* y;  // of output 0
  int64_t y_stride;
  bool adds = false;
  bool goes_on = false;
  float scale = 1;
  const float* scales = nullptr;  // [rows]; none: 1

  Vec begin(int64_t row, int64_t out) const { return goes_on ? load(y + row * y_stride + out) : zero(); }
  void operator()(int64_t row, int64_t out, Vec sum) const {
    float* to = y + row * y_stride + out;
    if (scales != nullptr) sum = sum * broadcast(scale * scales[row]);
    store(to, adds ? load(to) + sum : sum);
  }
};

// One tile.
template <class P, int R, int O>
[[gnu::always_inline]] inline void put_tile(const Operands<P>& p, int64_t row, int64_t panel, const Put& put) {
  const typename P::X* rows[R];
  for (int r = 0; r < R; ++r) rows[r] = p.x + (row + r) * p.x_stride;
  const typename P::W* w = p.w + panel * p.panel;
  // Of the next O panels one after the other: these rows' share of them.
  const int64_t columns = O * p.cols * row / p.rows;
  const typename P::W* next = w + (O + columns / p.cols) * p.panel + columns % p.cols * kPanelOuts;
  const Ahead ahead = {reinterpret_cast<const char*>(next),
                       O * 2 * kPanelOuts * static_cast<int64_t>(sizeof(typename P::W)) * R / p.rows};
  Vec sums[R][O][kPanelVecs];
  for (int r = 0; r < R; ++r) {
    for (int o = 0; o < O; ++o) {
      for (int v = 0; v < kPanelVecs; ++v) sums[r][o][v] = put.begin(row + r, (panel + o) * kPanelOuts + v * kLanes);
    }
  }
  tile<P, R, O>(sums, rows, w, p.panel, p.cols, ahead);
  for (int r = 0; r < R; ++r) {
    for (int o = 0; o < O; ++o) {
      for (int v = 0; v < kPanelVecs; ++v) put(row + r, (panel + o) * kPanelOuts + v * kLanes, sums[r][o][v]);
    }
  }
}

// The last, at most R, rows.
template <class P, int R, int O>
inline void put_rest(const Operands<P>& p, int64_t row, int64_t panel, const Put& put) {
  if constexpr (R > 0) {
    if (p.rows - row == R) return put_tile<P, R, O>(p, row, panel, put);
    put_rest<P, R - 1, O>(p, row, panel, put);
  }
}

// Panels side by side in a tile of `rows` rows: few rows leave registers free, and several streams of weights hide
// the latency of memory.
constexpr int tile_panels(int rows) {
  const int most = kTileSums / (rows * kPanelVecs);
  return most > 4 ? 4 : most < 1 ? 1 : most;
}

// Tiles of R rows by O panels; returns the first panel that is left.
template <class P, int R, int O>
inline int64_t put_panels(const Operands<P>& p, int64_t begin, int64_t end, const Put& put) {
  int64_t panel = begin;
  for (; panel + O <= end; panel += O) {
    int64_t row = 0;
    for (; row + R <= p.rows; row += R) put_tile<P, R, O>(p, row, panel, put);
    if constexpr (R == kTileRows) put_rest<P, R - 1, O>(p, row, panel, put);
  }
  return panel;
}

// Chooses the tile for the number of rows.
template <class P, int R = kTileRows>
inline void products(const Operands<P>& p, int64_t begin, int64_t end, const Put& put) {
  if constexpr (R > 1) {
    if (p.rows < R) return products<P, R - 1>(p, begin, end, put);
  }
  constexpr int O = tile_panels(R);
  const int64_t left = put_panels<P, R, O>(p, begin, end, put);
  if constexpr (O > 1) put_panels<P, R, 1>(p, left, end, put);
}

template <class P>
Operands<P> operands_of(const void* x, int64_t x_stride, int64_t rows, const Panels& w) {
  return {static_cast<const typename P::X*>(x), x_stride, rows, static_cast<const typename P::W*>(w.data),
          w.cols * kPanelOuts, w.cols};
}

template <class P>
void product_as(float* y, int64_t y_stride, const Rows& x, const Panels& w, const PanelPart& part) {
  Operands<P> operands = operands_of<P>(x.data, x.stride, x.rows, w);
  operands.x += part.from;
  operands.w += part.from * kPanelOuts;
  operands.cols = part.to - part.from;
  products<P>(operands, part.begin, part.end,
              {.y = y - part.begin * kPanelOuts, .y_stride = y_stride, .goes_on = part.from > 0});
}

template <class P>
void shrink_as(void* h, const Rows& x, float scale, const float* scales, const Panels& a) {
  products<P>(operands_of<P>(x.data, x.stride, x.rows, a), 0, 1,
              {.y = static_cast<float*>(h), .y_stride = kPageRanks, .scale = scale, .scales = scales});
}

// The 16 ranks of one column of A.
template <class W>
inline void load_column(Vec (&ranks)[kPanelVecs], const W* a, int64_t column) {
  for (int v = 0; v < kPanelVecs; ++v) {
    if constexpr (sizeof(W) == sizeof(float)) {
      ranks[v] = load(a + column * kPageRanks + v * kLanes);
    } else {
      const W* pairs = a + column / 2 * 2 * kPageRanks + 2 * v * kLanes;
      ranks[v] = column % 2 == 0 ? load_even(pairs) : load_odd(pairs);
    }
  }
}

template <class P>
void look_up_as(void* h, const int32_t* tokens, int64_t rows, float scale, const float* scales, const Panels& a) {
  for (int64_t i = 0; i < rows; ++i) {
    Vec ranks[kPanelVecs];
    load_column(ranks, static_cast<const typename P::W*>(a.data), tokens[i]);
    for (int v = 0; v < kPanelVecs; ++v) {
      store(static_cast<float*>(h) + i * kPageRanks + v * kLanes, ranks[v] * broadcast(scale * scales[i]));
    }
  }
}

// h is float32, [rows, kPageRanks].
template <class P>
void expand_as(float* y, int64_t y_stride, const void* h, int64_t rows, const Panels& b, int64_t begin,
               int64_t end) {
  products<P>(operands_of<P>(h, kPageRanks, rows, b), begin, end,
              {.y = y - begin * kPanelOuts, .y_stride = y_stride, .adds = true});
}

}  // namespace
}  // namespace lorikeet
