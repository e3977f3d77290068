import type { FactorDtype } from '../../server/contract/format/bind.ts';

/** What one module adds to the base: `scale · b · a`, with `a` [rank, in] and `b` [out, rank], row-major. */
export interface Delta {
  rank: number;
  in: number;
  out: number;
  scale: number;
  a: Float32Array;
  b: Float32Array;
}

/**
 * ⟨ΔW₁, ΔW₂⟩ by Frobenius, without ever forming ΔW: tr(A₁ᵀB₁ᵀB₂A₂) is the sum over i, j of (B₁ᵀB₂)ᵢⱼ (A₁A₂ᵀ)ᵢⱼ, both
 * [rank₁, rank₂].
 */
export function inner(one: Delta, two: Delta): number {
  const ranks = two.rank;
  const left = new Float64Array(one.rank * ranks);
  for (let row = 0; row < one.out; row++) {
    for (let i = 0; i < one.rank; i++) {
      const factor = one.b[row * one.rank + i] as number;
      for (let j = 0; j < ranks; j++) {
        left[i * ranks + j] = (left[i * ranks + j] as number) + factor * (two.b[row * ranks + j] as number);
      }
    }
  }
  let sum = 0;
  for (let i = 0; i < one.rank; i++) {
    for (let j = 0; j < ranks; j++) {
      sum += (left[i * ranks + j] as number) * dot(one.a, i * one.in, two.a, j * two.in, one.in);
    }
  }
  return one.scale * two.scale * sum;
}

function dot(x: Float32Array, xAt: number, y: Float32Array, yAt: number, length: number): number {
  let sum = 0;
  for (let at = 0; at < length; at++) sum += (x[xAt + at] as number) * (y[yAt + at] as number);
  return sum;
}

/** Little-endian values of a tensor; offsets in the file need not be aligned. */
export function decode(bytes: Buffer, dtype: FactorDtype): Float32Array {
  if (dtype === 'F32') {
    return new Float32Array(Uint8Array.from(bytes).buffer);
  }
  const halves = new Uint16Array(Uint8Array.from(bytes).buffer);
  const words = new Uint32Array(halves.length);
  const values = new Float32Array(words.buffer);
  for (const [at, half] of halves.entries()) {
    if (dtype === 'BF16') words[at] = half << 16;
    else values[at] = fromHalf(half);
  }
  return values;
}

function fromHalf(half: number): number {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >> 10) & 0x1f;
  const mantissa = half & 0x3ff;
  if (exponent === 0) return sign * mantissa * 2 ** -24;
  if (exponent === 0x1f) return mantissa === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (1024 + mantissa) * 2 ** (exponent - 25);
}
