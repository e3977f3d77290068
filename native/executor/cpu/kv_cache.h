// The memory of the paged KV cache. A block of one kv head of one layer holds 16 tokens: its keys as one
// panel whose outputs are the tokens, then its values as panels whose columns are the tokens
// (kernels/layout.h).
#pragma once

#include <cstdint>

#include "../mapped_memory.h"
#include "../model.h"
#include "kernels/layout.h"

namespace lorikeet::cpu {

class KvCache {
 public:
  // As many blocks as fit into `bytes`; throws invalid_argument where none does.
  KvCache(const ModelConfig& config, Dtype stored, int64_t bytes);

  int64_t blocks() const { return blocks_; }
  int64_t bytes() const { return static_cast<int64_t>(memory_.bytes()); }

  // Keys and values of all kv heads at a position of a sequence, [kv_heads, head_dim] each. The first token
  // of a block clears it, so that nothing of an earlier sequence is left in it.
  void store(int64_t layer, const int32_t* blocks, int64_t position, const float* keys,
             const float* values) const;

  // Of a kv head in block 0; the next block is block_elements() further.
  const void* keys(int64_t layer, int64_t kv_head) const { return head(layer, 0, kv_head); }
  const void* values(int64_t layer, int64_t kv_head) const {
    return head(layer, 0, kv_head) + key_elements_ * element_bytes_;
  }
  int64_t block_elements() const { return kv_heads_ * (key_elements_ + value_elements_); }

 private:
  std::byte* head(int64_t layer, int64_t block, int64_t kv_head) const {
    const int64_t elements =
        (layer * blocks_ + block) * block_elements() + kv_head * (key_elements_ + value_elements_);
    return memory_.data() + elements * element_bytes_;
  }

  int64_t kv_heads_, head_dim_;
  Dtype stored_;
  int64_t element_bytes_;
  int64_t key_cols_;
  int64_t key_elements_, value_elements_;  // of one head of one block
  int64_t blocks_ = 0;
  MappedMemory memory_;
};

}  // namespace lorikeet::cpu
