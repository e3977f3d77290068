import { describe, expect, it } from 'vitest';
import type { LoraModule } from '../../native/types.ts';
import {
  type Adapter,
  fixtureAdapter,
  type GoldenCase,
  goldenCases,
  randomAdapter,
  TestEngine,
} from './support.ts';

const PROMPT = (goldenCases('parrot').find(({ key }) => key === 'sql.0') as GoldenCase).ids;
const STYLE = { kind: 'adapter', name: 'style' } as const;

/** Tokens of an answer that takes far longer than the few calls that happen meanwhile. */
const LONG = 1900;

/** Resolves when the request has generated `count` tokens. */
function tokensOf(served: TestEngine, id: number, count: number): Promise<void> {
  let seen = 0;
  return new Promise((done) => {
    served.onEvent = (event) => {
      if (event.id === id && event.type === 'token' && ++seen === count) done();
    };
  });
}

function load(served: TestEngine, name: string): Adapter {
  return fixtureAdapter(served.model, served.modelName, name);
}

/** A copy of the adapter with one value of one factor overwritten. */
function spoil(adapter: Adapter, module: number, factor: 'a' | 'b', value: number): Adapter {
  const body = Uint8Array.from(adapter.body);
  const { offset } = (adapter.modules[module] as LoraModule)[factor];
  new DataView(body.buffer).setFloat32(offset + 4, value, true);
  return { body, modules: adapter.modules };
}

describe('a swap during a stream', () => {
  it('lets the running sequence finish on its old revision and serves the next request with the new one', async () => {
    await using served = await TestEngine.open('parrot');
    await served.serve('sql', 'sha256:sql', 'style');
    const undisturbed = await served.generate({
      prompt: PROMPT,
      target: STYLE,
      stopTokens: [],
      maxTokens: LONG,
      logprobs: 2,
    });

    const running = served.start({
      prompt: PROMPT,
      target: STYLE,
      stopTokens: [],
      maxTokens: LONG,
      logprobs: 2,
    });
    await tokensOf(served, running.id, 3);
    await served.serve('pirate', 'sha256:pirate', 'style');
    const switched = served.engine.snapshot();
    const next = await served.generate({ prompt: PROMPT, target: STYLE });
    const finished = await running.result;

    expect(switched.running).toBe(1);
    expect(finished.revision).toBe('sha256:sql');
    expect({ ...finished, step: 0 }).toEqual({ ...undisturbed, step: 0 });
    expect(next.revision).toBe('sha256:pirate');
    expect(next.tokens).toEqual(
      goldenCases('parrot')
        .find(({ key }) => key === 'pirate.0')
        ?.greedy.slice(0, -1),
    );
  });

  it('says from which step the new revision serves', async () => {
    await using served = await TestEngine.open('parrot');
    await served.serve('sql', 'sha256:sql', 'style');
    const { body, modules } = load(served, 'pirate');
    await served.engine.stage('sha256:pirate', body, modules);
    const before = served.start({ prompt: PROMPT, target: STYLE });
    const { step, epoch } = await served.engine.activate('style', 'sha256:pirate', false);
    const after = await served.generate({ prompt: PROMPT, target: STYLE });
    expect((await before.result).revision).toBe('sha256:sql');
    expect(after.revision).toBe('sha256:pirate');
    expect(after.step).toBeGreaterThanOrEqual(step);
    expect(epoch).toBe(2);
    expect((await served.engine.activate('style', 'sha256:pirate', false)).epoch).toBe(2);
  });

  it('keeps the current revision when the next one is not finite', async () => {
    await using served = await TestEngine.open('parrot', { slots: 1 });
    await served.serve('sql', 'sha256:sql', 'style');
    const expected = await served.generate({ prompt: PROMPT, target: STYLE, logprobs: 2 });
    const before = served.engine.snapshot();
    const pirate = load(served, 'pirate');
    for (const [module, factor, value] of [
      [0, 'a', Number.NaN],
      [5, 'b', Number.POSITIVE_INFINITY],
    ] as const) {
      const { body, modules } = spoil(pirate, module, factor, value);
      await expect(served.engine.stage('sha256:bad', body, modules)).rejects.toMatchObject({
        code: 'non_finite',
        module,
        factor,
      });
    }
    expect(served.engine.snapshot()).toEqual(before);
    expect((await served.generate({ prompt: PROMPT, target: STYLE, logprobs: 2 })).logprobs).toEqual(
      expected.logprobs,
    );
  });

  it('fails only the requests of an adapter that overflows', async () => {
    await using served = await TestEngine.open('parrot');
    const huge = load(served, 'sql');
    const modules = huge.modules.map((module) => ({ ...module, scale: 1e30 }));
    await served.engine.stage('sha256:huge', huge.body, modules);
    await served.engine.activate('style', 'sha256:huge', false);
    const expected = await served.generate({ prompt: PROMPT, logprobs: 2 });
    const overflow = served.generate({ prompt: PROMPT, target: STYLE });
    const beside = served.generate({ prompt: PROMPT, logprobs: 2 });
    await expect(overflow).rejects.toMatchObject({ code: 'non_finite' });
    expect((await beside).logprobs).toEqual(expected.logprobs);
    expect(served.engine.snapshot()).toMatchObject({ running: 0, kvBlocksUsed: 0, slots: [{ leases: 0 }] });
  });

  it('reports an adapter whose B is zero', async () => {
    await using served = await TestEngine.open('parrot');
    const { body, modules } = load(served, 'sql');
    const zeroed = Uint8Array.from(body);
    for (const { module, rank, b } of modules) {
      const out = served.model.geometry.modules[module]?.out ?? 0;
      zeroed.fill(0, b.offset, b.offset + 4 * rank * out);
    }
    expect(await served.engine.stage('sha256:zero', zeroed, modules)).toMatchObject({ zeroEffect: true });
    expect(await served.engine.stage('sha256:sql', body, modules)).toMatchObject({ zeroEffect: false });
  });
});

