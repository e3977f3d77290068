// y = W x for many rows, with the bits of linear.cuh: the same products in the same order. Each of the eight
// sums that warps keep there is made in turn here, then added to the total.
#pragma once

#include "linear.cuh"

namespace lorikeet::cuda {

constexpr int kWideOuts = 128, kWideTokens = 128, kWideStages = 4;
constexpr int kWideTile = (kWideOuts + kWideTokens) * kSlab;
constexpr size_t kWideShared = sizeof(Bf16) * kWideStages * kWideTile;

// The i-th slab of columns to be added, and the class that it belongs to.
struct Slab {
  int index, of_class;
};
__device__ __forceinline__ Slab slab_at(int i, int slabs) {
  const int longest = (slabs + kWarps - 1) / kWarps, long_classes = slabs % kWarps;
  if (long_classes == 0 || i < long_classes * longest) {
    return {i % longest * kWarps + i / longest, i / longest};
  }
  const int j = i - long_classes * longest, of_class = long_classes + j / (longest - 1);
  return {j % (longest - 1) * kWarps + of_class, of_class};
}

// Grid [outs / kWideOuts, rows / kWideTokens]. Without shrink jobs.
__global__ void __launch_bounds__(256, 1) linear_wide(LinearArgs p) {
  Bf16* shared = dynamic_shared<Bf16>();  // [kWideStages, (outs, tokens), kSlab]
  const int tid = threadIdx.x, warp = tid / 32, lane = tid % 32, group = lane / 4, quad = lane % 4;
  const int out0 = blockIdx.x * kWideOuts, token0 = blockIdx.y * kWideTokens;
  const int slabs = p.cols / kSlab;
  grid_wait();
  grid_launch_next();
  const auto fetch = [&](int i) {
    if (i < slabs) {
      const int64_t col = static_cast<int64_t>(slab_at(i, slabs).index) * kSlab;
      Bf16* to = shared + i % kWideStages * kWideTile;
#pragma unroll
      for (int c = tid; c < (kWideOuts + kWideTokens) * 4; c += 256) {
        const int row = c / 4, part = c % 4 * 8;
        const bool is_w = row < kWideOuts;
        const int at = is_w ? out0 + row : token0 + row - kWideOuts, end = is_w ? p.outs : p.rows;
        const Bf16* from = (is_w ? p.w : p.x) + static_cast<int64_t>(min(at, end - 1)) * p.cols + col + part;
        copy_async_16(to + row * kSlab + part, from);
      }
    }
    copy_async_commit();
  };
  for (int i = 0; i < kWideStages - 1; ++i) fetch(i);

  float total[2][8][4], sums[2][8][4] = {};
  int current = 0;
  const auto close_classes = [&](int until) {
    for (; current < until; ++current) {
#pragma unroll
      for (int a = 0; a < 2; ++a) {
#pragma unroll
        for (int b = 0; b < 8; ++b) {
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            total[a][b][e] = current == 0 ? sums[a][b][e] : total[a][b][e] + sums[a][b][e];
            sums[a][b][e] = 0;
          }
        }
      }
    }
  };
  for (int i = 0; i < slabs; ++i) {
    close_classes(slab_at(i, slabs).of_class);
    copy_async_wait<kWideStages - 2>();
    __syncthreads();
    fetch(i + kWideStages - 1);
    const Bf16* w = shared + i % kWideStages * kWideTile + (warp / 2 * 32 + group) * kSlab + quad * 8;
    const Bf16* x =
        shared + i % kWideStages * kWideTile + (kWideOuts + warp % 2 * 64 + group) * kSlab + quad * 8;
    uint4 low[2], high[2];
#pragma unroll
    for (int a = 0; a < 2; ++a) {
      low[a] = load_16(w + a * 16 * kSlab);
      high[a] = load_16(w + (a * 16 + 8) * kSlab);
    }
#pragma unroll
    for (int b = 0; b < 8; ++b) {
      const uint4 v = load_16(x + b * 8 * kSlab);
#pragma unroll
      for (int a = 0; a < 2; ++a) {
        mma(sums[a][b], low[a].x, high[a].x, low[a].y, high[a].y, v.x, v.y);
        mma(sums[a][b], low[a].z, high[a].z, low[a].w, high[a].w, v.z, v.w);
      }
    }
  }
  close_classes(kWarps);
  copy_async_wait<0>();
#pragma unroll
  for (int a = 0; a < 2; ++a) {
#pragma unroll
    for (int b = 0; b < 8; ++b) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int out = out0 + warp / 2 * 32 + a * 16 + e / 2 * 8 + group;
        const int token = token0 + warp % 2 * 64 + b * 8 + quad * 2 + e % 2;
        if (out < p.outs && token < p.rows) p.y[static_cast<int64_t>(token) * p.outs + out] = total[a][b][e];
      }
    }
  }
}

}  // namespace lorikeet::cuda
