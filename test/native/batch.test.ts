import { describe, expect, it } from 'vitest';
import type { EngineOptions, LoraModule, LoraModuleName } from '../../native/types.ts';
import {
  type Adapter,
  BASE,
  type Generated,
  type GoldenCase,
  goldenCases,
  randomAdapter,
  TestEngine,
} from './support.ts';

const ADAPTERS = ['sql', 'pirate', 'json', 'rank-64-bf16', 'some-layers', 'rank-24'];
const CASES = goldenCases('parrot').filter(({ adapter }) => adapter === 'base' || ADAPTERS.includes(adapter));
const BACKENDS: Partial<EngineOptions>[] = [
  { backend: 'reference', dtype: 'float32' },
  { backend: 'cpu', dtype: 'float32' },
  { backend: 'cpu', dtype: 'bfloat16' },
];

/** Keys and values of 4 layers, 2 heads, 16 tokens, 32 numbers of float32. */
const BLOCK_BYTES = 2 * 4 * 2 * 16 * 32 * 4;

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

type Ranks = Partial<Record<LoraModuleName, number>>;

/** The adapter with every B column from the module's rank on set to zero. */
function zeroBeyond({ model }: TestEngine, { body, modules }: Adapter, ranks: Ranks): Adapter {
  const floats = new Float32Array(Uint8Array.from(body).buffer);
  for (const { module, rank, b } of modules) {
    const out = model.geometry.modules[module]?.out ?? 0;
    for (let o = 0; o < out; o++)
      floats.fill(0, b.offset / 4 + o * rank + (ranks[module] ?? rank), b.offset / 4 + (o + 1) * rank);
  }
  return { body: new Uint8Array(floats.buffer), modules };
}

/** The adapter with only the first ranks of each module. */
function cutTo({ model }: TestEngine, { body, modules }: Adapter, ranks: Ranks): Adapter {
  const floats = new Float32Array(body.buffer);
  const kept: number[] = [];
  const cut = modules.map((from): LoraModule => {
    const rank = ranks[from.module] ?? from.rank;
    const side = model.geometry.modules[from.module] ?? { in: 0, out: 0 };
    const a = 4 * kept.length;
    for (let i = 0; i < rank * side.in; i++) kept.push(floats[from.a.offset / 4 + i] ?? 0);
    const b = 4 * kept.length;
    for (let o = 0; o < side.out; o++) {
      for (let j = 0; j < rank; j++) kept.push(floats[from.b.offset / 4 + o * from.rank + j] ?? 0);
    }
    return { ...from, rank, a: { offset: a, dtype: 'F32' }, b: { offset: b, dtype: 'F32' } };
  });
  return { body: new Uint8Array(Float32Array.from(kept).buffer), modules: cut };
}

describe.each(BACKENDS)('a row of a batch, %j', (compute) => {
  // More than 1 s on the reference backend, which is scalar code.
  it('equals the request alone, bit for bit', { timeout: 30_000 }, async () => {
    const cases = CASES.filter((_, i) => compute.backend === 'cpu' || i % 4 === 0);
    await using served = await open(compute);
    const alone = await askEach(served, cases);
    const mixed = await Promise.all(cases.map((golden) => ask(served, golden)));
    expect(withoutSteps(mixed)).toEqual(withoutSteps(alone));
  });
});

describe.each(['float32', 'bfloat16'] as const)('the answer in %s', (dtype) => {
  const cases = CASES.filter(({ ids }) => ids.length > 20);

  it('does not depend on the chunks of the prefill', async () => {
    await using whole = await open({ dtype, maxBatchTokens: 512 });
    await using chunked = await open({ dtype, maxBatchTokens: 7 });
    const expected = await askEach(whole, cases);
    expect(withoutSteps(await Promise.all(cases.map((c) => ask(chunked, c))))).toEqual(
      withoutSteps(expected),
    );
  });

  it('does not depend on the number of threads', async () => {
    await using one = await open({ dtype, threads: 1 });
    await using three = await open({ dtype, threads: 3 });
    const expected = await Promise.all(cases.map((golden) => ask(one, golden)));
    expect(withoutSteps(await Promise.all(cases.map((c) => ask(three, c))))).toEqual(withoutSteps(expected));
  });

  it('does not depend on preemption', async () => {
    // The answers of 24 tokens take three blocks each; ten blocks hold three of the eight sequences.
    const short = CASES.filter(({ ids }) => ids.length <= 28).slice(0, 8);
    await using roomy = await open({ dtype });
    await using tight = await open({ dtype, kvBytes: (10 * BLOCK_BYTES) / (dtype === 'float32' ? 1 : 2) });
    const expected = await Promise.all(short.map((golden) => ask(roomy, golden, 24)));
    const squeezed = await Promise.all(short.map((golden) => ask(tight, golden, 24)));
    expect(tight.engine.info.kvBlocks).toBe(10);
    expect(tight.engine.snapshot().preemptions).toBeGreaterThan(0);
    expect(withoutSteps(squeezed)).toEqual(withoutSteps(expected));
    expect(tight.engine.snapshot().kvBlocksUsed).toBe(0);
  });
});

describe('the answer', () => {
  it('does not depend on preemption amid the prompt', async () => {
    // The old sequence grows from two blocks to three while the young one, half done with its prompt, has the other
    // nine. The slow backend gives time to submit both before that.
    const [old, young] = ['sql.0', 'json.7'].map(
      (key) => CASES.find((golden) => golden.key === key) as GoldenCase,
    );
    if (!old || !young) throw new Error('The golden cases are missing');
    await using roomy = await open({ backend: 'reference' });
    await using tight = await open({ backend: 'reference', kvBytes: 11 * BLOCK_BYTES, maxBatchTokens: 29 });
    const expected = [await ask(roomy, old, 24), await ask(roomy, young)];
    const squeezed = await Promise.all([ask(tight, old, 24), ask(tight, young)]);
    expect(tight.engine.snapshot().preemptions).toBe(1);
    expect(withoutSteps(squeezed)).toEqual(withoutSteps(expected));
  });

  it('of an adapter of mixed ranks is that of the same adapter with all ranks padded by zeros', async () => {
    await using served = await open({ slots: 8 });
    const RANKS = { q_proj: 40, k_proj: 8, v_proj: 17, o_proj: 3, gate_proj: 33, up_proj: 16, down_proj: 64 };
    const random = randomAdapter(served.model, { rank: 64, seed: 9 });
    const padded = zeroBeyond(served, random, RANKS);
    const mixed = cutTo(served, padded, RANKS);
    await served.engine.stage('padded', padded.body, padded.modules);
    const { pages } = await served.engine.stage('mixed', mixed.body, mixed.modules);
    expect(pages).toBe(4 * (3 + 1 + 3 + 4));
    const prompt = (CASES[0] as GoldenCase).ids;
    const [a, b] = await Promise.all(
      ['padded', 'mixed'].map((digest) =>
        served.generate({ prompt, target: { kind: 'revision', digest }, logprobs: 5 }),
      ),
    );
    expect(b?.logprobs).toEqual(a?.logprobs);
    expect(a?.logprobs).not.toEqual((await served.generate({ prompt, logprobs: 5 })).logprobs);
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
