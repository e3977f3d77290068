// Causal grouped-query attention over the paged cache, in one pass over keys and values (online softmax),
// split by position: a row's bits depend on its own context alone.
#pragma once

#include "qkv.cuh"

namespace lorikeet::cuda {

constexpr int kSplitTokens = kIsSmall ? 16 : 256;  // of one block
constexpr int kAttendWarps = 4;
constexpr int kAttendHeads = 8;  // query heads of one kv head that one block serves

struct AttendArgs {
  Bf16* out;          // [rows, out_stride]
  const Bf16* q;      // [rows, heads, head_stride]
  float* partial;     // [rows, heads, splits, head_stride + 2]
  uint32_t* arrived;  // [rows, kv_heads, units], zero between launches
  int32_t splits;     // of the longest context
  int32_t out_stride;
  int32_t units;  // blocks that share a kv head: its query heads / kAttendHeads
  float scale;
  Cache cache;
};
template <int kHeadStride>
constexpr size_t kAttendShared = sizeof(float) * kAttendWarps * kAttendHeads * (kHeadStride + 2);

// Sums of one split of one query head: head_stride values, then the largest score and the sum of weights.
__device__ __forceinline__ float* partial_of(const AttendArgs& p, int row, int head, int split) {
  return p.partial +
         ((static_cast<int64_t>(row) * p.cache.heads + head) * p.splits + split) * (p.cache.head_stride + 2);
}

// Grid [splits, kv_heads x units, rows]. The warps take the cache's blocks in turn; the last block of a row's
// unit joins the splits, in their order.
template <int kHeadStride>
__global__ void __launch_bounds__(kAttendWarps * 32) attend(AttendArgs p) {
  grid_wait();
  grid_launch_next();
  const Cache& c = p.cache;
  const int split = blockIdx.x, kv_head = blockIdx.y / p.units, row = blockIdx.z;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = lane / 4, quad = lane % 4;
  const int context = c.positions[row] + 1, ratio = c.heads / c.kv_heads;
  const int first = blockIdx.y % p.units * kAttendHeads, heads = min(ratio - first, kAttendHeads);
  const int head0 = kv_head * ratio + first;
  const int begin = split * kSplitTokens, end = min(begin + kSplitTokens, context);
  if (begin >= end || c.table_of[row] < 0) return;
  const int used = (context + kSplitTokens - 1) / kSplitTokens;
  constexpr int kBlock = static_cast<int>(kBlockTokens);
  constexpr int kSteps = kHeadStride / 32, kTiles = kHeadStride / 8, kPart = kHeadStride + 2;

  // Queries as rows 0 .. heads - 1 of a tile of 16.
  uint4 q[kSteps];
#pragma unroll
  for (int i = 0; i < kSteps; ++i) {
    const Bf16* from =
        p.q + (static_cast<int64_t>(row) * c.heads + head0 + group) * kHeadStride + i * 32 + quad * 8;
    q[i] = group < heads ? load_16(from) : uint4{};
  }
  float o[kTiles][4] = {}, largest = -INFINITY, total = 0;
  for (int at = begin + warp * kBlock; at < end; at += kAttendWarps * kBlock) {
    const int64_t base = c.offset(row, at, kv_head);

    // Scores. Column n of tile t is token n / 2 * 4 + 2 t + n % 2, so that a lane ends with the four tokens
    // that it needs as an operand of the next product.
    uint4 key[2][kSteps];
#pragma unroll
    for (int t = 0; t < 2; ++t) {
      const int token = group / 2 * 4 + 2 * t + group % 2;
#pragma unroll
      for (int i = 0; i < kSteps; ++i) {
        key[t][i] =
            at + token < end ? load_written(c.keys + base + token * kHeadStride + i * 32 + quad * 8) : uint4{};
      }
    }
    uint2 value[kTiles];
#pragma unroll
    for (int d = 0; d < kTiles; ++d) value[d] = load_8(c.values + base + (d * 8 + group) * kBlock + quad * 4);
    float s[2][4] = {};
#pragma unroll
    for (int t = 0; t < 2; ++t) {
#pragma unroll
      for (int i = 0; i < kSteps; ++i) {
        mma(s[t], q[i].x, 0, q[i].y, 0, key[t][i].x, key[t][i].y);
        mma(s[t], q[i].z, 0, q[i].w, 0, key[t][i].z, key[t][i].w);
      }
    }

    // Weights.
    float best = largest;
#pragma unroll
    for (int t = 0; t < 2; ++t) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        s[t][e] = at + quad * 4 + 2 * t + e < end ? s[t][e] * p.scale : -INFINITY;
        best = fmaxf(best, s[t][e]);
      }
    }
    best = fmaxf(best, __shfl_xor_sync(0xffffffffu, best, 1));
    best = fmaxf(best, __shfl_xor_sync(0xffffffffu, best, 2));
    const float kept = __expf(largest - best);
    largest = best;
    float sum = 0;
#pragma unroll
    for (int t = 0; t < 2; ++t) {
#pragma unroll
      for (int e = 0; e < 2; ++e) sum += s[t][e] = __expf(s[t][e] - best);
    }
    total = total * kept + sum;

