#include "kv_blocks.h"

#include <algorithm>
#include <limits>
#include <string>

#include "error.h"

namespace lorikeet {

KvBlocks::KvBlocks(const ModelConfig& config, int64_t bytes) {
  const int64_t block_floats = config.kv_heads * kBlockTokens * config.head_dim;
  const int64_t block_bytes = 2 * config.layers * block_floats * static_cast<int64_t>(sizeof(float));
  total_ = std::min<int64_t>(bytes / block_bytes, std::numeric_limits<int32_t>::max());
  if (total_ < 1) {
    throw EngineError::invalid("kvBytes", "Expected at least " + std::to_string(block_bytes) +
                                              " (one block) for kvBytes but received " +
                                              std::to_string(bytes));
  }
  layer_floats_ = total_ * block_floats;
  memory_ = MappedMemory::anonymous(static_cast<size_t>(total_ * block_bytes));
  free_.resize(static_cast<size_t>(total_));
  for (int64_t i = 0; i < total_; ++i) free_[static_cast<size_t>(i)] = static_cast<int32_t>(total_ - 1 - i);
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
