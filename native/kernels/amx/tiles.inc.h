// Products on AMX's tiles (TDPBF16PS: 16 rows x 16 outputs x 32 columns per instruction, fp32 sums, columns in turn).
// A panel of bf16 pairs is a sequence of such tiles as it lies.
#pragma once

namespace lorikeet {
namespace {

constexpr int64_t kTileRowsMax = 16;
// Elements of a panel that one tile holds: 16 pairs of columns x 16 outputs.
constexpr int64_t kTilePanel = kColumnStep * kPanelOuts;

// What the tile registers hold, while the scope lives:
//   kProduct: 0 to 3 sums, 4 and 5 rows of 32 columns, 6 and 7 panels of 32 columns
//   kPages:   0 sums, 4 rows and 6 a panel of 32 columns, 3 and 5 rows and 7 a panel of 16 columns
enum class TileShapes { kProduct, kPages };

class TileScope {
 public:
  explicit TileScope(TileShapes shapes) {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t col_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } config;
    if (shapes == TileShapes::kPages) {
      config.col_bytes[3] = config.col_bytes[5] = 2 * kPageRanks;
      config.rows[7] = kPageRanks / 2;
    }
    // Not _tile_loadconfig: GCC 12 declares 8 of its 64 bytes as read, and leaves out the stores to the others.
    asm volatile("ldtilecfg %0" : : "m"(config));
  }
  ~TileScope() { _tile_release(); }
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;
};

// Where a tile of 16 x 16 sums goes.
struct Sums {
  float* y;
  int64_t stride;
  int64_t rows;  // that count, at most 16
};

// Tile loads do not tell the compiler that they read memory: what was stored before must be there.
inline void finish_stores() { asm volatile("" : : : "memory"); }

// Tile registers are named in the instruction, so this is a macro rather than a function. Rows beyond sums.rows belong
// to others: then the tile goes through memory of its own.
#define LORIKEET_STORE_TILE(number, sums)                                                        \
  do {                                                                                           \
    if ((sums).rows >= kTileRowsMax) {                                                           \
      _tile_stored(number, (sums).y, (sums).stride * 4);                                         \
    } else {                                                                                     \
      alignas(64) float copy[kTileRowsMax * kPanelOuts];                                         \
      _tile_stored(number, copy, kPanelOuts * 4);                                                \
      for (int64_t row = 0; row < (sums).rows; ++row) {                                          \
        store((sums).y + row * (sums).stride, load(copy + row * kPanelOuts));                    \
      }                                                                                          \
    }                                                                                            \
  } while (false)

inline void prefetch_tile(const uint16_t* tile) {
  for (int64_t line = 0; line < kTilePanel; line += 32) {
    _mm_prefetch(reinterpret_cast<const char*>(tile + line), _MM_HINT_T0);
  }
}

// Tiles ahead of what is multiplied, where each is used once.
constexpr int64_t kTilesAhead = 4;

// 32 rows x 2 panels.
inline void product_2x2(Sums low, Sums high, const uint16_t* x, int64_t x_stride, const uint16_t* w, int64_t cols) {
  const uint16_t* x2 = x + kTileRowsMax * x_stride;
  const uint16_t* w2 = w + cols * kPanelOuts;
  finish_stores();
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t k = 0; k < cols; k += kColumnStep) {
    _tile_loadd(6, w + k * kPanelOuts, 64);
    _tile_loadd(4, x + k, x_stride * 2);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, w2 + k * kPanelOuts, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, x2 + k, x_stride * 2);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  LORIKEET_STORE_TILE(0, low);
  low.y += kPanelOuts;
  LORIKEET_STORE_TILE(1, low);
  LORIKEET_STORE_TILE(2, high);
  high.y += kPanelOuts;
  LORIKEET_STORE_TILE(3, high);
}

// 16 rows x 4 panels: weights stream from memory.
inline void product_1x4(Sums sums, const uint16_t* x, int64_t x_stride, const uint16_t* w, int64_t cols) {
  const int64_t panel = cols * kPanelOuts;
  finish_stores();
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t k = 0; k < cols; k += kColumnStep) {
    const uint16_t* tile = w + k * kPanelOuts;
    for (int64_t o = 0; o < 4; ++o) prefetch_tile(tile + o * panel + kTilesAhead * kTilePanel);
    _tile_loadd(4, x + k, x_stride * 2);
    _tile_loadd(6, tile, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, tile + panel, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(6, tile + 2 * panel, 64);
    _tile_dpbf16ps(2, 4, 6);
    _tile_loadd(7, tile + 3 * panel, 64);
    _tile_dpbf16ps(3, 4, 7);
  }
  LORIKEET_STORE_TILE(0, sums);
  sums.y += kPanelOuts;
  LORIKEET_STORE_TILE(1, sums);
  sums.y += kPanelOuts;
  LORIKEET_STORE_TILE(2, sums);
  sums.y += kPanelOuts;
  LORIKEET_STORE_TILE(3, sums);
}

