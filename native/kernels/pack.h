// From row-major matrices, as files and trainers store them, to panels.
#pragma once

#include <cstdint>

#include "kernels/layout.h"

namespace lorikeet {

// Row-major [rows, cols] with `stride` elements from row to row; needs no alignment.
struct Matrix {
  const void* data = nullptr;
  Dtype dtype = Dtype::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;
};

// Writes panels [begin, end) of `to` with the matrix's rows as outputs, zeros beyond its rows and columns.
// Widening and equal types are exact; to kBF16 from others rounds to the nearest. True where all values came
// through exactly.
bool pack(const Panels& to, void* data, const Matrix& from, int64_t begin, int64_t end);

}  // namespace lorikeet
