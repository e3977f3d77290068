// A case of the conformance table: one op with one set of shapes and data.
#pragma once

#include <cstdint>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "kernels/ops.h"

namespace lorikeet::test {

// A value conforms when |value - reference| <= absolute + |reference| * relative.
struct Tolerance {
  float absolute;
  float relative;
};

// A part of a case: these rows, in this order, and outputs [begin, end) of its split axis.
struct Part {
  std::vector<int64_t> rows;
  int64_t begin;
  int64_t end;
};

struct Case {
  std::string name;
  int64_t rows = 1;
  // Outputs along the axis that may be split; `unit` floats belong to each.
  int64_t outs = 1;
  int64_t unit = 1;
  // False for ops without [begin, end).
  bool splits = true;
  // Floats from output row to output row, >= outs * unit; those beyond are nobody's.
  int64_t stride = 1;
  Tolerance tolerance{};
  // Writes the part's rows one after the other into y, each at its full-width place.
  std::function<void(const Ops& ops, const Part& part, float* y)> run{};
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
using Indices = Tight<int32_t>;

class Random {
 public:
  // Uniform in [-1, 1).
  float number() { return static_cast<float>(bits()) * 0x1p-31f - 1; }
  int64_t below(int64_t n) { return static_cast<int64_t>(bits() % static_cast<uint32_t>(n)); }
  uint32_t bits() { return static_cast<uint32_t>(engine_()); }
  Floats numbers(int64_t n, float scale = 1) {
    Floats all(n);
    for (int64_t i = 0; i < n; ++i) all[i] = scale * number();
    return all;
  }
  // 0 .. n - 1 in some order.
  Indices permutation(int64_t n) {
    Indices all(n);
    for (int64_t i = 0; i < n; ++i) all[i] = static_cast<int32_t>(i);
    for (int64_t i = n - 1; i > 0; --i) std::swap(all[i], all[below(i + 1)]);
    return all;
  }

 private:
  std::mt19937 engine_{20240607};
};

// A stored matrix of one dtype with random elements of magnitude < 2, f16 subnormals among them.
class Stored {
 public:
  Stored(Random& random, Dtype dtype, int64_t rows, int64_t cols);
  Matrix matrix() const {
    return {dtype_ == Dtype::kF32 ? static_cast<const void*>(floats_.data()) : halves_.data(), dtype_, rows_,
            cols_};
  }

 private:
  Dtype dtype_;
  int64_t rows_, cols_;
  Floats floats_;
  Tight<uint16_t> halves_;
};

// Calls visit with every case of the table.
void for_each_case(const std::function<void(const Case&)>& visit);

// Takes the name of what was checked and its first difference, or "" if there is none.
using Record = std::function<void(const std::string& name, const std::string& difference)>;

// Checks results that were worked out by hand.
void check_known_answers(const Ops& ops, const Record& record);

}  // namespace lorikeet::test
