// How kernels find adapters. A LoRA's first product rides in the linear that reads the same x (shrink jobs),
// its second in the kernel that reads the linear's result (Expand): adapters add bytes, not launches.
#pragma once

#include "../../../modules.h"
#include "../dialect.h"
#include "kernels/layout.h"

namespace lorikeet::cuda {

// A page's share of one adapted projection.
struct Page {
  const Bf16* a;  // [kPageRanks, in, padded]
  const Bf16* b;  // [out, kPageRanks]
};
struct Adapted {
  int32_t rank;  // 0: not adapted
  float scale;
};
// What a step finds adapters through. A graph captures these addresses and nothing behind them.
struct SlotTable {
  const Page* pages;       // [slots, layers, kModules, pages_max]
  const Adapted* adapted;  // [slots, layers, kModules]
  int32_t layers;
  int32_t pages_max;
  __device__ __forceinline__ int64_t at(int slot, int layer, Module module) const {
    return (static_cast<int64_t>(slot) * layers + layer) * kModules + static_cast<int>(module);
  }
};

// The product of one page's A with rows [first, first + count), which share a slot. The same list serves all
// layers.
struct Job {
  int32_t slot;
  Module module;
  int32_t member;  // of its group
  int32_t page;
  int32_t first, count;
};

// h = scale A x for the jobs, each by one block at the head of a linear's grid.
struct Shrink {
  int32_t blocks;  // that the grid has for jobs; those beyond *count end at once
  int32_t layer;
  const Job* jobs;
  const int32_t* count;
  SlotTable table;
  const float* scales;  // [rows]: the requests' own factors
  float* h;             // [rows, members, pages_max, kPageRanks] with `stride` from row to row
  int32_t stride;
};

// y + B h for one output of one row.
struct Expand {
  SlotTable table;
  const int32_t* slots;  // [rows], -1: none; null: the step has no adapters
  const float* h;
  int32_t stride, layer;

  __device__ __forceinline__ int slot(int row) const { return slots ? slots[row] : -1; }

  __device__ __forceinline__ float add(float y, int row, int slot, Module module, int member,
                                       int64_t out) const {
    const int64_t at = table.at(slot, layer, module);
    const int rank = table.adapted[at].rank;
    for (int page = 0; page * kPageRanks < rank; ++page) {
      const Bf16* b = table.pages[at * table.pages_max + page].b + out * kPageRanks;
      const float* from =
          h + static_cast<int64_t>(row) * stride + (member * table.pages_max + page) * kPageRanks;
      const uint4 halves[2] = {load_16(b), load_16(b + 8)};
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const uint32_t pairs[4] = {halves[i].x, halves[i].y, halves[i].z, halves[i].w};
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          const float4 v = *reinterpret_cast<const float4*>(from + i * 8 + j * 4);
          const float2 low = unpack(pairs[2 * j]), high = unpack(pairs[2 * j + 1]);
          y += low.x * v.x;
          y += low.y * v.y;
          y += high.x * v.z;
          y += high.y * v.w;
        }
      }
    }
    return y;
  }
};

// A slot whose pages are free now: NaN at the head of each row of A, and no ranks. Grid [layers x kModules].
struct PoisonArgs {
  Page* pages;  // of the slot: [layers, kModules, pages_max]
  Adapted* adapted;
  int32_t pages_max;
  int32_t cols[kModules];  // of A, padded
};
__global__ void __launch_bounds__(32) poison(PoisonArgs p) {
  const int place = blockIdx.x, rank = p.adapted[place].rank;
  for (int j = threadIdx.x; j < rank; j += 32) {
    auto* a = const_cast<Bf16*>(p.pages[static_cast<int64_t>(place) * p.pages_max + j / kPageRanks].a);
    a[static_cast<int64_t>(j % kPageRanks) * p.cols[place % kModules]] = {0x7fff};
  }
  __syncwarp();
  if (threadIdx.x == 0) p.adapted[place] = {0, 0};
}

}  // namespace lorikeet::cuda