describe('release', () => {
  it('frees at once without leases, and after the last sequence with one', async () => {
    await using served = await TestEngine.open('parrot');
    await served.serve('sql', 'sha256:sql', 'style');
    await served.serve('pirate', 'sha256:pirate', 'other');
    expect(await served.engine.release('sha256:pirate')).toEqual({ leases: 0 });
    expect(await served.engine.release('sha256:unknown')).toEqual({ leases: 0 });
    expect(served.freed).toEqual([]);

    const running = served.start({ prompt: PROMPT, target: STYLE, stopTokens: [], maxTokens: LONG });
    await tokensOf(served, running.id, 1);
    expect(await served.engine.release('sha256:sql')).toEqual({ leases: 1 });
    expect(served.engine.snapshot().slots).toMatchObject([
      { revision: 'sha256:sql', state: 'retired', leases: 1 },
    ]);
    await expect(served.generate({ prompt: PROMPT, target: STYLE })).rejects.toMatchObject({
      code: 'not_resident',
    });

    expect((await running.result).tokens).toHaveLength(LONG);
    await expect.poll(() => served.freed).toEqual(['sha256:sql']);
    expect(served.engine.snapshot()).toMatchObject({ slots: [], pagesUsed: 0 });
  });

  it('is undone by staging the revision again', async () => {
    await using served = await TestEngine.open('parrot');
    await served.serve('sql', 'sha256:sql', 'style');
    const running = served.start({ prompt: PROMPT, target: STYLE, stopTokens: [], maxTokens: LONG });
    await tokensOf(served, running.id, 1);
    await served.engine.release('sha256:sql');
    await served.serve('sql', 'sha256:sql', 'style');
    const again = await served.generate({ prompt: PROMPT, target: STYLE });
    await running.result;
    expect(again.revision).toBe('sha256:sql');
    expect(served.freed).toEqual([]);
    expect(served.engine.snapshot().slots).toMatchObject([{ state: 'ready', leases: 0 }]);
  });
});

