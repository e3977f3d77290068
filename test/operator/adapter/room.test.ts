import { afterEach, describe, expect, it } from 'vitest';
import { type Why, whyOf } from '../../../operator/adapter/why.ts';
import { reconcilePool } from '../../../operator/pool/reconcile.ts';
import { type Harness, startHarness } from './harness.ts';
import { loraAdapter, POOL_KEY, pushedAdapter } from './objects.ts';
import { created, fixed, holdersOf, ROOM } from './placed.ts';
import { Trainer } from './trainer.ts';

let harness: Harness;

afterEach(async () => {
  await harness.stop();
});

const signal = new AbortController().signal;
const holders = (name: string) => holdersOf(harness, name);
const conditionOf = (name: string, type: string) => harness.conditionOf(name, type);

describe('a pool without room for all', () => {
  const pressure = () =>
    harness.pools.get(POOL_KEY)?.status?.conditions?.find(({ type }) => type === 'CapacityPressure');

  it('says which adapter does not fit where, and why, and takes it in when there is room', async () => {
    harness = await startHarness([ROOM, ROOM]);
    harness.apply(fixed(created('old', 1), 2));
    await harness.settle('old');
    harness.apply(fixed(created('young', 2), 1));
    await harness.settle('young', () => conditionOf('young', 'Placed')?.reason === 'NoRoom');
    const words =
      /^Placed on 0 of 1 pods: it needs .* of host memory; pod-0 has .* free, pod-1 has .* free\.$/;
    expect(conditionOf('young', 'Placed')).toMatchObject({
      status: 'False',
      message: expect.stringMatching(words),
    });
    expect(conditionOf('young', 'Ready')).toMatchObject({ status: 'False', reason: 'NoRoom' });
    expect(holders('old')).toEqual([0, 1]);
    await reconcilePool(harness.poolDeps, POOL_KEY, signal);
    expect(pressure()).toMatchObject({ status: 'True', reason: 'AdaptersDoNotFit' });
    expect(pressure()?.message).toMatch(/^young: Placed on 0 of 1 pods/);

    harness.apply(fixed(created('old', 1), 1));
    await harness.settle('old');
    await harness.settle('young');
    expect(conditionOf('young', 'Ready')).toMatchObject({ status: 'True' });
    await reconcilePool(harness.poolDeps, POOL_KEY, signal);
    expect(pressure()?.reason).not.toBe('AdaptersDoNotFit');
  });

  it('serves an adapter on the pods that have room, and says that it wants more', async () => {
    harness = await startHarness();
    harness.apply(fixed({ name: 'sql' }, 3));
    await harness.settle('sql');
    expect(holders('sql')).toEqual([0, 1]);
    const message = 'Placed on 2 of 3 pods: the pool has only 2.';
    expect(conditionOf('sql', 'Placed')).toMatchObject({ status: 'False', reason: 'NoRoom', message });
    expect(harness.statusOf('sql').pods?.summary).toBe('2/2');
  });

  it('gives it to the higher priority, and looks at who has to go', async () => {
    harness = await startHarness([ROOM]);
    const looked: string[] = [];
    harness.deps.requeue = (key) => void looked.push(key);
    harness.apply(fixed(created('low', 1), 1));
    await harness.settle('low');
    harness.apply(fixed(created('high', 2), 1, { priority: 1 }));
    harness.source.put(2);
    await harness.settle('high', () => looked.includes('lora/low'));
    await harness.settle('low');
    expect(conditionOf('low', 'Ready')).toMatchObject({ status: 'False', reason: 'NoRoom' });
    await harness.settle('high');
    expect([holders('low'), holders('high')]).toEqual([[], [0]]);
  });

  it('tells pod by pod what would fit, and why not', async () => {
    harness = await startHarness([ROOM, ROOM, { baseModel: { name: 'owl' } }]);
    harness.apply(fixed(created('sql', 1), 1));
    await harness.settle('sql');
    const [at] = holders('sql');
    const sql = whyOf(harness.deps, 'lora', 'sql');
    expect(sql).toMatchObject({ mode: 'Fixed', wanted: 1, placed: 1, refusal: null });
    const tell = ({ pods }: Why) => Object.fromEntries(pods.map(({ pod, state }) => [pod, state]));
    const [here, other] = [`pod-${at}`, `pod-${1 - (at ?? 0)}`];
    expect(tell(sql)).toEqual({ [here]: 'placed', [other]: 'spare', 'pod-2': 'mismatched' });
    expect(sql.pods).toContainEqual(expect.objectContaining({ pod: here, holds: true }));

    harness.apply(fixed(created('chat', 2), 2));
    await harness.settle('chat', () => conditionOf('chat', 'Ready')?.reason === 'NoRoom');
    const chat = whyOf(harness.deps, 'lora', 'chat');
    expect(chat).toMatchObject({ wanted: 2, placed: 1, refusal: { reason: 'NoRoom' } });
    expect(tell(chat)).toEqual({ [here]: 'full', [other]: 'placed', 'pod-2': 'mismatched' });
    const full = chat.pods.find(({ state }) => state === 'full');
    expect(full?.why).toMatch(/of host memory are left by adapters that come first; it needs .*\.$/);
  });

  it('tells it of an adapter that goes everywhere, and of one that may not have its name', async () => {
    harness = await startHarness();
    harness.apply(loraAdapter('sql', { metadata: { creationTimestamp: '2026-01-01T00:00:00Z' } }));
    await harness.settle('sql');
    expect(whyOf(harness.deps, 'lora', 'sql')).toMatchObject({
      mode: 'All',
      placed: 2,
      pods: [
        { pod: 'pod-0', state: 'placed', holds: true },
        { pod: 'pod-1', state: 'placed', holds: true },
      ],
    });
    harness.apply(loraAdapter('twin', { spec: { servedName: 'sql' } }));
    const twin = whyOf(harness.deps, 'lora', 'twin');
    expect(twin).toMatchObject({ placed: 0, refusal: { reason: 'ServedNameTaken' }, pods: [] });
  });

  it('refuses a push for which there is none', async () => {
    harness = await startHarness([ROOM]);
    harness.apply(pushedAdapter('policy', { spec: { placement: { mode: 'Fixed', replicas: 1 } } }));
    await harness.settle('policy');
    await new Trainer(harness).push(2);
    await harness.settle('policy');
    harness.apply(fixed({ name: 'sql' }, 1, { priority: 1 }));
    await harness.settle('sql', () => conditionOf('sql', 'Placed')?.status === 'True');
    const refused = new Trainer(harness).push(3);
    await expect(refused).rejects.toMatchObject({
      code: 'no_capacity',
      message: expect.stringMatching(/^Placed on 0 of 1 pods/),
    });
  });
});