    // Weighted values. Those past the context may be anything, and 0 * NaN is NaN.
    const uint32_t p0 = pack(s[0][0], s[0][1]), p1 = pack(s[1][0], s[1][1]);
    const int left = end - at - quad * 4;
#pragma unroll
    for (int d = 0; d < kTiles; ++d) {
      uint2 v = value[d];
      if (left < 4) {
        v.x = left <= 0 ? 0 : left == 1 ? v.x & 0xffffu : v.x;
        v.y = left <= 2 ? 0 : left == 3 ? v.y & 0xffffu : v.y;
      }
      o[d][0] *= kept;
      o[d][1] *= kept;
      mma(o[d], p0, 0, p1, 0, v.x, v.y);
    }
  }
  total += __shfl_xor_sync(0xffffffffu, total, 1);
  total += __shfl_xor_sync(0xffffffffu, total, 2);

  // The warps' parts, joined in their order.
  float* parts = dynamic_shared<float>();  // [kAttendWarps, kAttendHeads, kPart]
  if (group < heads) {
    float* mine = parts + (warp * kAttendHeads + group) * kPart;
#pragma unroll
    for (int d = 0; d < kTiles; ++d) {
      mine[d * 8 + quad * 2] = o[d][0];
      mine[d * 8 + quad * 2 + 1] = o[d][1];
    }
    if (quad == 0) mine[kHeadStride] = largest, mine[kHeadStride + 1] = total;
  }
  __syncthreads();
  const int warps = min(kAttendWarps, (end - begin + kBlock - 1) / kBlock);
  for (int at = threadIdx.x; at < heads * kHeadStride; at += kAttendWarps * 32) {
    const int head = at / kHeadStride, d = at % kHeadStride;
    float m = -INFINITY, l = 0, v = 0;
    for (int i = 0; i < warps; ++i) m = fmaxf(m, parts[(i * kAttendHeads + head) * kPart + kHeadStride]);
    for (int i = 0; i < warps; ++i) {
      const float* part = parts + (i * kAttendHeads + head) * kPart;
      const float f = __expf(part[kHeadStride] - m);
      l += part[kHeadStride + 1] * f;
      v += part[d] * f;
    }
    if (used == 1) {
      if (d < c.head_dim) {
        p.out[static_cast<int64_t>(row) * p.out_stride + (head0 + head) * c.head_dim + d] = to_bf16(v / l);
      }
      continue;
    }
    float* to = partial_of(p, row, head0 + head, split);
    to[d] = v;
    if (d == 0) to[kHeadStride] = m, to[kHeadStride + 1] = l;
  }
  if (used == 1) return;

  // The splits, joined by the last block to come.
  __syncthreads();
  auto* is_last = reinterpret_cast<uint32_t*>(parts);
  uint32_t* arrived = p.arrived + static_cast<int64_t>(row) * gridDim.y + blockIdx.y;
  if (threadIdx.x == 0) *is_last = arrive(arrived) + 1 == static_cast<uint32_t>(used);
  __syncthreads();
  if (!*is_last) return;
  if (threadIdx.x == 0) *arrived = 0;
  for (int at = threadIdx.x; at < heads * kHeadStride; at += kAttendWarps * 32) {
    const int head = at / kHeadStride, d = at % kHeadStride;
    if (d >= c.head_dim) continue;
    const volatile float* from = partial_of(p, row, head0 + head, 0);
    float m = -INFINITY, l = 0, v = 0;
    for (int i = 0; i < used; ++i) m = fmaxf(m, from[i * kPart + kHeadStride]);
    for (int i = 0; i < used; ++i) {
      const float f = __expf(from[i * kPart + kHeadStride] - m);
      l += from[i * kPart + kHeadStride + 1] * f;
      v += from[i * kPart + d] * f;
    }
    p.out[static_cast<int64_t>(row) * p.out_stride + (head0 + head) * c.head_dim + d] = to_bf16(v / l);
  }
}

}  // namespace lorikeet::cuda
