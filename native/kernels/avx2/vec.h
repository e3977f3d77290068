// Vectors of 8 floats. The interface is that of avx512/vec.h, and so is the rule on linkage there.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace lorikeet {
namespace {

using Vec = __m256;
constexpr int64_t kLanes = 8;

// Vectors of a panel's 16 outputs; the sums that a tile of a product keeps in the 16 registers, and its rows.
constexpr int kPanelVecs = 2;
constexpr int kTileSums = 8;
constexpr int kTileRows = 4;

// The first n lanes, 0 < n <= kLanes.
inline __m256i first(int64_t n) {
  static constexpr int32_t kWindow[2 * kLanes] = {-1, -1, -1, -1, -1, -1, -1, -1};
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kWindow + kLanes - n));
}

inline Vec zero() { return _mm256_setzero_ps(); }
inline Vec broadcast(float value) { return _mm256_set1_ps(value); }

inline Vec load(const float* from) { return _mm256_loadu_ps(from); }
// Reads n floats, 0 < n <= kLanes; the other lanes are 0.
inline Vec load_part(const float* from, int64_t n) { return _mm256_maskload_ps(from, first(n)); }
inline void store(float* to, Vec v) { _mm256_storeu_ps(to, v); }
inline void store_part(float* to, Vec v, int64_t n) { _mm256_maskstore_ps(to, first(n), v); }

// a * b + c, rounded once.
inline Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }

inline float reduce_add(Vec v) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
inline float reduce_max(Vec v) {
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

// A NaN in v stays a NaN.
inline Vec clamp(Vec v, float low, float high) {
  return _mm256_min_ps(broadcast(high), _mm256_max_ps(broadcast(low), v));
}
inline Vec max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
inline Vec round_to_even(Vec v) { return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
// 2^n for whole n in [-126, 127].
inline Vec power(__m256i n) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}
// v * 2^n for whole n in [-252, 254], in two halves, so that the result may overflow or be subnormal.
inline Vec scale_by_power(Vec v, Vec n) {
  const __m256i whole = _mm256_cvtps_epi32(n);
  const __m256i half = _mm256_srai_epi32(whole, 1);
  return v * power(half) * power(_mm256_sub_epi32(whole, half));
}

inline __m128i load_halves(const uint16_t* from) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
}
inline __m128i load_halves_part(const uint16_t* from, int64_t n) {
  uint16_t copy[kLanes] = {};
  for (int64_t i = 0; i < n; ++i) copy[i] = from[i];
  return load_halves(copy);
}
inline Vec widen_f16(__m128i bits) { return _mm256_cvtph_ps(bits); }
inline Vec widen_bf16(__m128i bits) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

// The first, the second bf16 of each of kLanes pairs.
inline Vec load_even(const uint16_t* pairs) {
  return _mm256_castsi256_ps(
      _mm256_slli_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(pairs)), 16));
}
inline Vec load_odd(const uint16_t* pairs) {
  return _mm256_castsi256_ps(_mm256_and_si256(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(pairs)),
                                              _mm256_set1_epi32(static_cast<int>(0xffff0000))));
}

// Rounded to the nearest bf16, ties to even; a NaN stays one.
inline __m128i narrow_bf16(Vec v) {
  const __m256i bits = _mm256_castps_si256(v);
  const __m256i lowest = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(lowest, _mm256_set1_epi32(0x7fff)));
  const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256i high = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, is_nan), 16);
  return _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
}
inline void store(uint16_t* to, Vec v) { _mm_storeu_si128(reinterpret_cast<__m128i*>(to), narrow_bf16(v)); }
inline void store_part(uint16_t* to, Vec v, int64_t n) {
  uint16_t copy[kLanes];
  store(copy, v);
  for (int64_t i = 0; i < n; ++i) to[i] = copy[i];
}

}  // namespace
}  // namespace lorikeet
