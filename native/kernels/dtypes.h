// The types of stored numbers, and their exact widening to float32.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

namespace lorikeet {

enum class Dtype : uint8_t { kF32, kF16, kBF16 };

constexpr int64_t dtype_bytes(Dtype dtype) { return dtype == Dtype::kF32 ? 4 : 2; }

static inline float widen_bf16(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

static inline float widen_f16(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1fu;
  const uint32_t mantissa = bits & 0x3ffu;
  if (exponent == 0x1f) return std::bit_cast<float>(sign | 0x7f800000u | mantissa << 13);
  if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;  // zero and subnormals
  return sign != 0 ? -magnitude : magnitude;
}

// Rounded to the nearest, ties to even; a NaN stays one.
static inline uint16_t narrow_bf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(bits >> 16 | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

// `source` needs no alignment.
static inline float widen(const void* source, Dtype dtype, int64_t index) {
  const auto* bytes = static_cast<const unsigned char*>(source) + index * dtype_bytes(dtype);
  if (dtype == Dtype::kF32) {
    float value = 0;
    std::memcpy(&value, bytes, sizeof value);
    return value;
  }
  uint16_t bits = 0;
  std::memcpy(&bits, bytes, sizeof bits);
  return dtype == Dtype::kBF16 ? widen_bf16(bits) : widen_f16(bits);
}

// `source` needs no alignment.
static inline void widen(float* out, const void* source, Dtype dtype, int64_t n) {
  if (dtype == Dtype::kF32) {
    std::memcpy(out, source, static_cast<size_t>(n) * sizeof(float));
    return;
  }
  const auto* bytes = static_cast<const unsigned char*>(source);
  for (int64_t i = 0; i < n; ++i) {
    uint16_t bits = 0;
    std::memcpy(&bits, bytes + 2 * i, sizeof bits);
    out[i] = dtype == Dtype::kBF16 ? widen_bf16(bits) : widen_f16(bits);
  }
}

}  // namespace lorikeet
