import assert from 'node:assert/strict';
import type { EngineOptions, TokenLogprobs } from '../../native/types.ts';
import {
  BASE,
  bf16Distance,
  type Generated,
  type GoldenCase,
  goldenTensors,
  logSoftmax,
  TestEngine,
} from './support.ts';

export const MODELS = ['parrot', 'llama3', 'mistral', 'qwen2', 'qwen3'];

/** An engine that serves all adapters of the cases. */
export async function serveAll(
  model: string,
  cases: GoldenCase[],
  options: Partial<EngineOptions>,
): Promise<TestEngine> {
  const served = await TestEngine.open(model, options);
  for (const name of new Set(cases.map(({ adapter }) => adapter)))
    if (name !== 'base') await served.serve(name);
  return served;
}

/** What must not depend on company. */
export function withoutStep({ step: _, ...answer }: Generated): Omit<Generated, 'step'> {
  return answer;
}

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
  assert.deepEqual(tokens.slice(0, steps), golden.greedy.slice(0, steps), golden.key);

  const first = answer.logprobs[0];
  if (first) below(distanceOf(first, logSoftmax(last)), tolerance, `${golden.key} first token`);

  const scored = (answer.promptLogprobs ?? []).map((scores) => scores.logprob);
  assert.equal(scored.length, golden.ids.length - 1, golden.key);
  scored.forEach((logprob, i) => {
    below(Math.abs(logprob - (prompt?.[i] ?? Number.NaN)), tolerance, `${golden.key} prompt ${i}`);
  });
}

function below(distance: number, tolerance: number, what: string): void {
  assert.ok(
    distance < tolerance,
    `Expected a distance below ${tolerance} for ${what} but received ${distance}`,
  );
}

function distanceOf(scores: TokenLogprobs, expected: Float64Array): number {
  const distances = scores.top.map(([token, logprob]) => Math.abs(logprob - (expected[token] ?? Number.NaN)));
  return Math.max(...distances);
}
