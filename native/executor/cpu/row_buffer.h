// Rows of a step in memory of their own, zero at first, [rows, stride]. The stride keeps rows of a power of
// two apart in the cache, and columns beyond the true ones zero. Kernels may read whole groups of kRowStep
// rows from any row on.
#pragma once

#include "../mapped_memory.h"
#include "kernels/ops.h"

namespace lorikeet::cpu {

class RowBuffer {
 public:
  RowBuffer(int64_t rows, int64_t cols, Dtype dtype)
      : stride_(round_up(cols, kColumnStep) + kColumnStep),
        element_bytes_(dtype_bytes(dtype)),
        memory_(MappedMemory::anonymous(static_cast<size_t>((rows + kRowStep) * stride_ * element_bytes_))) {}

  int64_t stride() const { return stride_; }
  int64_t bytes() const { return static_cast<int64_t>(memory_.bytes()); }
  void* at(int64_t row, int64_t col = 0) const {
    return memory_.data() + (row * stride_ + col) * element_bytes_;
  }
  float* floats(int64_t row, int64_t col = 0) const { return static_cast<float*>(at(row, col)); }
  Rows rows(int64_t row, int64_t count) const { return {at(row), stride_, count}; }

 private:
  int64_t stride_;
  int64_t element_bytes_;
  MappedMemory memory_;
};

}  // namespace lorikeet::cpu
