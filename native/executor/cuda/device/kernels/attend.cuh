// Causal grouped-query attention over the paged cache, in one pass over keys and values (online softmax),
// which neighbouring tokens of a prompt read together; split by position. A row's bits depend on its own
// context alone.
#pragma once

#include "qkv.cuh"

namespace lorikeet::cuda {

constexpr int kSplitTokens = kIsSmall ? 16 : 256;  // of one block
constexpr int kAttendWarps = 4;
constexpr int kAttendHeads = 8;  // query heads of one kv head that one block serves
constexpr int kAttendRows = 16;  // of a tile: those heads of each of some tokens

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
constexpr size_t kAttendShared = sizeof(float) * kAttendWarps * kAttendRows * (kHeadStride + 2);

// Sums of one split of one query head: head_stride values, then the largest score and the sum of weights.
__device__ __forceinline__ float* partial_of(const AttendArgs& p, int row, int head, int split) {
  return p.partial +
         ((static_cast<int64_t>(row) * p.cache.heads + head) * p.splits + split) * (p.cache.head_stride + 2);
}

// Whether a row goes with the one before it: the next token of its sequence, in the same tile.
__device__ __forceinline__ bool follows(const Cache& c, int row, int tile_tokens) {
  return c.table_of[row] == c.table_of[row - 1] && c.positions[row] == c.positions[row - 1] + 1 &&
         c.positions[row] % tile_tokens != 0;
}

// What a tile row is: a query head of a token, and how far it sees.
struct TileRow {
  int token, head;     // of the tile, of the unit
  int context, begin;  // of the token, of the split
  bool is_there;
  __device__ __forceinline__ int end() const { return min(begin + kSplitTokens, context); }
  __device__ __forceinline__ int splits() const { return (context + kSplitTokens - 1) / kSplitTokens; }
};

// Grid [splits, kv_heads x units, rows]; a tile's first row is the one that works. The warps take the cache's
// blocks in turn; the last block of a tile's unit joins the splits, in their order.
template <int kHeadStride>
__global__ void __launch_bounds__(kAttendWarps * 32) attend(AttendArgs p) {
  grid_wait();
  grid_launch_next();
  const Cache& c = p.cache;
  const int split = blockIdx.x, kv_head = blockIdx.y / p.units, row = blockIdx.z;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = lane / 4, quad = lane % 4;
  const int ratio = c.heads / c.kv_heads, unit_heads = min(ratio, kAttendHeads);
  const int first = blockIdx.y % p.units * kAttendHeads, heads = min(ratio - first, kAttendHeads);
  const int head0 = kv_head * ratio + first, begin = split * kSplitTokens;
  constexpr int kBlock = static_cast<int>(kBlockTokens);
  constexpr int kSteps = kHeadStride / 32, kTiles = kHeadStride / 8, kPart = kHeadStride + 2;

  // The tile.
  const int tile_tokens = kAttendRows / unit_heads;
  if (c.table_of[row] < 0 || (row > 0 && follows(c, row, tile_tokens))) return;
  int tokens = 1;
  while (tokens < tile_tokens && row + tokens < static_cast<int>(gridDim.z) &&
         follows(c, row + tokens, tile_tokens)) {
    ++tokens;
  }
  const int position = c.positions[row];
  const auto tile_row = [&](int i) {
    const int token = i / unit_heads, head = i % unit_heads;
    return TileRow{token, head, position + token + 1, begin, token < tokens && head < heads};
  };
  const TileRow longest = {tokens - 1, 0, position + tokens, begin, true};
  if (begin >= longest.context) return;
  const int end = longest.end();

  // Queries; a lane has two rows of the tile.
  uint4 q[2][kSteps];
  int end_of[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const TileRow r = tile_row(h * 8 + group);
    end_of[h] = r.is_there ? r.end() : end;
    const Bf16* from =
        p.q + (static_cast<int64_t>(row + r.token) * c.heads + head0 + r.head) * kHeadStride + quad * 8;
#pragma unroll
    for (int i = 0; i < kSteps; ++i) q[h][i] = r.is_there ? load_16(from + i * 32) : uint4{};
  }
  float o[kTiles][4] = {}, largest[2] = {-INFINITY, -INFINITY}, total[2] = {};
  for (int at = begin + warp * kBlock; at < end; at += kAttendWarps * kBlock) {
    const int64_t base = c.offset(row, at, kv_head);

    // Scores. Column n of tile t is token n / 2 * 4 + 2 t + n % 2, so that a lane ends with the four tokens
    // that it needs as an operand of the next product.
    uint4 key[2][kSteps];
#pragma unroll
    for (int t = 0; t < 2; ++t) {
      const int token = group / 2 * 4 + 2 * t + group % 2;
      const Bf16* from = c.keys + base + token * kHeadStride + quad * 8;
#pragma unroll
      for (int i = 0; i < kSteps; ++i) key[t][i] = at + token < end ? load_written(from + i * 32) : uint4{};
    }
    uint2 value[kTiles];
#pragma unroll
    for (int d = 0; d < kTiles; ++d) value[d] = load_8(c.values + base + (d * 8 + group) * kBlock + quad * 4);
    float s[2][4] = {};
#pragma unroll
    for (int t = 0; t < 2; ++t) {
#pragma unroll
      for (int i = 0; i < kSteps; ++i) {
        mma(s[t], q[0][i].x, q[1][i].x, q[0][i].y, q[1][i].y, key[t][i].x, key[t][i].y);
        mma(s[t], q[0][i].z, q[1][i].z, q[0][i].w, q[1][i].w, key[t][i].z, key[t][i].w);
      }
    }

    // Weights. A row that a warp sees nothing of gets NaN, in a part that is not joined.
    float kept[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float best = largest[h];
#pragma unroll
      for (int t = 0; t < 2; ++t) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& score = s[t][2 * h + e];
          score = at + quad * 4 + 2 * t + e < end_of[h] ? score * p.scale : -INFINITY;
          best = fmaxf(best, score);
        }
      }
      best = fmaxf(best, __shfl_xor_sync(0xffffffffu, best, 1));
      best = fmaxf(best, __shfl_xor_sync(0xffffffffu, best, 2));
      kept[h] = __expf(largest[h] - best);
      largest[h] = best;
      float sum = 0;
#pragma unroll
      for (int t = 0; t < 2; ++t) {
#pragma unroll
        for (int e = 0; e < 2; ++e) sum += s[t][2 * h + e] = __expf(s[t][2 * h + e] - best);
      }
      total[h] = total[h] * kept[h] + sum;
    }

