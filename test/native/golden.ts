import { expect } from 'vitest';
import type { TokenLogprobs } from '../../native/types.ts';
import {
  BASE,
  bf16Distance,
  type Generated,
  type GoldenCase,
  goldenTensors,
  logSoftmax,
  type TestEngine,
} from './support.ts';

export const MODELS = ['parrot', 'llama3', 'mistral', 'qwen2', 'qwen3'];

export function ask(served: TestEngine, golden: GoldenCase): Promise<Generated> {
  const target = golden.adapter === 'base' ? BASE : ({ kind: 'adapter', name: golden.adapter } as const);
  return served.generate({ prompt: golden.ids, target, logprobs: 20, promptLogprobs: 0 });
}

/** Within the tolerances of the fixtures: what float32 sums may differ by, or what transformers' own bf16 run does. */
export function agree(
  model: string,
  golden: GoldenCase,
  answer: Generated,
  dtype: 'float32' | 'bfloat16',
): void {
  const tensors = goldenTensors(model);
  const last = tensors.get(`${golden.key}.last`) as Float32Array;
  const prompt = tensors.get(`${golden.key}.prompt_logprobs`);
  const largest = last.reduce((max, logit) => Math.max(max, Math.abs(logit)), 0);
  const bf16 = 1.5 * bf16Distance(model, golden.adapter);
  const tolerance = dtype === 'float32' ? Math.min(2e-3, 2e-4 * largest) : bf16;

  const certain = golden.margins.findIndex((margin) => margin < (dtype === 'float32' ? 2e-3 : bf16));
  const steps = certain < 0 ? golden.greedy.length : certain;
  const tokens = answer.stopToken === null ? answer.tokens : [...answer.tokens, answer.stopToken];
  expect(tokens.slice(0, steps), golden.key).toEqual(golden.greedy.slice(0, steps));

  const first = answer.logprobs[0];
  if (first) expect(distanceOf(first, logSoftmax(last)), `${golden.key} first token`).toBeLessThan(tolerance);

  const scored = (answer.promptLogprobs ?? []).map((scores) => scores.logprob);
  expect(scored.length, golden.key).toBe(golden.ids.length - 1);
  scored.forEach((logprob, i) => {
    expect(Math.abs(logprob - (prompt?.[i] ?? Number.NaN)), `${golden.key} prompt ${i}`).toBeLessThan(
      tolerance,
    );
  });
}

function distanceOf(scores: TokenLogprobs, expected: Float64Array): number {
  const distances = scores.top.map(([token, logprob]) => Math.abs(logprob - (expected[token] ?? Number.NaN)));
  return Math.max(...distances);
}
