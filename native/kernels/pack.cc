#include "kernels/pack.h"

#include <algorithm>
#include <cstring>

namespace lorikeet {
namespace {

// The usual case, whole pairs of bf16: a transpose of 32-bit words, a strip of columns at a time, so that the
// strip's lines of all 16 rows stay in the first-level cache.
void pack_pairs(uint16_t* to, const Matrix& from, int64_t first_row) {
  constexpr int64_t kStripPairs = 16;
  const auto* rows = static_cast<const unsigned char*>(from.data) + 2 * first_row * from.stride;
  const int64_t pairs = from.cols / 2;
  for (int64_t strip = 0; strip < pairs; strip += kStripPairs) {
    const int64_t end = std::min(strip + kStripPairs, pairs);
    for (int64_t lane = 0; lane < kPanelOuts; ++lane) {
      const unsigned char* row = rows + 2 * lane * from.stride;
      for (int64_t pair = strip; pair < end; ++pair) {
        std::memcpy(to + (pair * kPanelOuts + lane) * 2, row + 4 * pair, 4);
      }
    }
  }
}

float stored(float value) { return value; }
float stored(uint16_t bits) { return widen_bf16(bits); }
void put(float& to, float value) { to = value; }
void put(uint16_t& to, float value) { to = narrow_bf16(value); }

// Any types, and rows or columns that end early.
template <Dtype kFrom, typename Element>
bool pack_each(Element* to, const Panels& panels, const Matrix& from, int64_t panel) {
  bool exact = true;
  for (int64_t lane = 0; lane < kPanelOuts; ++lane) {
    const int64_t out = panel * kPanelOuts + lane;
    const int64_t cols = out < from.rows ? from.cols : 0;
    const auto* row = static_cast<const unsigned char*>(from.data) + out * from.stride * dtype_bytes(kFrom);
    Element* first = to + panel_index(panels.dtype, panels.cols, out, 0);
    const auto place = [&](int64_t col) -> Element& { return first[panel_index(panels.dtype, 0, 0, col)]; };
    for (int64_t col = 0; col < cols; ++col) {
      const float value = widen(row, kFrom, col);
      put(place(col), value);
      exact &= stored(place(col)) == value;
    }
    for (int64_t col = cols; col < panels.cols; ++col) put(place(col), 0.0f);
  }
  return exact;
}

template <typename Element>
bool pack_panel(Element* to, const Panels& panels, const Matrix& from, int64_t panel) {
  switch (from.dtype) {
    case Dtype::kF16: return pack_each<Dtype::kF16>(to, panels, from, panel);
    case Dtype::kBF16: return pack_each<Dtype::kBF16>(to, panels, from, panel);
    default: return pack_each<Dtype::kF32>(to, panels, from, panel);
  }
}

}  // namespace

bool pack(const Panels& to, void* data, const Matrix& from, int64_t begin, int64_t end) {
  bool exact = true;
  for (int64_t panel = begin; panel < end; ++panel) {
    const bool whole = from.dtype == Dtype::kBF16 && to.dtype == Dtype::kBF16 && from.cols == to.cols &&
                       (panel + 1) * kPanelOuts <= from.rows;
    if (to.dtype == Dtype::kF32) {
      exact &= pack_panel(static_cast<float*>(data), to, from, panel);
    } else if (whole) {
      pack_pairs(static_cast<uint16_t*>(data) + panel * kPanelOuts * to.cols, from, panel * kPanelOuts);
    } else {
      exact &= pack_panel(static_cast<uint16_t*>(data), to, from, panel);
    }
  }
  return exact;
}

}  // namespace lorikeet