    // Weighted values. Those past the context may be anything, and 0 * NaN is NaN.
    const int left = end - at - quad * 4;
#pragma unroll
    for (int d = 0; d < kTiles; ++d) {
      uint2 v = value[d];
      if (left < 4) {
        v.x = left <= 0 ? 0 : left == 1 ? v.x & 0xffffu : v.x;
        v.y = left <= 2 ? 0 : left == 3 ? v.y & 0xffffu : v.y;
      }
#pragma unroll
      for (int e = 0; e < 4; ++e) o[d][e] *= kept[e / 2];
      mma(o[d], pack(s[0][0], s[0][1]), pack(s[0][2], s[0][3]), pack(s[1][0], s[1][1]),
          pack(s[1][2], s[1][3]), v.x, v.y);
    }
  }

  // The warps' parts, joined in their order.
  float* parts = dynamic_shared<float>();  // [kAttendWarps, kAttendRows, kPart]
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    total[h] += __shfl_xor_sync(0xffffffffu, total[h], 1);
    total[h] += __shfl_xor_sync(0xffffffffu, total[h], 2);
    float* mine = parts + (warp * kAttendRows + h * 8 + group) * kPart;
#pragma unroll
    for (int d = 0; d < kTiles; ++d) {
      mine[d * 8 + quad * 2] = o[d][2 * h];
      mine[d * 8 + quad * 2 + 1] = o[d][2 * h + 1];
    }
    if (quad == 0) mine[kHeadStride] = largest[h], mine[kHeadStride + 1] = total[h];
  }
  __syncthreads();
  for (int at = threadIdx.x; at < tokens * unit_heads * kHeadStride; at += kAttendWarps * 32) {
    const int i = at / kHeadStride, d = at % kHeadStride;
    const TileRow r = tile_row(i);
    if (!r.is_there || begin >= r.context) continue;
    const int warps = min(kAttendWarps, (r.end() - begin + kBlock - 1) / kBlock);
    float m = -INFINITY, l = 0, v = 0;
    for (int w = 0; w < warps; ++w) m = fmaxf(m, parts[(w * kAttendRows + i) * kPart + kHeadStride]);
    for (int w = 0; w < warps; ++w) {
      const float* part = parts + (w * kAttendRows + i) * kPart;
      const float f = __expf(part[kHeadStride] - m);
      l += part[kHeadStride + 1] * f;
      v += part[d] * f;
    }
    if (r.splits() == 1) {
      if (d < c.head_dim) {
        p.out[static_cast<int64_t>(row + r.token) * p.out_stride + (head0 + r.head) * c.head_dim + d] =
            to_bf16(v / l);
      }
      continue;
    }
    float* to = partial_of(p, row + r.token, head0 + r.head, split);
    to[d] = v;
    if (d == 0) to[kHeadStride] = m, to[kHeadStride + 1] = l;
  }
  if (longest.splits() == 1) return;

  // The splits, joined by the last block to come.
  __syncthreads();
  auto* is_last = reinterpret_cast<uint32_t*>(parts);
  uint32_t* arrived = p.arrived + static_cast<int64_t>(row) * gridDim.y + blockIdx.y;
  if (threadIdx.x == 0) *is_last = arrive(arrived) + 1 == static_cast<uint32_t>(longest.splits());
  __syncthreads();
  if (!*is_last) return;
  if (threadIdx.x == 0) *arrived = 0;
  for (int at = threadIdx.x; at < tokens * unit_heads * kHeadStride; at += kAttendWarps * 32) {
    const int d = at % kHeadStride;
    const TileRow r = tile_row(at / kHeadStride);
    if (!r.is_there || r.splits() == 1 || d >= c.head_dim) continue;
    const volatile float* from = partial_of(p, row + r.token, head0 + r.head, 0);
    float m = -INFINITY, l = 0, v = 0;
    for (int i = 0; i < r.splits(); ++i) m = fmaxf(m, from[i * kPart + kHeadStride]);
    for (int i = 0; i < r.splits(); ++i) {
      const float f = __expf(from[i * kPart + kHeadStride] - m);
      l += from[i * kPart + kHeadStride + 1] * f;
      v += from[i * kPart + d] * f;
    }
    p.out[static_cast<int64_t>(row + r.token) * p.out_stride + (head0 + r.head) * c.head_dim + d] =
        to_bf16(v / l);
  }
}

}  // namespace lorikeet::cuda
