#include "kv_blocks.h"

namespace lorikeet {

KvBlocks::KvBlocks(int64_t blocks) : total_(blocks), free_(static_cast<size_t>(blocks)) {
  for (int64_t i = 0; i < blocks; ++i) free_[static_cast<size_t>(i)] = static_cast<int32_t>(blocks - 1 - i);
}

bool KvBlocks::grow(std::vector<int32_t>& blocks, int64_t tokens) {
  const int64_t missing = blocks_for(tokens) - static_cast<int64_t>(blocks.size());
  if (missing > available()) return false;
  for (int64_t i = 0; i < missing; ++i) {
    blocks.push_back(free_.back());
    free_.pop_back();
  }
  return true;
}

void KvBlocks::give_back(std::vector<int32_t>& blocks) {
  free_.insert(free_.end(), blocks.begin(), blocks.end());
  blocks.clear();
}

}  // namespace lorikeet
