// The paged KV cache: blocks of kBlockTokens tokens, float32 keys and values per layer.
#pragma once

#include <vector>

#include "mapped_memory.h"
#include "model.h"

namespace lorikeet {

inline int64_t blocks_for(int64_t tokens) { return (tokens + kBlockTokens - 1) / kBlockTokens; }

class KvBlocks {
 public:
  KvBlocks(const ModelConfig& config, int64_t bytes);

  int64_t total() const { return total_; }
  int64_t used() const { return total_ - static_cast<int64_t>(free_.size()); }
  int64_t available() const { return static_cast<int64_t>(free_.size()); }

  // Grows `blocks` to hold `tokens`; false, with nothing taken, where too few are free.
  bool grow(std::vector<int32_t>& blocks, int64_t tokens);
  void give_back(std::vector<int32_t>& blocks);

  // [blocks, kv_heads, kBlockTokens, head_dim] of one layer
  float* keys(int64_t layer) const { return memory_.floats() + 2 * layer * layer_floats_; }
  float* values(int64_t layer) const { return keys(layer) + layer_floats_; }

 private:
  int64_t total_ = 0;
  int64_t layer_floats_ = 0;
  MappedMemory memory_;
  std::vector<int32_t> free_;
};

}  // namespace lorikeet