describe('eviction', () => {
  it('takes the least recently used revision, and tells which', async () => {
    await using served = await TestEngine.open('parrot', { slots: 2 });
    await served.serve('sql');
    await served.serve('pirate');
    await served.generate({ prompt: PROMPT, target: { kind: 'adapter', name: 'sql' } });
    expect((await served.serve('json')).evicted).toEqual(['pirate']);
    await expect(
      served.generate({ prompt: PROMPT, target: { kind: 'adapter', name: 'pirate' } }),
    ).rejects.toMatchObject({
      code: 'not_resident',
    });
    expect((await served.serve('pirate')).evicted).toEqual(['sql']);
  });

  it('never takes a leased revision', async () => {
    await using served = await TestEngine.open('parrot', { slots: 1 });
    await served.serve('sql', 'sha256:sql', 'style');
    const running = served.start({ prompt: PROMPT, target: STYLE, stopTokens: [], maxTokens: LONG });
    await tokensOf(served, running.id, 1);
    const { body, modules } = load(served, 'pirate');
    expect(await served.engine.stage('sha256:pirate', body, modules)).toMatchObject({
      slot: null,
      evicted: [],
    });
    served.engine.cancel(running.id);
    expect(await running.result).toMatchObject({ revision: 'sha256:sql', reason: 'cancelled' });
    expect(await served.engine.stage('sha256:pirate', body, modules)).toMatchObject({
      evicted: ['sha256:sql'],
    });
  });

  it('never takes a revision that is being staged', async () => {
    await using served = await TestEngine.open('parrot', { slots: 1 });
    const first = randomAdapter(served.model, { rank: 64, seed: 1 });
    const second = randomAdapter(served.model, { rank: 64, seed: 2 });
    const [staged, same, other] = await Promise.all([
      served.engine.stage('sha256:first', first.body, first.modules),
      served.engine.stage('sha256:first', first.body, first.modules),
      served.engine.stage('sha256:second', second.body, second.modules),
    ]);
    expect(staged).toMatchObject({ slot: 0, pages: 64, evicted: [] });
    expect(same).toMatchObject({ slot: 0, pages: 64, evicted: [] });
    // The second revision gets no slot, unless the first was ready before its turn came.
    expect(other?.evicted).toEqual(other?.slot === null ? [] : ['sha256:first']);
    expect(served.engine.snapshot().slots).toMatchObject([
      {
        revision: other?.slot === null ? 'sha256:first' : 'sha256:second',
        state: 'ready',
        pages: 64,
      },
    ]);
  });
});

describe('cancel', () => {
  it('gives back blocks and lease', async () => {
    await using served = await TestEngine.open('parrot', { maxBatch: 1 });
    await served.serve('sql', 'sha256:sql', 'style');
    const running = served.start({ prompt: PROMPT, target: STYLE, stopTokens: [], maxTokens: LONG });
    const waiting = served.start({ prompt: PROMPT, target: STYLE, stopTokens: [], maxTokens: LONG });
    await tokensOf(served, running.id, 2);
    expect(served.engine.snapshot()).toMatchObject({ running: 1, waiting: 1, slots: [{ leases: 2 }] });
    expect(served.engine.snapshot()).toMatchObject({
      runningAdapters: ['style'],
      waitingAdapters: ['style'],
    });
    served.engine.cancel(waiting.id);
    served.engine.cancel(running.id);
    served.engine.cancel(12345);
    expect(await waiting.result).toMatchObject({ reason: 'cancelled', tokens: [] });
    expect((await running.result).reason).toBe('cancelled');
    expect(served.engine.snapshot()).toMatchObject({
      running: 0,
      waiting: 0,
      kvBlocksUsed: 0,
      slots: [{ leases: 0 }],
    });
  });
});
