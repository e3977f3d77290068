import { describe, expect, it } from 'vitest';
import { readRope } from '../../../server/model/rope.ts';

const invFreq = (keys: Record<string, unknown>, headDim = 64) => readRope(keys, headDim).invFreq;
const LLAMA3 = {
  rope_type: 'llama3',
  factor: 8,
  low_freq_factor: 1,
  high_freq_factor: 4,
  original_max_position_embeddings: 8192,
};

/** The definition, in double precision. */
function llama3(frequency: number): number {
  const {
    factor,
    low_freq_factor: low,
    high_freq_factor: high,
    original_max_position_embeddings: context,
  } = LLAMA3;
  const turns = (context * frequency) / (2 * Math.PI);
  if (turns > high) return frequency;
  if (turns < low) return frequency / factor;
  const smooth = (turns - low) / (high - low);
  return ((1 - smooth) * frequency) / factor + smooth * frequency;
}

describe('rotary frequencies', () => {
  it('are theta ^ (-2i / headDim), in float32', () => {
    const values = invFreq({ rope_parameters: { rope_type: 'default', rope_theta: 500_000 } });
    expect(values).toHaveLength(32);
    for (const [i, value] of values.entries()) {
      expect(value).toBe(Math.fround(value));
      expect(value / 500_000 ** (-i / 32)).toBeCloseTo(1, 6);
    }
  });

  it('default to theta 10000 in the old layout', () => {
    expect(invFreq({})).toEqual(invFreq({ rope_theta: 10_000, rope_scaling: null }));
  });

  it('are divided by the factor where scaling is linear', () => {
    const plain = invFreq({ rope_theta: 10_000 });
    const scaled = invFreq({ rope_theta: 10_000, rope_scaling: { type: 'linear', factor: 4 } });
    expect(scaled).toEqual(plain.map((value) => value / 4));
  });

  it('follow the bands of Llama 3: high unchanged, low divided, between them smooth', () => {
    const plain = invFreq({ rope_theta: 500_000 }, 128);
    const scaled = invFreq({ rope_theta: 500_000, rope_scaling: LLAMA3 }, 128);
    for (const [i, value] of scaled.entries()) expect(value / llama3(plain[i] ?? 0)).toBeCloseTo(1, 5);
    const ratios = scaled.map((value, i) => value / (plain[i] ?? 0));
    expect(ratios[0]).toBe(1);
    expect(ratios.at(-1)).toBe(1 / 8);
    expect(ratios.filter((ratio) => ratio < 1 && ratio > 1 / 8).length).toBeGreaterThan(3);
  });

  it.each(['factor', 'low_freq_factor', 'high_freq_factor', 'original_max_position_embeddings'])(
    'need %s for Llama 3',
    (key) => {
      const scaling = { ...LLAMA3, [key]: undefined };
      expect(() => invFreq({ rope_theta: 500_000, rope_scaling: scaling })).toThrow(key);
    },
  );
});
