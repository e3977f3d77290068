// Sums and maxima over a warp and over a block, for every thread, in an order that the thread's number fixes.
#pragma once

#include "../dialect.h"

namespace lorikeet::cuda {

struct Plus {
  template <typename T>
  __device__ __forceinline__ T operator()(T a, T b) const {
    return a + b;
  }
};
struct Largest {
  template <typename T>
  __device__ __forceinline__ T operator()(T a, T b) const {
    return a > b ? a : b;
  }
};

template <typename Join, typename T>
__device__ __forceinline__ T over_warp(T v) {
#pragma unroll
  for (int m = 16; m > 0; m /= 2) v = Join()(v, __shfl_xor_sync(0xffffffffu, v, m));
  return v;
}

// `shared` has a T per warp.
template <typename Join, typename T>
__device__ __forceinline__ T over_block(T v, void* shared) {
  T* of_warps = static_cast<T*>(shared);
  v = over_warp<Join>(v);
  __syncthreads();  // what an earlier call left has been read
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = v;
  __syncthreads();
  T total = of_warps[0];
  for (int i = 1; i < static_cast<int>(blockDim.x) / 32; ++i) total = Join()(total, of_warps[i]);
  return total;
}

}  // namespace lorikeet::cuda
