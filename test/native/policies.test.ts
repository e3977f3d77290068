import { describe, expect, it } from 'vitest';
import type { Policy } from '../../native/types.ts';
import { type Adapter, goldenCases, randomAdapter, TestEngine } from './support.ts';

const PROMPT = goldenCases('parrot')
  .flatMap(({ ids }) => ids)
  .slice(0, 40);
const STYLE = { kind: 'adapter', name: 'style' } as const;
/** Tokens of a request that is changed while it runs: more than come while the event loop is late. */
const LONG = 400;
const AFTER_ATTENTION = ['o_proj', 'gate_proj', 'up_proj', 'down_proj'];

/** Adapts only what comes after all keys and values, which are the base's then, whatever revision computed them. */
function lateAdapter({ model }: TestEngine, seed: number): Adapter {
  const { body, modules } = randomAdapter(model, { rank: 4, seed });
  const last = model.geometry.layers - 1;
  const late = modules.filter(({ layer, module }) => layer === last && AFTER_ATTENTION.includes(module));
  return { body, modules: late.map((module) => ({ ...module, scale: 30 })) };
}

/** Two revisions are staged, and the first is current. */
async function open(slots = 2): Promise<TestEngine> {
  const served = await TestEngine.open('parrot', { slots, prefixCache: true });
  for (const seed of slots > 1 ? [2, 1] : [1]) await stage(served, seed);
  await served.engine.activate('style', 'r1', false);
  return served;
}

async function stage(served: TestEngine, seed: number) {
  const { body, modules } = lateAdapter(served, seed);
  return await served.engine.stage(`r${seed}`, body, modules);
}

/** A request that runs, and has some tokens. */
async function running(served: TestEngine, policy: Policy) {
  const some = Promise.withResolvers<void>();
  let tokens = 0;
  served.onEvent = ({ type }) => {
    if (type === 'token' && ++tokens === 5) some.resolve();
  };
  const { result, id } = served.start({
    prompt: PROMPT,
    target: STYLE,
    maxTokens: LONG,
    stopTokens: [],
    policy,
  });
  await some.promise;
  served.onEvent = () => undefined;
  return { result, id };
}

/** What a revision alone says after some tokens. */
async function continuation(served: TestEngine, digest: string, before: number[], maxTokens: number) {
  if (maxTokens === 0) return [];
  const target = { kind: 'revision', digest } as const;
  return (await served.generate({ prompt: [...PROMPT, ...before], target, maxTokens, stopTokens: [] }))
    .tokens;
}

describe.each<[Policy, boolean, boolean]>([
  ['pin', false, false],
  ['pin', true, false],
  ['activation', false, false],
  ['activation', true, true],
  ['latest', false, true],
  ['latest', true, true],
])('a request with policy %s, its adapter activated with migrates %s', (policy, migrates, moves) => {
  it(`${moves ? 'goes on with the new revision' : 'ends on its own'}, and each token is of the one it names`, async () => {
    await using served = await open();
    const { result } = await running(served, policy);
    await served.engine.activate('style', 'r2', migrates);
    const { tokens, moves: moved, revision } = await result;
    expect(revision).toBe('r1');
    expect(moved.map((move) => move.revision)).toEqual(moves ? ['r2'] : []);
    const from = moved[0]?.from ?? LONG;
    expect(from).toBeGreaterThan(4);
    expect(tokens.slice(0, from)).toEqual(await continuation(served, 'r1', [], from));
    expect(tokens.slice(from)).toEqual(await continuation(served, 'r2', tokens.slice(0, from), LONG - from));
  });
});

it('a request that moved keeps its keys and values, and lets its old slot go', async () => {
  await using served = await open();
  const { result } = await running(served, 'latest');
  await served.engine.activate('style', 'r2', false);
  await served.engine.release('r1');
  const { moves } = await result;
  expect(moves).toHaveLength(1);
  expect(served.freed).toEqual(['r1']);
  expect(served.engine.snapshot()).toMatchObject({
    promptTokens: PROMPT.length,
    slots: [{ revision: 'r2', leases: 0 }],
  });
});

it('what it computed before the move can be found under the old revision, and nothing after it', async () => {
  await using served = await open();
  const { result } = await running(served, 'latest');
  await served.engine.activate('style', 'r2', false);
  const { tokens, moves } = await result;
  const prompt = [...PROMPT, ...tokens];
  const found = async (digest: string) =>
    (await served.generate({ prompt, target: { kind: 'revision', digest }, maxTokens: 1 })).cachedTokens;
  const whole = 16 * Math.floor((PROMPT.length + (moves[0]?.from ?? 0) - 1) / 16);
  expect(await found('r2')).toBe(0);
  expect(await found('r1')).toBe(whole);
});

it('one that waits goes over as a whole', async () => {
  await using served = await TestEngine.open('parrot', { slots: 2, maxBatch: 1, prefixCache: true });
  for (const seed of [2, 1]) await stage(served, seed);
  await served.engine.activate('style', 'r1', false);
  const { id } = await running(served, 'pin');
  const waiting = served.start({
    prompt: PROMPT,
    target: STYLE,
    policy: 'latest',
    maxTokens: 20,
    stopTokens: [],
  });
  while (served.engine.snapshot().waiting === 0) await new Promise(setImmediate);
  await served.engine.activate('style', 'r2', false);
  served.engine.cancel(id);
  const { tokens, moves } = await waiting.result;
  expect(moves).toEqual([{ from: 0, revision: 'r2' }]);
  const prompt = [...PROMPT, ...tokens];
  const { cachedTokens } = await served.generate({ prompt, target: { kind: 'revision', digest: 'r2' } });
  expect(cachedTokens).toBe(48);
  expect(tokens).toEqual(await continuation(served, 'r2', [], 20));
});

it('it stays where it is while the new revision is in no slot', async () => {
  await using served = await open(1);
  const { result } = await running(served, 'latest');
  expect((await stage(served, 2)).slot).toBeNull();
  await served.engine.activate('style', 'r2', true);
  const { moves, tokens } = await result;
  expect(moves).toEqual([]);
  expect(tokens).toHaveLength(LONG);
});

it('one that went on stays there where the next activation lets requests finish', async () => {
  await using served = await open();
  const { result } = await running(served, 'activation');
  const { step } = await served.engine.activate('style', 'r2', true);
  while (served.engine.snapshot().step < step) await new Promise(setImmediate);
  await served.engine.activate('style', 'r1', false);
  expect((await result).moves.map(({ revision }) => revision)).toEqual(['r2']);
});
