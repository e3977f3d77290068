import { describe, expect, it } from 'vitest';
import type { BackendChoice, EngineOptions } from '../../native/types.ts';
import { BASE, type Generated, type GoldenCase, goldenCases, TestEngine } from './support.ts';

const ADAPTERS = ['sql', 'pirate', 'json', 'rank-64-bf16', 'some-layers', 'rank-24'];
const CASES = goldenCases('parrot').filter(({ adapter }) => adapter === 'base' || ADAPTERS.includes(adapter));
const BACKENDS: BackendChoice[] = ['reference', 'cpu'];

async function open(options: Partial<EngineOptions>): Promise<TestEngine> {
  const served = await TestEngine.open('parrot', options);
  for (const name of ADAPTERS) await served.serve(name);
  return served;
}

/** Log-probabilities show every bit of the logits they come from. */
function ask(served: TestEngine, { adapter, ids }: GoldenCase, maxTokens = 8): Promise<Generated> {
  const target = adapter === 'base' ? BASE : ({ kind: 'adapter', name: adapter } as const);
  return served.generate({ prompt: ids, target, maxTokens, logprobs: 5, promptLogprobs: 2 });
}

async function askEach(served: TestEngine, cases: GoldenCase[]): Promise<Generated[]> {
  const answers: Generated[] = [];
  for (const golden of cases) answers.push(await ask(served, golden));
  return answers;
}

const withoutSteps = (answers: Generated[]) => answers.map(({ step: _, ...answer }) => answer);

describe.each(BACKENDS)('a row of a batch, %s', (backend) => {
  // More than 1 s on the reference backend, which is scalar code.
  it('equals the request alone, bit for bit', { timeout: 30_000 }, async () => {
    const cases = CASES.filter((_, i) => backend === 'cpu' || i % 4 === 0);
    await using served = await open({ backend });
    const alone = await askEach(served, cases);
    const mixed = await Promise.all(cases.map((golden) => ask(served, golden)));
    expect(withoutSteps(mixed)).toEqual(withoutSteps(alone));
  });
});

describe('the answer', () => {
  const cases = CASES.filter(({ ids }) => ids.length > 20);

  it('does not depend on the chunks of the prefill', async () => {
    await using whole = await open({ maxBatchTokens: 512 });
    await using chunked = await open({ maxBatchTokens: 7 });
    const expected = await askEach(whole, cases);
    expect(withoutSteps(await Promise.all(cases.map((c) => ask(chunked, c))))).toEqual(
      withoutSteps(expected),
    );
  });

  it('does not depend on the number of threads', async () => {
    await using one = await open({ threads: 1 });
    await using three = await open({ threads: 3 });
    const expected = await Promise.all(cases.map((golden) => ask(one, golden)));
    expect(withoutSteps(await Promise.all(cases.map((c) => ask(three, c))))).toEqual(withoutSteps(expected));
  });

  it('does not depend on preemption', async () => {
    // The answers of 24 tokens take three blocks each; ten blocks hold three of the eight sequences.
    const short = CASES.filter(({ ids }) => ids.length <= 28).slice(0, 8);
    const blockBytes = 2 * 4 * 2 * 16 * 32 * 4;
    await using roomy = await open({});
    await using tight = await open({ kvBytes: 10 * blockBytes });
    const expected = await Promise.all(short.map((golden) => ask(roomy, golden, 24)));
    const squeezed = await Promise.all(short.map((golden) => ask(tight, golden, 24)));
    expect(tight.engine.info.kvBlocks).toBe(10);
    expect(tight.engine.snapshot().preemptions).toBeGreaterThan(0);
    expect(withoutSteps(squeezed)).toEqual(withoutSteps(expected));
    expect(tight.engine.snapshot().kvBlocksUsed).toBe(0);
  });

  it('of an adapter at scale 0 is the base, at scale 1 the adapter, in between neither', async () => {
    await using served = await open({});
    const prompt = (CASES.find(({ key }) => key === 'sql.0') as GoldenCase).ids;
    const at = (loraScale: number) =>
      served.generate({ prompt, target: { kind: 'adapter', name: 'sql' }, loraScale, logprobs: 3 });
    const base = await served.generate({ prompt, logprobs: 3 });
    const [off, on, half] = await Promise.all([at(0), at(1), at(0.5)]);
    expect(off.logprobs).toEqual(base.logprobs);
    expect(on.tokens).toEqual(CASES.find(({ key }) => key === 'sql.0')?.greedy.slice(0, -1));
    expect(half.logprobs[0]).not.toEqual(off.logprobs[0]);
    expect(half.logprobs[0]).not.toEqual(on.logprobs[0]);
  });
});
