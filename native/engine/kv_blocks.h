// The free list of the KV cache's blocks, of kBlockTokens tokens each. Their memory is the executor's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/layout.h"

namespace lorikeet {

class KvBlocks {
 public:
  explicit KvBlocks(int64_t blocks);

  int64_t total() const { return total_; }
  int64_t used() const { return total_ - available(); }
  int64_t available() const { return static_cast<int64_t>(free_.size()); }

  // Grows `blocks` to hold `tokens`; false, with nothing taken, where too few are free.
  bool grow(std::vector<int32_t>& blocks, int64_t tokens);
  void give_back(std::vector<int32_t>& blocks);

 private:
  int64_t total_ = 0;
  std::vector<int32_t> free_;
};

}  // namespace lorikeet