inline void product_1x1(Sums sums, const uint16_t* x, int64_t x_stride, const uint16_t* w, int64_t cols) {
  finish_stores();
  _tile_zero(0);
  for (int64_t k = 0; k < cols; k += kColumnStep) {
    prefetch_tile(w + k * kPanelOuts + kTilesAhead * kTilePanel);
    _tile_loadd(4, x + k, x_stride * 2);
    _tile_loadd(6, w + k * kPanelOuts, 64);
    _tile_dpbf16ps(0, 4, 6);
  }
  LORIKEET_STORE_TILE(0, sums);
}

// Panels [begin, end) times rows; y [rows, 16 (end - begin)].
void product_rows(float* y, int64_t y_stride, const uint16_t* x, int64_t x_stride, int64_t rows, const uint16_t* w,
                  int64_t cols, int64_t begin, int64_t end) {
  const auto sums = [&](int64_t row, int64_t panel) {
    const int64_t left = rows - row;
    return Sums{y + row * y_stride + (panel - begin) * kPanelOuts, y_stride,
                left < kTileRowsMax ? left : kTileRowsMax};
  };
  const auto panel_at = [&](int64_t panel) { return w + panel * cols * kPanelOuts; };
  int64_t panel = begin;
  if (rows > kTileRowsMax) {
    for (; panel + 2 <= end; panel += 2) {
      int64_t row = 0;
      for (; rows - row > kTileRowsMax; row += 2 * kTileRowsMax) {
        product_2x2(sums(row, panel), sums(row + kTileRowsMax, panel), x + row * x_stride, x_stride,
                    panel_at(panel), cols);
      }
      for (int64_t o = 0; row < rows && o < 2; ++o) {
        product_1x1(sums(row, panel + o), x + row * x_stride, x_stride, panel_at(panel + o), cols);
      }
    }
  }
  for (; panel + 4 <= end; panel += 4) product_1x4(sums(0, panel), x, x_stride, panel_at(panel), cols);
  for (; panel < end; ++panel) {
    for (int64_t row = 0; row < rows; row += kTileRowsMax) {
      product_1x1(sums(row, panel), x + row * x_stride, x_stride, panel_at(panel), cols);
    }
  }
}

// h of a row: the nearest bf16 of each rank, then the nearest of what that leaves, so that h keeps 16 bits of
// mantissa through a bf16 product.
inline void store_hidden(void* h, int64_t row, Vec ranks) {
  auto* to = static_cast<uint16_t*>(h) + row * 2 * kPageRanks;
  store(to, ranks);
  store(to + kPageRanks, ranks - widen_bf16(load_halves(to)));
}

// y += h b over one tile of 16 columns: both parts of h meet the same panel. Inside a scope of kPages.
void expand_rows(float* y, int64_t y_stride, const void* h, int64_t rows, const uint16_t* b, int64_t panels) {
  const auto* hidden = static_cast<const uint16_t*>(h);
  finish_stores();
  for (int64_t row = 0; row < rows; row += kTileRowsMax) {
    _tile_loadd(3, hidden + row * 2 * kPageRanks, kHiddenBytes);
    _tile_loadd(5, hidden + row * 2 * kPageRanks + kPageRanks, kHiddenBytes);
    const int64_t left = rows - row;
    const int64_t count = left < kTileRowsMax ? left : kTileRowsMax;
    for (int64_t panel = 0; panel < panels; ++panel) {
      alignas(64) float delta[kTileRowsMax * kPanelOuts];
      _tile_zero(0);
      _tile_loadd(7, b + panel * kPageRanks * kPanelOuts, 64);
      _tile_dpbf16ps(0, 3, 7);
      _tile_dpbf16ps(0, 5, 7);
      _tile_stored(0, delta, kPanelOuts * 4);
      float* to = y + row * y_stride + panel * kPanelOuts;
      for (int64_t i = 0; i < count; ++i) {
        store(to + i * y_stride, load(to + i * y_stride) + load(delta + i * kPanelOuts));
      }
    }
  }
}

}  // namespace
}  // namespace lorikeet
