import { describe, expect, it } from 'vitest';
import type { TokenLogprobs } from '../../native/types.ts';
import {
  BASE,
  type Generated,
  type GoldenCase,
  goldenCases,
  goldenTensors,
  logSoftmax,
  TestEngine,
} from './support.ts';

// Adapters on embeddings or the head are refused by the contract, so the engine never sees them.
const NOT_SERVED = ['embed-and-head'];
const MODELS = ['parrot', 'llama3', 'mistral', 'qwen2', 'qwen3'];
const BACKENDS = ['reference', 'cpu'];

describe.each(BACKENDS)('%s', (backend) => {
  describe.each(MODELS)('%s', (model) => {
    const cases = goldenCases(model).filter((golden) => !NOT_SERVED.includes(golden.adapter));

    // More than 1 s: the reference backend runs prompts of 700 tokens.
    it('agrees with transformers and PEFT, each request alone', { timeout: 60_000 }, async () => {
      await using served = await serveAll(model, cases, backend);
      // The oracle is slow: there, batch.test.ts shows that alone equals mixed, and a sample is enough here.
      const sample = backend === 'reference' ? cases.filter((_, i) => i % 5 === 0) : cases;
      for (const golden of sample) agree(model, golden, await ask(served, golden));
    });

    it('agrees with transformers and PEFT, all requests mixed', { timeout: 60_000 }, async () => {
      await using served = await serveAll(model, cases, backend);
      const generated = await Promise.all(cases.map((golden) => ask(served, golden)));
      generated.forEach((answer, i) => {
        agree(model, cases[i] as GoldenCase, answer);
      });
    });
  });
});

async function serveAll(model: string, cases: GoldenCase[], backend: string): Promise<TestEngine> {
  const served = await TestEngine.open(model, { backend, slots: 12, maxBatchTokens: 512 });
  const adapters = new Set(cases.map((golden) => golden.adapter).filter((name) => name !== 'base'));
  for (const name of adapters) await served.serve(name);
  return served;
}

function ask(served: TestEngine, golden: GoldenCase): Promise<Generated> {
  const target = golden.adapter === 'base' ? BASE : ({ kind: 'adapter', name: golden.adapter } as const);
  return served.generate({ prompt: golden.ids, target, logprobs: 20, promptLogprobs: 0 });
}

/** Within the float32 tolerances of test/fixtures' README. */
function agree(model: string, golden: GoldenCase, answer: Generated): void {
  const tensors = goldenTensors(model);
  const last = tensors.get(`${golden.key}.last`) as Float32Array;
  const prompt = tensors.get(`${golden.key}.prompt_logprobs`);
  const tolerance = Math.min(2e-3, 2e-4 * last.reduce((max, logit) => Math.max(max, Math.abs(logit)), 0));

  const certain = golden.margins.findIndex((margin) => margin < 2e-3);
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
