// What kernels are written against. With nvcc: CUDA, and PTX behind small inline functions. Without:
// simt/simt.h runs the same source on the host, one fiber per CUDA thread.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#include <cuda_runtime.h>
#else
#include "../simt/simt.h"
#endif

namespace lorikeet::cuda {

// Of tests that count threads: short contexts are split too, and blocks have few threads.
#ifdef LORIKEET_SMALL
constexpr bool kIsSmall = true;
#else
constexpr bool kIsSmall = false;
#endif

struct Bf16 {
  uint16_t bits;
};
static_assert(sizeof(Bf16) == 2);

#ifdef __CUDACC__

__device__ __forceinline__ float to_float(Bf16 x) {
  return __uint_as_float(static_cast<uint32_t>(x.bits) << 16);
}
// Nearest, ties to even.
__device__ __forceinline__ Bf16 to_bf16(float x) {
  uint16_t bits;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  return {bits};
}
// Two bf16 of one register, the lower first.
__device__ __forceinline__ uint32_t pack(float low, float high) {
  uint32_t x;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(x) : "f"(high), "f"(low));
  return x;
}
// 16 bytes that are read once: past the L1, so that it keeps the activations.
__device__ __forceinline__ uint4 load_stream(const void* p) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p));
  return v;
}
// The same of what a grid before this one wrote, which may still have been at it when this one began.
__device__ __forceinline__ uint4 load_written(const void* p) {
  uint4 v;
  asm volatile("ld.global.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(p)
               : "memory");
  return v;
}
// d += a b with a [16, 16], b [16, 8]; fragments as in the PTX manual, mma.m16n8k16.
__device__ __forceinline__ void mma(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3,
                                    uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
__device__ __forceinline__ void copy_async_16(void* shared, const void* global) {
  const auto to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
}
__device__ __forceinline__ void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kPending>
__device__ __forceinline__ void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}
// Programmatic dependent launch; nothing before sm_90. What earlier grids wrote is there after grid_wait()
// only.
__device__ __forceinline__ void grid_wait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
__device__ __forceinline__ void grid_launch_next() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
// Adds 1 and returns what was there; what this thread's block wrote before is visible to who sees the sum.
__device__ __forceinline__ uint32_t arrive(uint32_t* counter) {
  __threadfence();
  const uint32_t before = atomicAdd(counter, 1u);
  __threadfence();
  return before;
}
template <typename T>
__device__ __forceinline__ T* dynamic_shared() {
  extern __shared__ __align__(128) unsigned char memory[];
  return reinterpret_cast<T*>(memory);
}

#else

inline float to_float(Bf16 x) { return __uint_as_float(static_cast<uint32_t>(x.bits) << 16); }
inline Bf16 to_bf16(float x) {
  const uint32_t u = __float_as_uint(x);
  if ((u & 0x7fffffffu) > 0x7f800000u) return {0x7fff};
  return {static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1)) >> 16)};
}
inline uint32_t pack(float low, float high) {
  return to_bf16(low).bits | static_cast<uint32_t>(to_bf16(high).bits) << 16;
}
inline uint4 load_stream(const void* p) {
  simt::check_aligned(p, 16);
  return *static_cast<const uint4*>(p);
}
inline uint4 load_written(const void* p) { return load_stream(p); }
inline void mma(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
  simt::mma_m16n8k16(d, {a0, a1, a2, a3}, {b0, b1});
}
inline void copy_async_16(void* shared, const void* global) { simt::copy_async(shared, global, 16); }
inline void copy_async_commit() { simt::copy_async_commit(); }
template <int kPending>
void copy_async_wait() {
  simt::copy_async_wait(kPending);
}
inline void grid_wait() { simt::grid_wait(); }
inline void grid_launch_next() {}
inline uint32_t arrive(uint32_t* counter) { return simt::arrive(counter); }
template <typename T>
T* dynamic_shared() {
  return reinterpret_cast<T*>(simt::shared_memory());
}

#endif

__device__ __forceinline__ float2 unpack(uint32_t x) {
  return {__uint_as_float(x << 16), __uint_as_float(x & 0xffff0000u)};
}
// 16 and 8 bytes that others of the block read too.
__device__ __forceinline__ uint4 load_16(const void* p) { return *static_cast<const uint4*>(p); }
__device__ __forceinline__ uint2 load_8(const void* p) { return *static_cast<const uint2*>(p); }

}  // namespace lorikeet::cuda
