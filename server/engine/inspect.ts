import { setImmediate } from 'node:timers/promises';
import { headerLength, parseHeader, type TensorInfo } from '../contract/format/safetensors.ts';
import { nonFinite } from './native-errors.ts';
import type { Content } from './port.ts';

/** Looked at between two turns of the event loop. */
const PART_BYTES = 1 << 20;

/** Bits of two bfloat16 or float16, or of one float32, in a word: of the exponents, and all but the signs. */
const WORDS: Record<string, { exponents: number[]; magnitude: number }> = {
  F32: { exponents: [0x7f80_0000], magnitude: 0x7fff_ffff },
  F16: { exponents: [0x7c00, 0x7c00_0000], magnitude: 0x7fff_7fff },
  BF16: { exponents: [0x7f80, 0x7f80_0000], magnitude: 0x7fff_7fff },
};

/**
 * What an engine of another project does not look at: every number of the factors is finite, else `non_finite` names the
 * tensor. Returns whether all B are zero, so that the adapter changes nothing.
 */
export async function inspect({ body, bound }: Pick<Content, 'body' | 'bound'>): Promise<boolean> {
  const tensors = tensorsOf(body);
  let isZero = true;
  for (const [module, { a, b }] of bound.modules.entries()) {
    for (const [factor, { offset }] of Object.entries({ a, b })) {
      const { finite, zero } = await look(body, tensors.get(offset) as TensorInfo);
      if (!finite) throw nonFinite({ module, factor }, bound.modules);
      if (factor === 'b') isZero &&= zero;
    }
  }
  return isZero;
}

/** By where they begin. */
function tensorsOf(body: Buffer): Map<number, TensorInfo> {
  const { tensors } = parseHeader(body.subarray(0, headerLength(body)));
  return new Map(tensors.map((tensor) => [tensor.begin, tensor]));
}

async function look(
  body: Buffer,
  { begin, end, dtype }: TensorInfo,
): Promise<{ finite: boolean; zero: boolean }> {
  const { exponents = [], magnitude = 0 } = WORDS[dtype] ?? {};
  let zero = true;
  for (let at = begin; at < end; at += PART_BYTES) {
    for (const word of wordsOf(body.subarray(at, Math.min(end, at + PART_BYTES)))) {
      for (const exponent of exponents) if ((word & exponent) === exponent) return { finite: false, zero };
      if ((word & magnitude) !== 0) zero = false;
    }
    await setImmediate();
  }
  return { finite: true, zero };
}

/** A copy, as tensors may begin anywhere; an odd number at the end is filled up with zero. */
function wordsOf(part: Buffer): Int32Array {
  const words = new Int32Array(Math.ceil(part.length / 4));
  new Uint8Array(words.buffer).set(part);
  return words;
}
