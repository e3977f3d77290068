// Sizes that plans and kernels agree on.
#pragma once

#include <cstdint>

namespace lorikeet {

// Tokens of one block of the KV cache.
constexpr int64_t kBlockTokens = 16;
// Ranks of one page of an adapter.
constexpr int64_t kPageRanks = 16;

constexpr int64_t blocks_for(int64_t tokens) { return (tokens + kBlockTokens - 1) / kBlockTokens; }
constexpr int64_t pages_for(int64_t rank) { return (rank + kPageRanks - 1) / kPageRanks; }

}  // namespace lorikeet
