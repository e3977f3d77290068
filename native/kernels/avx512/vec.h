// Vectors of 16 floats. The interface is that of avx2/vec.h; simd/ops.inc.h is written against it.
//
// Everything here and in simd/ has internal linkage and uses no STL: an inline function that
// several files share could be kept by the linker in its AVX-512 form, for every processor.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace lorikeet {
namespace {

using Vec = __m512;
constexpr int64_t kLanes = 16;

// A tile of a product holds kTileRows x kTileOuts sums in the 32 registers,
// or kFewRowsOuts for each of 1 or 2 rows.
constexpr int kTileRows = 4;
constexpr int kTileOuts = 4;
constexpr int kFewRowsOuts = 8;

// The first n lanes, 0 < n <= kLanes.
inline __mmask16 first(int64_t n) { return static_cast<__mmask16>((1u << n) - 1); }

inline Vec zero() { return _mm512_setzero_ps(); }
inline Vec broadcast(float value) { return _mm512_set1_ps(value); }

inline Vec load(const float* from) { return _mm512_loadu_ps(from); }
// Reads n floats, 0 < n <= kLanes; the other lanes are 0.
inline Vec load_part(const float* from, int64_t n) { return _mm512_maskz_loadu_ps(first(n), from); }
inline void store(float* to, Vec v) { _mm512_storeu_ps(to, v); }
inline void store_part(float* to, Vec v, int64_t n) { _mm512_mask_storeu_ps(to, first(n), v); }

// a * b + c, rounded once.
inline Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }

inline float reduce_add(Vec v) { return _mm512_reduce_add_ps(v); }
inline float reduce_max(Vec v) { return _mm512_reduce_max_ps(v); }

// A NaN in v stays a NaN.
inline Vec clamp(Vec v, float low, float high) {
  return _mm512_min_ps(broadcast(high), _mm512_max_ps(broadcast(low), v));
}
inline Vec max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
inline Vec round_to_even(Vec v) {
  return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
// v * 2^n for whole n.
inline Vec scale_by_power(Vec v, Vec n) { return _mm512_scalef_ps(v, n); }

// How a stored element becomes a float; each widening is exact.
struct F32 {
  using Element = float;
  static Vec load(const float* from) { return lorikeet::load(from); }
  static Vec load_part(const float* from, int64_t n) { return lorikeet::load_part(from, n); }
};

struct F16 {
  using Element = uint16_t;
  static Vec widen(__m256i bits) { return _mm512_cvtph_ps(bits); }
  static Vec load(const uint16_t* from) { return widen(_mm256_loadu_epi16(from)); }
  static Vec load_part(const uint16_t* from, int64_t n) {
    return widen(_mm256_maskz_loadu_epi16(first(n), from));
  }
};

struct BF16 {
  using Element = uint16_t;
  static Vec widen(__m256i bits) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }
  static Vec load(const uint16_t* from) { return widen(_mm256_loadu_epi16(from)); }
  static Vec load_part(const uint16_t* from, int64_t n) {
    return widen(_mm256_maskz_loadu_epi16(first(n), from));
  }
};

}  // namespace
}  // namespace lorikeet
