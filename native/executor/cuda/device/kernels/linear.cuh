// y = W x for few rows, and the shrink jobs that read the same x. Weights are the 16-row operand of mma and
// stream from memory straight into fragments; tokens are the 8-column one.
//
// A row's bits depend on neither tile nor company: columns go to kWarps classes in turn, 32 at a time, each
// class has one sum, and the sums are joined in order. wide.cuh keeps the same order.
#pragma once

#include "lora.cuh"

namespace lorikeet::cuda {

constexpr int kWarps = 8;
constexpr int kSlab = 32;  // columns per warp and turn

struct LinearArgs {
  float* y;       // [rows, outs]
  const Bf16* x;  // [rows, cols]
  const Bf16* w;  // [outs, cols]
  int32_t rows, outs;
  int32_t cols;  // a multiple of kSlab
  Shrink shrink;
};

// A block has kRows x 16 outputs, and kTokens x 8 rows, which are no fewer than the step has, or a job.
template <int kRows, int kTokens>
__global__ void __launch_bounds__(kWarps * 32, kRows* kTokens == 1 ? 3 : 1) linear(LinearArgs p) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = lane / 4, quad = lane % 4;
  const int tile = static_cast<int>(blockIdx.x) - p.shrink.blocks;
  const bool is_job = tile < 0;
  const Bf16* w = p.w;
  int outs = p.outs, out0 = tile * 16 * kRows, row0 = 0, count = p.rows, rank0 = 0;
  float scale = 0;
  // Jobs and table were there before the step. A block with nothing to do waits all the same: a grid of such
  // blocks must not end before the one that writes x.
  if (is_job) {
    if (static_cast<int>(blockIdx.x) >= *p.shrink.count) return grid_wait();
    const Job job = p.shrink.jobs[blockIdx.x];
    const int64_t at = p.shrink.table.at(job.slot, p.shrink.layer, job.module);
    const Adapted adapted = p.shrink.table.adapted[at];
    outs = min(static_cast<int>(kPageRanks), adapted.rank - job.page * static_cast<int>(kPageRanks));
    if (outs <= 0) return grid_wait();
    scale = adapted.scale;
    w = p.shrink.table.pages[at * p.shrink.table.pages_max + job.page].a;
    out0 = 0;
    row0 = job.first;
    count = job.count;
    rank0 = (job.member * p.shrink.table.pages_max + job.page) * static_cast<int>(kPageRanks);
  }
  const Bf16* w_rows[2 * kRows];
#pragma unroll
  for (int i = 0; i < 2 * kRows; ++i) {
    const int out = out0 + i / 2 * 16 + i % 2 * 8 + group;
    w_rows[i] = out < outs ? w + static_cast<int64_t>(out) * p.cols + quad * 8 : nullptr;
  }

  const Bf16* x_rows[kTokens];
#pragma unroll
  for (int j = 0; j < kTokens; ++j) {
    const int token = j * 8 + group;
    x_rows[j] = token < count ? p.x + static_cast<int64_t>(row0 + token) * p.cols + quad * 8 : nullptr;
  }
  float sums[kRows][kTokens][4] = {};

  // Both operands take their columns in the same order, so that 16 bytes of a row are a lane's share of two
  // products.
  const auto multiply = [&](int k, const uint4(&a)[2 * kRows]) {
#pragma unroll
    for (int j = 0; j < kTokens; ++j) {
      const uint4 b = x_rows[j] ? load_16(x_rows[j] + k) : uint4{};
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        const uint4 &low = a[2 * i], &high = a[2 * i + 1];
        mma(sums[i][j], low.x, high.x, low.y, high.y, b.x, b.y);
        mma(sums[i][j], low.z, high.z, low.w, high.w, b.z, b.w);
      }
    }
  };
  const auto load = [&](int k, uint4(&a)[2 * kRows]) {
#pragma unroll
    for (int i = 0; i < 2 * kRows; ++i) a[i] = w_rows[i] ? load_stream(w_rows[i] + k) : uint4{};
  };
  constexpr int kStride = kWarps * kSlab;
  constexpr int kUnroll = kRows >= 4 ? 1 : 4 / kRows;  // 8 loads of 16 bytes under way per lane
  // The matrix is nobody's result, x is: the first weights are under way before the grid before this one
  // ends.
  bool waits = true;
  int k = warp * kSlab;
  for (; k + (kUnroll - 1) * kStride < p.cols; k += kUnroll * kStride) {
    uint4 a[kUnroll][2 * kRows];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) load(k + u * kStride, a[u]);
    if (waits) grid_wait(), waits = false;
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) multiply(k + u * kStride, a[u]);
  }
  if (waits) grid_wait();
#pragma unroll 1  // at most kUnroll - 1 turns, whose loads ahead would be spilled
  for (; k < p.cols; k += kStride) {
    uint4 a[2 * kRows];
    load(k, a);
    multiply(k, a);
  }
  grid_launch_next();

  // The warps' sums, in their order.
  constexpr int kTile = 16 * kRows * 8 * kTokens;
  float* shared = dynamic_shared<float>();  // [kWarps, 8 kTokens, 16 kRows]
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
#pragma unroll
    for (int j = 0; j < kTokens; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int out = i * 16 + e / 2 * 8 + group, token = j * 8 + quad * 2 + e % 2;
        shared[warp * kTile + token * 16 * kRows + out] = sums[i][j][e];
      }
    }
  }
  __syncthreads();
  for (int at = threadIdx.x; at < kTile; at += kWarps * 32) {
    const int token = at / (16 * kRows), out = at % (16 * kRows);
    if (token >= count || out0 + out >= (is_job ? static_cast<int>(kPageRanks) : outs)) continue;
    float sum = shared[at];
#pragma unroll
    for (int i = 1; i < kWarps; ++i) sum += shared[i * kTile + at];
    const int64_t row = row0 + token;
    if (is_job) {
      p.shrink.h[row * p.shrink.stride + rank0 + out] =
          out < outs ? sum * (scale * p.shrink.scales[row]) : 0.0f;
    } else {
      p.y[row * p.outs + out0 + out] = sum;
    }
  }
}

}  // namespace lorikeet::cuda
