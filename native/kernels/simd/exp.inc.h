// e^x within 1.1 units in the last place, with the overflow and underflow of expf.
#pragma once

namespace lorikeet {
namespace {

inline Vec exp(Vec x) {
  // Beyond these the result is 0 or infinite; within them 2^n below stays in range.
  x = clamp(x, -105.0f, 89.0f);
  // x = n ln 2 + r with |r| <= ln 2 / 2; ln 2 comes in two parts, so that n ln 2 is exact enough.
  const Vec n = round_to_even(x * broadcast(1.44269504f));
  Vec r = fma(n, broadcast(-0.693359375f), x);
  r = fma(n, broadcast(2.12194440e-4f), r);
  // The polynomial of Cephes' expf.
  Vec p = broadcast(1.9875691500e-4f);
  p = fma(p, r, broadcast(1.3981999507e-3f));
  p = fma(p, r, broadcast(8.3334519073e-3f));
  p = fma(p, r, broadcast(4.1665795894e-2f));
  p = fma(p, r, broadcast(1.6666665459e-1f));
  p = fma(p, r, broadcast(5.0000001201e-1f));
  p = fma(p, r * r, r) + broadcast(1.0f);
  return scale_by_power(p, n);
}

}  // namespace
}  // namespace lorikeet
