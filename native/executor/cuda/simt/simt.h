// CUDA's execution model on the host, for tests: each thread of a block is a fiber of one OS thread. Blocks
// run one after the other, their threads in an order drawn from a seed; shared memory starts as NaN; an
// asynchronous copy lands as late as it may. With -fsanitize=thread, fibers are threads to the sanitizer and
// only barriers order them, so a missing __syncthreads() is the race that it is; with -fsanitize=address,
// reads past an array are found.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

#define __global__ inline
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
struct uint3 {
  unsigned x, y, z;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
struct alignas(8) uint2 {
  uint32_t x, y;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};

inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;

namespace simt {

// Runs `thread` for every thread of the grid. A grid that overlaps sees what the one before it wrote after
// grid_wait() only (to the thread sanitizer; it runs after it all the same). One grid at a time: callers
// exclude each other.
void run(dim3 grid, dim3 block, size_t shared_bytes, bool overlaps, const std::function<void()>& thread);
// The host has seen all grids so far.
void synchronize();
// The order of threads; 0: by index.
void seed(uint64_t value);

void grid_wait();
uint32_t arrive(uint32_t* counter);
std::byte* shared_memory();
void block_barrier();
// All lanes of `mask` bring `bytes` at `mine`, at most kLaneBytes; returns the 32 lanes' values, kLaneBytes
// apart, valid until the lane's next call.
constexpr size_t kLaneBytes = 64;
const std::byte* exchange(uint32_t mask, const void* mine, size_t bytes, const char* what);
void mma_m16n8k16(float (&d)[4], std::array<uint32_t, 4> a, std::array<uint32_t, 2> b);
void copy_async(void* to, const void* from, size_t bytes);
void copy_async_commit();
void copy_async_wait(int pending);
// What a device would do undefined things at. Says where, and ends the process.
[[noreturn]] void fail(const char* format, ...);

inline void check_aligned(const void* p, size_t n) {
  if (reinterpret_cast<uintptr_t>(p) % n != 0) fail("misaligned address %p for an access of %zu bytes", p, n);
}
inline int lane() { return static_cast<int>(threadIdx.x % 32); }

template <typename T>
T from_lane(uint32_t mask, T value, int source, const char* what) {
  const std::byte* all = exchange(mask, &value, sizeof value, what);
  T taken;
  std::memcpy(&taken, all + static_cast<size_t>(source) * kLaneBytes, sizeof taken);
  return taken;
}

}  // namespace simt

inline void __syncthreads() { simt::block_barrier(); }
inline void __syncwarp(uint32_t mask = 0xffffffffu) { simt::exchange(mask, "", 0, "__syncwarp"); }
template <typename T>
T __shfl_xor_sync(uint32_t mask, T value, int lane_mask) {
  return simt::from_lane(mask, value, simt::lane() ^ lane_mask, "__shfl_xor_sync");
}
inline float __uint_as_float(uint32_t x) {
  float f;
  std::memcpy(&f, &x, sizeof f);
  return f;
}
inline uint32_t __float_as_uint(float x) {
  uint32_t u;
  std::memcpy(&u, &x, sizeof u);
  return u;
}
#define __expf(x) __builtin_expf(x)
inline float rsqrtf(float x) { return 1.0f / __builtin_sqrtf(x); }
using std::max;
using std::min;
