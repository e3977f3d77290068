import { malformed, unsupported } from './errors.ts';
import { type Keys, optionalKeys, positiveNumber } from './keys.ts';

export interface Rope {
  /** [headDim / 2], scaling applied. */
  invFreq: number[];
  attentionScale: number;
}

const { fround } = Math;

/** Rotary frequencies as transformers computes them: every operation rounds to float32. */
export function readRope(keys: Keys, headDim: number): Rope {
  const parameters = readParameters(keys);
  const type = parameters.rope_type ?? parameters.type ?? 'default';
  const plain = plainFrequencies(positiveNumber(parameters, 'rope_theta'), headDim);
  if (type === 'default') return { invFreq: plain, attentionScale: 1 };
  if (type === 'linear') return { invFreq: linear(plain, parameters), attentionScale: 1 };
  if (type === 'llama3') return { invFreq: llama3(plain, parameters), attentionScale: 1 };
  throw unsupported('rope_type', 'default, linear or llama3', type);
}

/** Layout 5 has `rope_parameters`; layout 4 `rope_theta` and, where scaled, `rope_scaling`. */
function readParameters(keys: Keys): Keys {
  const current = optionalKeys(keys, 'rope_parameters');
  const scaling = optionalKeys(keys, 'rope_scaling');
  if (current === null) return { rope_theta: keys.rope_theta ?? 10_000, ...scaling };
  if (scaling !== null) throw malformed('rope_scaling', 'nothing, as rope_parameters is there', scaling);
  const theta = current.rope_theta ?? keys.rope_theta;
  if (keys.rope_theta != null && keys.rope_theta !== theta) {
    throw malformed('rope_theta', `${theta}, as rope_parameters says`, keys.rope_theta);
  }
  const rotary = current.partial_rotary_factor;
  if (rotary != null && rotary !== 1) throw unsupported('rope_parameters.partial_rotary_factor', 1, rotary);
  return { ...current, rope_theta: theta };
}

function plainFrequencies(theta: number, headDim: number): number[] {
  return Array.from({ length: headDim / 2 }, (_, i) => {
    const power = fround(fround(theta) ** fround((2 * i) / headDim));
    return fround(1 / power);
  });
}

function linear(plain: number[], parameters: Keys): number[] {
  const factor = positiveNumber(parameters, 'factor');
  return plain.map((frequency) => fround(frequency / factor));
}

function llama3(plain: number[], parameters: Keys): number[] {
  const factor = positiveNumber(parameters, 'factor');
  const low = positiveNumber(parameters, 'low_freq_factor');
  const high = positiveNumber(parameters, 'high_freq_factor');
  const context = positiveNumber(parameters, 'original_max_position_embeddings');
  if (low >= high) throw malformed('low_freq_factor', `less than high_freq_factor ${high}`, low);
  return plain.map((frequency) => {
    const wavelength = over(2 * Math.PI, frequency);
    if (wavelength < context / high) return frequency;
    if (wavelength > context / low) return fround(frequency / factor);
    const smooth = fround(fround(over(context, wavelength) - low) / (high - low));
    const slowed = fround(fround(fround(1 - smooth) * frequency) / factor);
    return fround(slowed + fround(smooth * frequency));
  });
}

/** PyTorch divides a number by a tensor as number × reciprocal. */
function over(numerator: number, denominator: number): number {
  return fround(fround(1 / denominator) * fround(numerator));
}
