#include "data.h"

#include <cmath>

namespace lorikeet::test {

Floats Random::numbers(int64_t n, float scale, Dtype dtype) {
  Floats all(n);
  for (int64_t i = 0; i < n; ++i) {
    all[i] = scale * number();
    if (dtype == Dtype::kBF16) all[i] = widen_bf16(narrow_bf16(all[i]));
  }
  return all;
}

Indices Random::permutation(int64_t n) {
  Indices all(n);
  for (int64_t i = 0; i < n; ++i) all[i] = static_cast<int32_t>(i);
  for (int64_t i = n - 1; i > 0; --i) std::swap(all[i], all[below(i + 1)]);
  return all;
}

Elements::Elements(Dtype dtype, const Floats& values) : Elements(dtype, values.size(), 0) {
  for (int64_t i = 0; i < size(); ++i) set(i, values[i]);
}

Elements lay_out(Dtype dtype, const Floats& from, const Part& part, const Layout& layout) {
  Elements to(dtype, (layout.rows - 1) * layout.stride + layout.padded, NAN);
  for (int64_t i = 0; i < part.count(); ++i) {
    for (int64_t k = 0; k < layout.padded; ++k) {
      to.set(i * layout.stride + k, k < layout.cols ? from[part.row(i) * layout.cols + k] : 0);
    }
  }
  return to;
}

Stored::Stored(Random& random, Dtype dtype, int64_t rows, int64_t cols, int64_t stride)
    : shape_{nullptr, dtype, rows, cols, stride},
      floats_(dtype == Dtype::kF32 ? (rows - 1) * stride + cols : 0, NAN),
      halves_(dtype == Dtype::kF32 ? 0 : (rows - 1) * stride + cols, 0xffff) {
  for (int64_t i = 0; i < rows * cols; ++i) {
    const int64_t at = i / cols * stride + i % cols;
    if (dtype == Dtype::kF32) floats_[at] = random.number();
    // Any sign and mantissa, and any exponent up to that of 1.
    if (dtype == Dtype::kF16) {
      halves_[at] = static_cast<uint16_t>((random.bits() & 0x83ff) | random.below(16) << 10);
    }
    if (dtype == Dtype::kBF16) {
      halves_[at] = static_cast<uint16_t>((random.bits() & 0x807f) | (127 - random.below(16)) << 7);
    }
  }
}

Matrix Stored::matrix() const {
  Matrix matrix = shape_;
  matrix.data = shape_.dtype == Dtype::kF32 ? static_cast<const void*>(floats_.data()) : halves_.data();
  return matrix;
}

Weights::Weights(Random& random, Dtype source, int64_t outs, int64_t cols, Dtype to, int64_t padded)
    : shape_{nullptr, to, panels_for(outs), padded},
      floats_(to == Dtype::kF32 ? shape_.panels * padded * kPanelOuts : 0),
      halves_(to == Dtype::kF32 ? 0 : shape_.panels * padded * kPanelOuts) {
  const Stored from(random, source, outs, cols, cols);
  void* data = to == Dtype::kF32 ? static_cast<void*>(floats_.data()) : halves_.data();
  pack(shape_, data, from.matrix(), 0, shape_.panels);
}

Panels Weights::panels() const {
  Panels panels = shape_;
  panels.data = shape_.dtype == Dtype::kF32 ? static_cast<const void*>(floats_.data()) : halves_.data();
  return panels;
}

}  // namespace lorikeet::test
