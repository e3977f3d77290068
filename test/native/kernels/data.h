// The numbers of a case, in buffers that show every access beyond them.
#pragma once

#include <cstdint>
#include <random>
#include <utility>
#include <vector>

#include "kernels/pack.h"

namespace lorikeet::test {

// A part of a case: these rows, in this order, and outputs [begin, end) of its split axis.
struct Part {
  std::vector<int64_t> rows;
  int64_t begin;
  int64_t end;

  int64_t count() const { return static_cast<int64_t>(rows.size()); }
  int64_t row(int64_t i) const { return rows[static_cast<size_t>(i)]; }
};

// An array that starts one element off any alignment and ends where its allocation
// ends, so that a sanitizer sees the first element read beyond it.
template <class T>
class Tight {
 public:
  explicit Tight(int64_t n, T value = {}) : elements_(static_cast<size_t>(n + 1), value) {}
  T* data() { return elements_.data() + 1; }
  const T* data() const { return elements_.data() + 1; }
  T& operator[](int64_t i) { return elements_[static_cast<size_t>(i + 1)]; }
  const T& operator[](int64_t i) const { return elements_[static_cast<size_t>(i + 1)]; }
  int64_t size() const { return static_cast<int64_t>(elements_.size()) - 1; }

 private:
  std::vector<T> elements_;
};

using Floats = Tight<float>;
using Halves = Tight<uint16_t>;
using Indices = Tight<int32_t>;

class Random {
 public:
  // Uniform in [-1, 1).
  float number() { return static_cast<float>(bits()) * 0x1p-31f - 1; }
  int64_t below(int64_t n) { return static_cast<int64_t>(bits() % static_cast<uint32_t>(n)); }
  uint32_t bits() { return static_cast<uint32_t>(engine_()); }
  // Rounded to `dtype`, kF32 or kBF16.
  Floats numbers(int64_t n, float scale = 1, Dtype dtype = Dtype::kF32);
  // 0 .. n - 1 in some order.
  Indices permutation(int64_t n);

 private:
  std::mt19937 engine_{20240607};
};

// Values of kF32 or kBF16, to read and write as floats.
class Elements {
 public:
  Elements(Dtype dtype, int64_t n, float value)
      : dtype_(dtype),
        floats_(dtype == Dtype::kF32 ? n : 0, value),
        halves_(dtype == Dtype::kF32 ? 0 : n, narrow_bf16(value)) {}
  Elements(Dtype dtype, const Floats& values);

  int64_t size() const { return floats_.size() + halves_.size(); }
  void* data(int64_t at = 0) {
    return dtype_ == Dtype::kF32 ? static_cast<void*>(floats_.data() + at) : halves_.data() + at;
  }
  float get(int64_t i) const { return dtype_ == Dtype::kF32 ? floats_[i] : widen_bf16(halves_[i]); }
  void set(int64_t i, float value) {
    if (dtype_ == Dtype::kF32) {
      floats_[i] = value;
    } else {
      halves_[i] = narrow_bf16(value);
    }
  }
  void copy_to(Floats& y) const {
    for (int64_t i = 0; i < size(); ++i) y[i] = get(i);
  }

 private:
  Dtype dtype_;
  Floats floats_;
  Halves halves_;
};

// How rows lie in a buffer: `cols` true columns, zeros up to `padded`, NaN up to `stride` and in all the rows
// beyond the true ones, `rows` in all. The buffer ends with the last padded column.
struct Layout {
  int64_t cols;
  int64_t padded;
  int64_t stride;
  int64_t rows;
};

// The part's rows of `from` [.., cols].
Elements lay_out(Dtype dtype, const Floats& from, const Part& part, const Layout& layout);

// The rows of activations that products of `cols` columns read: as little as an op may count on.
inline Layout activation_layout(int64_t cols, int64_t rows) {
  const int64_t padded = round_up(cols, kColumnStep);
  return {cols, padded, padded + 5, round_up(rows, kRowStep)};
}

// A row-major matrix of one dtype with random elements of magnitude < 2, f16 subnormals among them. Elements
// between cols and stride are NaN.
class Stored {
 public:
  Stored(Random& random, Dtype dtype, int64_t rows, int64_t cols, int64_t stride);
  Matrix matrix() const;

 private:
  Matrix shape_;
  Floats floats_;
  Halves halves_;
};

// Random weights of dtype `source` in panels of dtype `to`, rounded where that says less.
class Weights {
 public:
  Weights(Random& random, Dtype source, int64_t outs, int64_t cols, Dtype to, int64_t padded);
  Panels panels() const;

 private:
  Panels shape_;
  Floats floats_;
  Halves halves_;
};

}  // namespace lorikeet::test
