// What follows the qkv product: adapters, bias, norm of q and k per head, rope, keys and values into the
// cache.
#pragma once

#include "lora.cuh"
#include "reduce.cuh"

namespace lorikeet::cuda {

// The KV cache of one layer. A block of 16 tokens holds per kv head its keys, [kBlockTokens, head_stride],
// and its values, transposed so that attend() needs no shuffles, [head_stride, kBlockTokens].
struct Cache {
  Bf16 *keys, *values;
  const int32_t* blocks;     // block tables, one after the other
  const int32_t* table_of;   // [rows]: where the table of the row's sequence begins; -1: the row is padding
  const int32_t* positions;  // [rows]
  int32_t heads, kv_heads, head_dim;
  int32_t head_stride;  // of head_dim, padded: zero beyond

  __device__ __forceinline__ int64_t offset(int row, int token, int kv_head) const {
    const int64_t block = blocks[table_of[row] + token / static_cast<int>(kBlockTokens)];
    return (block * kv_heads + kv_head) * kBlockTokens * head_stride;
  }
};

constexpr int kQkvWarps = 4;

// One warp per head: q heads, then k, then v. Grid [heads / kQkvWarps, rows].
struct QkvArgs {
  Bf16* q;                       // [rows, heads, head_stride]
  const float* qkv;              // [rows, q | k | v]
  const float* bias;             // [q | k | v]; null where the model has none
  const float *q_norm, *k_norm;  // [head_dim]; null where the model has none
  const float *cos, *sin;        // [positions, head_dim / 2]
  float eps;
  Cache cache;
  Expand expand;
};
constexpr int kHeadPairs = 2;  // per lane: head_dim up to 128

__global__ void __launch_bounds__(kQkvWarps * 32) qkv_finish(QkvArgs p) {
  grid_wait();
  grid_launch_next();
  const Cache& c = p.cache;
  const int row = blockIdx.y, lane = threadIdx.x % 32, half = c.head_dim / 2;
  const int head = blockIdx.x * kQkvWarps + threadIdx.x / 32, all_heads = c.heads + 2 * c.kv_heads;
  if (head >= all_heads) return;
  const int member = head < c.heads ? 0 : head < c.heads + c.kv_heads ? 1 : 2;
  const int local = head - (member == 0 ? 0 : c.heads + (member - 1) * c.kv_heads);
  const auto module = static_cast<Module>(static_cast<int>(Module::kQ) + member);
  const int slot = p.expand.slot(row);

  // adapters and bias
  const float* from = p.qkv + (static_cast<int64_t>(row) * all_heads + head) * c.head_dim;
  float low[kHeadPairs] = {}, high[kHeadPairs] = {}, squares = 0;
#pragma unroll
  for (int i = 0; i < kHeadPairs; ++i) {
    const int j = i * 32 + lane;
    if (j >= half) break;
    low[i] = from[j];
    high[i] = from[j + half];
    if (p.bias) low[i] += p.bias[head * c.head_dim + j], high[i] += p.bias[head * c.head_dim + j + half];
    if (slot >= 0) {
      low[i] = p.expand.add(low[i], row, slot, module, member, local * c.head_dim + j);
      high[i] = p.expand.add(high[i], row, slot, module, member, local * c.head_dim + j + half);
    }
    squares += low[i] * low[i] + high[i] * high[i];
  }

  // norm of q and k
  const float* norm = member == 0 ? p.q_norm : member == 1 ? p.k_norm : nullptr;
  const float inverse =
      norm ? rsqrtf(over_warp<Plus>(squares) / static_cast<float>(c.head_dim) + p.eps) : 1.0f;

  // rope, and where it goes; padding goes nowhere
  if (c.table_of[row] < 0) return;
  const int position = c.positions[row], within = position % static_cast<int>(kBlockTokens);
  Bf16* q = p.q + (static_cast<int64_t>(row) * c.heads + head) * c.head_stride;
  const int64_t base = member == 0 ? 0 : c.offset(row, position, local);
#pragma unroll
  for (int i = 0; i < kHeadPairs; ++i) {
    const int j = i * 32 + lane;
    if (j >= half) break;
    float a = low[i], b = high[i];
    if (norm) a *= inverse * norm[j], b *= inverse * norm[j + half];
    if (member < 2) {
      const float cos = p.cos[static_cast<int64_t>(position) * half + j];
      const float sin = p.sin[static_cast<int64_t>(position) * half + j];
      const float turned = a * cos - b * sin;
      b = b * cos + a * sin;
      a = turned;
    }
    if (member == 0) {
      q[j] = to_bf16(a);
      q[j + half] = to_bf16(b);
    } else if (member == 1) {
      c.keys[base + within * c.head_stride + j] = to_bf16(a);
      c.keys[base + within * c.head_stride + j + half] = to_bf16(b);
    } else {
      c.values[base + static_cast<int64_t>(j) * kBlockTokens + within] = to_bf16(a);
      c.values[base + static_cast<int64_t>(j + half) * kBlockTokens + within] = to_bf16(b);
    }
  }
}

}  // namespace lorikeet::cuda
