// The memory of the paged KV cache: float32 keys and values per layer.
#pragma once

#include <algorithm>
#include <limits>
#include <string>

#include "../error.h"
#include "../model.h"
#include "kernels/layout.h"
#include "mapped_memory.h"

namespace lorikeet::cpu {

class KvCache {
 public:
  // As many blocks as fit into `bytes`; throws invalid_argument where none does.
  KvCache(const ModelConfig& config, int64_t bytes) {
    const int64_t block_floats = config.kv_heads * kBlockTokens * config.head_dim;
    const int64_t block_bytes = 2 * config.layers * block_floats * static_cast<int64_t>(sizeof(float));
    blocks_ = std::min<int64_t>(bytes / block_bytes, std::numeric_limits<int32_t>::max());
    if (blocks_ < 1) {
      throw EngineError::invalid("kvBytes", "Expected at least " + std::to_string(block_bytes) +
                                                " (one block) for kvBytes but received " +
                                                std::to_string(bytes));
    }
    layer_floats_ = blocks_ * block_floats;
    memory_ = MappedMemory::anonymous(static_cast<size_t>(blocks_ * block_bytes));
  }

  int64_t blocks() const { return blocks_; }
  // [blocks, kv_heads, kBlockTokens, head_dim] of one layer
  float* keys(int64_t layer) const { return memory_.floats() + 2 * layer * layer_floats_; }
  float* values(int64_t layer) const { return keys(layer) + layer_floats_; }

 private:
  int64_t blocks_ = 0;
  int64_t layer_floats_ = 0;
  MappedMemory memory_;
};

}  // namespace lorikeet::cpu
