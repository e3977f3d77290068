import { afterEach, describe, expect, it, vi } from 'vitest';
import { names } from '../../native/index.ts';
import type { TokenLogprobs } from '../../native/types.ts';
import {
  BASE,
  bf16Distance,
  type Generated,
  type GoldenCase,
  goldenCases,
  goldenTensors,
  logSoftmax,
  TestEngine,
} from './support.ts';

const MODELS = ['parrot', 'llama3', 'mistral', 'qwen2', 'qwen3'];

/** What computes: each instruction set of this processor in each type; null: the engine's own choice. */
const COMPUTES: { isa: string | null; backend: string; dtype: 'float32' | 'bfloat16' }[] = names()
  .instructionSets.filter((isa) => isa !== 'reference')
  .flatMap((isa) => [
    { isa, backend: 'cpu', dtype: 'float32' as const },
    { isa, backend: 'cpu', dtype: 'bfloat16' as const },
  ]);
COMPUTES.unshift({ isa: null, backend: 'reference', dtype: 'float32' });

afterEach(() => vi.unstubAllEnvs());

describe.each(COMPUTES)('$backend $isa, $dtype', (compute) => {
  describe.each(MODELS)('%s', (model) => {
    const cases = goldenCases(model);

    // More than 1 s: the reference backend runs prompts of 700 tokens.
    it('agrees with transformers and PEFT, each request alone', { timeout: 60_000 }, async () => {
      await using served = await serveAll(model, cases, compute);
      // The oracle is slow: there, batch.test.ts shows that alone equals mixed, and a sample is enough here.
      const sample = compute.backend === 'reference' ? cases.filter((_, i) => i % 5 === 0) : cases;
      for (const golden of sample) agree(model, golden, await ask(served, golden), compute);
    });

    it('agrees with transformers and PEFT, all requests mixed', { timeout: 60_000 }, async () => {
      await using served = await serveAll(model, cases, compute);
      const generated = await Promise.all(cases.map((golden) => ask(served, golden)));
      generated.forEach((answer, i) => {
        agree(model, cases[i] as GoldenCase, answer, compute);
      });
    });
  });
});

type Compute = (typeof COMPUTES)[number];

async function serveAll(model: string, cases: GoldenCase[], compute: Compute): Promise<TestEngine> {
  const { isa, backend, dtype } = compute;
  if (isa !== null) vi.stubEnv('LORIKEET_ISA', isa);
  const served = await TestEngine.open(model, { backend, dtype, slots: 12, maxBatchTokens: 512 });
  expect(served.engine.info).toMatchObject({ backend: isa ?? 'reference', dtype });
  const adapters = new Set(cases.map((golden) => golden.adapter).filter((name) => name !== 'base'));
  for (const name of adapters) await served.serve(name);
  return served;
}

function ask(served: TestEngine, golden: GoldenCase): Promise<Generated> {
  const target = golden.adapter === 'base' ? BASE : ({ kind: 'adapter', name: golden.adapter } as const);
  return served.generate({ prompt: golden.ids, target, logprobs: 20, promptLogprobs: 0 });
}

/** Within the tolerances of the fixtures: what float32 sums may differ by, or what transformers' own bf16 run does. */
function agree(model: string, golden: GoldenCase, answer: Generated, { dtype }: Compute): void {
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
