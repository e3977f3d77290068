#include "kv_cache.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <string>

#include "../error.h"

namespace lorikeet::cpu {
namespace {

template <typename Element, typename Narrow>
void store_head(Element* keys, Element* values, Dtype dtype, int64_t key_cols, int64_t token, const float* k,
                const float* v, int64_t head_dim, Narrow narrow) {
  for (int64_t d = 0; d < head_dim; ++d) {
    keys[panel_index(dtype, key_cols, token, d)] = narrow(k[d]);
    values[panel_index(dtype, kBlockTokens, d, token)] = narrow(v[d]);
  }
}

}  // namespace

KvCache::KvCache(const ModelConfig& config, Dtype stored, int64_t bytes)
    : kv_heads_(config.kv_heads),
      head_dim_(config.head_dim),
      stored_(stored),
      element_bytes_(dtype_bytes(stored)),
      key_cols_(round_up(config.head_dim, kColumnStep)),
      key_elements_(kBlockTokens * key_cols_),
      value_elements_(kBlockTokens * round_up(config.head_dim, kPanelOuts)) {
  const int64_t block_bytes = config.layers * block_elements() * element_bytes_;
  blocks_ = std::min<int64_t>(bytes / block_bytes, std::numeric_limits<int32_t>::max());
  if (blocks_ < 1) {
    throw EngineError::invalid("kvBytes", "Expected at least " + std::to_string(block_bytes) +
                                              " (one block) for kvBytes but received " +
                                              std::to_string(bytes));
  }
  memory_ = MappedMemory::anonymous(static_cast<size_t>(blocks_ * block_bytes));
}

void KvCache::store(int64_t layer, const int32_t* blocks, int64_t position, const float* keys,
                    const float* values) const {
  const int64_t token = position % kBlockTokens;
  for (int64_t h = 0; h < kv_heads_; ++h) {
    std::byte* to = head(layer, blocks[position / kBlockTokens], h);
    if (token == 0)
      std::memset(to, 0, static_cast<size_t>((key_elements_ + value_elements_) * element_bytes_));
    const float* k = keys + h * head_dim_;
    const float* v = values + h * head_dim_;
    if (stored_ == Dtype::kF32) {
      auto* elements = reinterpret_cast<float*>(to);
      store_head(elements, elements + key_elements_, stored_, key_cols_, token, k, v, head_dim_,
                 [](float value) { return value; });
    } else {
      auto* elements = reinterpret_cast<uint16_t*>(to);
      store_head(elements, elements + key_elements_, stored_, key_cols_, token, k, v, head_dim_,
                 [](float value) { return narrow_bf16(value); });
    }
  }
}

}  // namespace lorikeet::cpu
