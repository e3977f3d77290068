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

// Vectors of a panel's 16 outputs; the sums that a tile of a product keeps in the 32 registers, and its rows.
constexpr int kPanelVecs = 1;
constexpr int kTileSums = 24;
constexpr int kTileRows = 6;

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

inline __m256i load_halves(const uint16_t* from) { return _mm256_loadu_epi16(from); }
inline __m256i load_halves_part(const uint16_t* from, int64_t n) {
  return _mm256_maskz_loadu_epi16(first(n), from);
}
inline Vec widen_f16(__m256i bits) { return _mm512_cvtph_ps(bits); }
inline Vec widen_bf16(__m256i bits) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

// The first, the second bf16 of each of kLanes pairs.
inline Vec load_even(const uint16_t* pairs) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(pairs), 16));
}
inline Vec load_odd(const uint16_t* pairs) {
  return _mm512_castsi512_ps(
      _mm512_and_si512(_mm512_loadu_si512(pairs), _mm512_set1_epi32(static_cast<int>(0xffff0000))));
}

// Rounded to the nearest bf16, ties to even; a NaN stays one.
inline __m256i narrow_bf16(Vec v) {
  const __m512i bits = _mm512_castps_si512(v);
  const __m512i lowest = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(lowest, _mm512_set1_epi32(0x7fff)));
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  const __mmask16 is_nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_mov_epi32(rounded, is_nan, quiet), 16));
}
inline void store(uint16_t* to, Vec v) { _mm256_storeu_epi16(to, narrow_bf16(v)); }
inline void store_part(uint16_t* to, Vec v, int64_t n) {
  _mm256_mask_storeu_epi16(to, first(n), narrow_bf16(v));
}

}  // namespace
}  // namespace lorikeet
