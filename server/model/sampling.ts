import { malformed } from './errors.ts';
import type { Keys } from './keys.ts';

/** What a request that names none of these is sampled with, by the requests' own names. */
export interface SamplingDefaults {
  temperature?: number;
  top_p?: number;
  top_k?: number;
  min_p?: number;
  repetition_penalty?: number;
}

const BOUNDS: Record<keyof SamplingDefaults, { expected: string; holds(value: number): boolean }> = {
  temperature: { expected: 'a number from 0 to 100', holds: (value) => value >= 0 && value <= 100 },
  top_p: { expected: 'a number above 0 and up to 1', holds: (value) => value > 0 && value <= 1 },
  top_k: { expected: 'a whole number, -1 or 0 for no limit', holds: isCount },
  min_p: { expected: 'a number from 0 to 1', holds: (value) => value >= 0 && value <= 1 },
  repetition_penalty: {
    expected: 'a number above 0 and up to 100',
    holds: (value) => value > 0 && value <= 100,
  },
};

/** The fields of generation_config.json that vLLM takes too; `do_sample` is ignored, as there. */
export function readSamplingDefaults(generation: Keys | null): SamplingDefaults {
  const defaults: SamplingDefaults = {};
  for (const [field, { expected, holds }] of Object.entries(BOUNDS)) {
    const value = generation?.[field] ?? null;
    if (value === null) continue;
    if (typeof value !== 'number' || !holds(value))
      throw malformed(`generation_config.json ${field}`, expected, value);
    defaults[field as keyof SamplingDefaults] = value;
  }
  return defaults;
}

function isCount(value: number): boolean {
  return Number.isInteger(value) && value >= -1 && value < 2 ** 31;
}
