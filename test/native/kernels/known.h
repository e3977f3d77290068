// What values of 16 bits are, without the code under test.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>

namespace lorikeet::test {

// Keeps the first value that is not the answer.
class Known {
 public:
  void expect(const char* what, int64_t index, float value, float answer) {
    const bool same = std::isnan(answer) ? std::isnan(value)
                                         : value == answer && std::signbit(value) == std::signbit(answer);
    if (same || !first_wrong_.empty()) return;
    char line[150];
    std::snprintf(line, sizeof line, ": %s %lld: %.9g expected, %.9g computed", what,
                  static_cast<long long>(index), answer, value);
    first_wrong_ = line;
  }
  const std::string& first_wrong() const { return first_wrong_; }

 private:
  std::string first_wrong_;
};

inline float f16_by_fields(uint16_t bits) {
  const float sign = bits >> 15 ? -1 : 1;
  const int exponent = bits >> 10 & 0x1f, mantissa = bits & 0x3ff;
  if (exponent == 31) return mantissa ? NAN : sign * INFINITY;
  const auto whole = static_cast<float>(exponent ? mantissa + 1024 : mantissa);
  return sign * std::ldexp(whole, exponent ? exponent - 25 : -24);
}

inline float bf16_by_fields(uint16_t bits) {
  const float sign = bits >> 15 ? -1 : 1;
  const int exponent = bits >> 7 & 0xff, mantissa = bits & 0x7f;
  if (exponent == 255) return mantissa ? NAN : sign * INFINITY;
  const auto whole = static_cast<float>(exponent ? mantissa + 128 : mantissa);
  return sign * std::ldexp(whole, exponent ? exponent - 134 : -133);
}

// The nearer of the two bf16 around a value, of two as near the one with an even mantissa. Infinity stands
// where the next power of two would.
inline float bf16_by_distance(float value) {
  if (std::isnan(value) || std::isinf(value)) return value;
  const auto low = static_cast<uint16_t>(std::bit_cast<uint32_t>(value) >> 16);
  const auto high = static_cast<uint16_t>(low + 1);
  const auto magnitude = [](uint16_t bits) {
    const double wide = std::fabs(bf16_by_fields(bits));
    return std::isinf(wide) ? 0x1p128 : wide;
  };
  const double below = std::fabs(double{value}) - magnitude(low),
               above = magnitude(high) - std::fabs(double{value});
  return bf16_by_fields(below < above || (below == above && low % 2 == 0) ? low : high);
}

}  // namespace lorikeet::test
