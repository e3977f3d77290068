import { afterEach, describe, expect, it, vi } from 'vitest';
import { names } from '../../native/index.ts';
import { agree, ask, MODELS, serveAll } from './golden.ts';
import { type GoldenCase, goldenCases, type TestEngine } from './support.ts';

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
      await using served = await open(model, cases, compute);
      // The oracle is slow: there, batch.test.ts shows that alone equals mixed, and a sample is enough here.
      const sample = compute.backend === 'reference' ? cases.filter((_, i) => i % 5 === 0) : cases;
      for (const golden of sample) agree(model, golden, await ask(served, golden), compute.dtype);
    });

    it('agrees with transformers and PEFT, all requests mixed', { timeout: 60_000 }, async () => {
      await using served = await open(model, cases, compute);
      const generated = await Promise.all(cases.map((golden) => ask(served, golden)));
      generated.forEach((answer, i) => {
        agree(model, cases[i] as GoldenCase, answer, compute.dtype);
      });
    });
  });
});

type Compute = (typeof COMPUTES)[number];

async function open(
  model: string,
  cases: GoldenCase[],
  { isa, backend, dtype }: Compute,
): Promise<TestEngine> {
  if (isa !== null) vi.stubEnv('LORIKEET_ISA', isa);
  const served = await serveAll(model, cases, { backend, dtype, slots: 12, maxBatchTokens: 512 });
  expect(served.engine.info).toMatchObject({ backend: isa ?? 'reference', dtype });
  return served;
}
