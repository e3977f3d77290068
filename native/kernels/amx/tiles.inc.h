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

// Where a tile of 16 x 16 sums begins and goes.
struct Sums {
  float* y;
  int64_t stride;
  int64_t rows;          // that count, at most 16
  bool goes_on = false;  // begins with what is there, else with 0
  Sums right(int64_t panels) const { return {y + panels * kPanelOuts, stride, rows, goes_on}; }
};

// Rows that meet panels.
struct Operands16 {
  const uint16_t* x;
  int64_t x_stride;
  const uint16_t* w;
  int64_t panel;  // elements from panel to panel
  int64_t cols;   // that meet
};

// Tile loads do not tell the compiler that they read memory: what was stored before must be there.
inline void finish_stores() { asm volatile("" : : : "memory"); }

// Tile registers are named in the instruction, so this is a macro rather than a function. Rows beyond sums.rows belong
// to others: then the tile goes through memory of its own.
#define LORIKEET_BEGIN_TILE(number, sums)                                                        \
  do {                                                                                           \
    if (!(sums).goes_on) {                                                                       \
      _tile_zero(number);                                                                        \
    } else if ((sums).rows >= kTileRowsMax) {                                                    \
      _tile_loadd(number, (sums).y, (sums).stride * 4);                                          \
    } else {                                                                                     \
      alignas(64) float copy[kTileRowsMax * kPanelOuts] = {};                                    \
      for (int64_t row = 0; row < (sums).rows; ++row) {                                          \
        store(copy + row * kPanelOuts, load((sums).y + row * (sums).stride));                    \
      }                                                                                          \
      finish_stores();                                                                           \
      _tile_loadd(number, copy, kPanelOuts * 4);                                                 \
    }                                                                                            \
  } while (false)

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
inline void product_2x2(Sums low, Sums high, const Operands16& p) {
  const uint16_t* x2 = p.x + kTileRowsMax * p.x_stride;
  finish_stores();
  LORIKEET_BEGIN_TILE(0, low);
  LORIKEET_BEGIN_TILE(1, low.right(1));
  LORIKEET_BEGIN_TILE(2, high);
  LORIKEET_BEGIN_TILE(3, high.right(1));
  for (int64_t k = 0; k < p.cols; k += kColumnStep) {
    const uint16_t* tile = p.w + k * kPanelOuts;
    _tile_loadd(6, tile, 64);
    _tile_loadd(4, p.x + k, p.x_stride * 2);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, tile + p.panel, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, x2 + k, p.x_stride * 2);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  LORIKEET_STORE_TILE(0, low);
  LORIKEET_STORE_TILE(1, low.right(1));
  LORIKEET_STORE_TILE(2, high);
  LORIKEET_STORE_TILE(3, high.right(1));
}

// 16 rows x 4 panels: weights stream from memory.
inline void product_1x4(Sums sums, const Operands16& p) {
  finish_stores();
  LORIKEET_BEGIN_TILE(0, sums);
  LORIKEET_BEGIN_TILE(1, sums.right(1));
  LORIKEET_BEGIN_TILE(2, sums.right(2));
  LORIKEET_BEGIN_TILE(3, sums.right(3));
  for (int64_t k = 0; k < p.cols; k += kColumnStep) {
    const uint16_t* tile = p.w + k * kPanelOuts;
    for (int64_t o = 0; o < 4; ++o) prefetch_tile(tile + o * p.panel + kTilesAhead * kTilePanel);
    _tile_loadd(4, p.x + k, p.x_stride * 2);
    _tile_loadd(6, tile, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, tile + p.panel, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(6, tile + 2 * p.panel, 64);
    _tile_dpbf16ps(2, 4, 6);
    _tile_loadd(7, tile + 3 * p.panel, 64);
    _tile_dpbf16ps(3, 4, 7);
  }
  LORIKEET_STORE_TILE(0, sums);
  LORIKEET_STORE_TILE(1, sums.right(1));
  LORIKEET_STORE_TILE(2, sums.right(2));
  LORIKEET_STORE_TILE(3, sums.right(3));
}

inline void product_1x1(Sums sums, const Operands16& p) {
  finish_stores();
  LORIKEET_BEGIN_TILE(0, sums);
  for (int64_t k = 0; k < p.cols; k += kColumnStep) {
    prefetch_tile(p.w + k * kPanelOuts + kTilesAhead * kTilePanel);
    _tile_loadd(4, p.x + k, p.x_stride * 2);
    _tile_loadd(6, p.w + k * kPanelOuts, 64);
    _tile_dpbf16ps(0, 4, 6);
  }
  LORIKEET_STORE_TILE(0, sums);
}

// Rows times a part of panels; y [rows, 16 (end - begin)].
void product_rows(float* y, int64_t y_stride, const uint16_t* x, int64_t x_stride, int64_t rows, const Panels& w,
                  const PanelPart& part) {
  const int64_t panel_elements = w.cols * kPanelOuts;
  const auto sums = [&](int64_t row, int64_t panel) {
    const int64_t left = rows - row;
    return Sums{y + row * y_stride + (panel - part.begin) * kPanelOuts, y_stride,
                left < kTileRowsMax ? left : kTileRowsMax, part.from > 0};
  };
  const auto operands = [&](int64_t row, int64_t panel) {
    return Operands16{x + row * x_stride + part.from, x_stride,
                      static_cast<const uint16_t*>(w.data) + panel * panel_elements + part.from * kPanelOuts,
                      panel_elements, part.to - part.from};
  };
  int64_t panel = part.begin;
  if (rows > kTileRowsMax) {
    for (; panel + 2 <= part.end; panel += 2) {
      int64_t row = 0;
      for (; rows - row > kTileRowsMax; row += 2 * kTileRowsMax) {
        product_2x2(sums(row, panel), sums(row + kTileRowsMax, panel), operands(row, panel));
      }
      for (int64_t o = 0; row < rows && o < 2; ++o) product_1x1(sums(row, panel + o), operands(row, panel + o));
    }
  }
  for (; rows <= kTileRowsMax && panel + 4 <= part.end; panel += 4) product_1x4(sums(0, panel), operands(0, panel));
  for (; panel < part.end; ++panel) {
    for (int64_t row = 0; row < rows; row += kTileRowsMax) product_1x1(sums(row, panel), operands(row, panel));
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
