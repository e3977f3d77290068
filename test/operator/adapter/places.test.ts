import { afterEach, describe, expect, it, vi } from 'vitest';
import { whyOf } from '../../../operator/adapter/why.ts';
import { reconcilePool } from '../../../operator/pool/reconcile.ts';
import { eventually } from '../../support/eventually.ts';
import { refusal } from '../../support/pod/fault.ts';
import { type Harness, startHarness } from './harness.ts';
import { kubePod, loraAdapter, POOL_KEY, pushedAdapter } from './objects.ts';
import { fixed, holdersOf, ROOM } from './placed.ts';
import { digestOfSeed, Trainer } from './trainer.ts';

let harness: Harness;

afterEach(async () => {
  await harness.stop();
});

const signal = new AbortController().signal;
const holders = (name: string) => holdersOf(harness, name);
const conditionOf = (name: string, type: string) => harness.conditionOf(name, type);

/** Pods as they come into the pool, from a zone each. */
async function joins(pods: [index: number, zone: string][]) {
  for (const [index, zone] of pods) {
    const labels = { app: 'parrot', 'topology.kubernetes.io/zone': zone };
    harness.kubePods.push(kubePod(`pod-${index}`, harness.servers[index]?.host ?? '', { labels }));
  }
  harness.fleet.sync();
  await harness.fleet.whenHeard(2_000);
}

function leaves(index: number) {
  const at = harness.kubePods.findIndex(({ metadata }) => metadata.name === `pod-${index}`);
  harness.kubePods.splice(at, 1);
  harness.fleet.sync();
}

describe('an adapter for some of the pods', () => {
  it('is looked at without a walk over the others, where nothing has changed', async () => {
    harness = await startHarness();
    for (const name of ['one', 'two']) harness.apply(fixed({ name }, 1));
    for (const name of ['one', 'two', 'one']) await harness.settle(name);
    const walks = vi.spyOn(harness.adapters, 'by');
    const walked = () => walks.mock.calls.filter(([index]) => index !== 'name');

    await harness.once('one');
    await harness.once('two');
    expect(walked()).toEqual([]);

    harness.apply(fixed({ name: 'two' }, 2));
    await harness.once('one');
    expect(walked()).not.toEqual([]);
    await harness.settle('two');
    expect(holders('two')).toEqual([0, 1]);
  });

  it.each([
    [1, 1],
    ['50%', 1],
    ['51%', 2],
    ['100%', 2],
  ])('of two, %s, is in %i and Ready', async (replicas, pods) => {
    harness = await startHarness();
    harness.apply(fixed({ name: 'sql' }, replicas));
    await harness.settle('sql');
    expect(holders('sql')).toHaveLength(pods);
    const counts = { desired: pods, staged: pods, ready: pods, summary: `${pods}/${pods}` };
    expect(harness.statusOf('sql').pods).toEqual(counts);
    expect(conditionOf('sql', 'Placed')).toMatchObject({ status: 'True' });
    expect(conditionOf('sql', 'Ready')).toMatchObject({ status: 'True' });
  });

  it('goes to another when its pod leaves', async () => {
    harness = await startHarness();
    harness.apply(fixed({ name: 'sql' }, 1));
    await harness.settle('sql');
    const [first = -1] = holders('sql');
    leaves(first);
    await harness.settle('sql');
    expect(holders('sql')).toHaveLength(2);
    expect(harness.statusOf('sql').pods?.summary).toBe('1/1');
  });

  it('stays where it is when a pod comes, and leaves pods when it asks for fewer', async () => {
    harness = await startHarness([{}, {}, {}]);
    leaves(2);
    harness.apply(fixed({ name: 'sql' }, 2));
    await harness.settle('sql');
    harness.kubePods.push(kubePod('pod-2', harness.servers[2]?.host ?? ''));
    harness.fleet.sync();
    await harness.fleet.whenHeard(2_000);
    await harness.settle('sql');
    expect(holders('sql')).toEqual([0, 1]);

    harness.apply(fixed({ name: 'sql' }, 1));
    await harness.settle('sql');
    expect(holders('sql')).toHaveLength(1);
    expect(harness.statusOf('sql').pods).toMatchObject({ desired: 1, ready: 1 });
  });

  it('lets a pod go only after another one serves in its place', async () => {
    harness = await startHarness([{}, {}, {}]);
    for (const index of [0, 1, 2]) leaves(index);
    await joins([
      [0, 'a'],
      [1, 'a'],
    ]);
    harness.apply(fixed({ name: 'sql' }, 2, { spread: 'zone' }));
    await harness.settle('sql');
    expect(holders('sql')).toEqual([0, 1]);

    harness.servers[2]?.fail('stage', refusal('no_capacity'), 1_000);
    await joins([[2, 'b']]);
    await harness.once('sql');
    await harness.once('sql');
    expect(harness.servers[2]?.count('stage')).toBeGreaterThan(0);
    expect(holders('sql')).toEqual([0, 1]);

    harness.servers[2]?.heal();
    await harness.settle('sql', () => holders('sql').length === 2 && holders('sql').includes(2));
    await harness.settle('sql');
    expect(conditionOf('sql', 'Ready')).toMatchObject({ status: 'True' });
  });

  it('that asks for none is in none, comes back with what it was, and says why it is not Ready', async () => {
    harness = await startHarness();
    harness.apply(pushedAdapter('policy', { spec: { placement: { mode: 'Fixed', replicas: 1 } } }));
    await harness.settle('policy');
    await new Trainer(harness).push(1);
    await harness.settle('policy');
    harness.emptySpool();
    const none = { placement: { mode: 'Fixed', replicas: 0 } };
    harness.apply(pushedAdapter('policy', { metadata: { generation: 2 }, spec: none }));
    await harness.settle('policy');
    expect(harness.statusOf('policy').observedGeneration).toBe(2);
    expect(holders('policy')).toEqual([]);
    expect(conditionOf('policy', 'Ready')).toMatchObject({ status: 'False', reason: 'NoReplicas' });

    harness.apply(pushedAdapter('policy', { spec: { placement: { mode: 'Fixed', replicas: 2 } } }));
    await harness.settle('policy');
    expect(harness.servers.map((server) => server.currentOf('policy'))).toEqual([
      digestOfSeed(1),
      digestOfSeed(1),
    ]);
  });

  describe('that asks for none', () => {
    const none = { placement: { mode: 'Fixed', replicas: 0 } };
    const one = { placement: { mode: 'Fixed', replicas: 1 } };
    const held = () =>
      harness.servers.flatMap(({ registry }, index) =>
        registry.state().adapters.some(({ name }) => name === 'policy') ? [index] : [],
      );
    async function restsAfterPush(pods: object[], seed = 1) {
      harness = await startHarness(pods);
      harness.apply(pushedAdapter('policy', { spec: one }));
      await harness.settle('policy');
      await new Trainer(harness).push(seed);
      await harness.settle('policy');
      harness.apply(pushedAdapter('policy', { metadata: { generation: 2 }, spec: none }));
      await harness.settle('policy');
      expect(holders('policy')).toEqual([]);
    }
    async function servesAgain() {
      harness.apply(pushedAdapter('policy', { metadata: { generation: 3 }, spec: one }));
      await harness.settle('policy');
      expect(harness.servers.flatMap((server) => server.currentOf('policy') ?? [])).toEqual([
        digestOfSeed(1),
      ]);
    }

    it.each([
      ['two pods', [{}, {}]],
      ['one', [{}]],
      ['one that has room for no other', [ROOM]],
    ])('survives the operator and its spool, with %s', async (_what, pods) => {
      await restsAfterPush(pods);
      expect(held()).toHaveLength(1);
      harness.forget();
      harness.emptySpool();
      await harness.settle('policy');
      expect([holders('policy'), held().length]).toEqual([[], 1]);
      harness.emptySpool();
      await servesAgain();
      expect(held()).toHaveLength(1);
    });

    it('survives the pod that it rests in too', async () => {
      await restsAfterPush([{}, {}]);
      const [at = -1] = held();
      leaves(at);
      await harness.settle('policy');
      expect(held()).toEqual([0, 1]);
      harness.forget();
      harness.emptySpool();
      harness.apply(pushedAdapter('policy', { metadata: { generation: 3 }, spec: one }));
      await harness.settle('policy');
      expect(harness.servers[1 - at]?.currentOf('policy')).toBe(digestOfSeed(1));
    });

    it('is let go by pods only once status tells of it, from which another operator knows it', async () => {
      await restsAfterPush([{}, {}]);
      await servesAgain();
      const { write } = harness.deps.status;
      harness.deps.status.write = () => {};
      await new Trainer(harness).push(2);
      harness.apply(pushedAdapter('policy', { metadata: { generation: 4 }, spec: none }));
      await harness.settle('policy');
      expect(holders('policy')).toHaveLength(1);
      harness.deps.status.write = write;
      await harness.settle('policy', () => holders('policy').length === 0);
      harness.forget();
      harness.emptySpool();
      harness.apply(pushedAdapter('policy', { metadata: { generation: 5 }, spec: one }));
      await harness.settle('policy');
      expect(harness.servers.flatMap((server) => server.currentOf('policy') ?? [])).toEqual([
        digestOfSeed(2),
      ]);
    });

    it('rests nowhere where it can be fetched again', async () => {
      harness = await startHarness();
      harness.apply(fixed({ name: 'policy' }, 1));
      await harness.settle('policy');
      harness.apply(fixed({ name: 'policy' }, 0));
      await harness.settle('policy');
      expect(held()).toEqual([]);
    });
  });

  it('is not placed anew while nothing that decides it changes', async () => {
    harness = await startHarness();
    harness.apply(fixed({ name: 'sql' }, 1));
    await harness.settle('sql');
    const before = harness.deps.places.of(harness.deps, POOL_KEY);
    harness.apply(pushedAdapter('policy'));
    await harness.settle('policy');
    const after = harness.deps.places.of(harness.deps, POOL_KEY);
    expect(after).not.toBe(before);
    await new Trainer(harness).push(1);
    await harness.settle('policy');
    const pushed = harness.deps.places.of(harness.deps, POOL_KEY)?.byId;
    await new Trainer(harness).push(2);
    await harness.settle('policy');
    await harness.settle('sql');
    expect(harness.deps.places.of(harness.deps, POOL_KEY)?.byId).toBe(pushed);
    expect(holders('policy')).toEqual([0, 1]);
  });

  it('stays with operators that start anew', async () => {
    harness = await startHarness([{}, {}, {}]);
    harness.apply(fixed({ name: 'sql' }, 1));
    await harness.settle('sql');
    const [first] = holders('sql');
    leaves(first ?? 0);
    await harness.settle('sql');
    expect(holders('sql')).toHaveLength(2);
    const [second] = holders('sql').filter((index) => index !== first);
    harness.kubePods.push(kubePod(`pod-${first}`, harness.servers[first ?? 0]?.host ?? ''));
    harness.fleet.sync();
    await harness.fleet.whenHeard(2_000);
    await harness.settle('sql', () => holders('sql').length === 1);
    harness.forget();
    await harness.settle('sql');
    expect(holders('sql')).toEqual([second]);
  });

  it('keeps to pods that it has while it is suspended', async () => {
    harness = await startHarness();
    harness.apply(fixed({ name: 'sql' }, 2));
    await harness.settle('sql');
    const suspended = fixed({ name: 'sql' }, 1);
    harness.apply({ ...suspended, spec: { ...suspended.spec, suspend: true } });
    await harness.settle('sql');
    expect(holders('sql')).toEqual([0, 1]);
  });

  it('is pushed to these pods only', async () => {
    harness = await startHarness();
    harness.apply(pushedAdapter('policy', { spec: { placement: { mode: 'Fixed', replicas: 1 } } }));
    await harness.settle('policy');
    const result = await new Trainer(harness).push(1);
    expect(result.pods).toHaveLength(1);
    expect(holders('policy')).toHaveLength(1);
    await harness.settle('policy');
    expect(conditionOf('policy', 'Ready')).toMatchObject({ status: 'True' });
  });

  it('does not hold up a new pod that it is not placed on', async () => {
    harness = await startHarness();
    harness.apply(fixed({ name: 'sql' }, 1));
    await reconcilePool(harness.poolDeps, POOL_KEY, signal);
    expect(harness.servers.map(({ registry }) => registry.seeded).sort()).toEqual([false, true]);
    await harness.settle('sql');
    await reconcilePool(harness.poolDeps, POOL_KEY, signal);
    expect(harness.servers.map(({ registry }) => registry.seeded)).toEqual([true, true]);
  });
});

describe('an adapter by traffic', () => {
  const auto = (name: string, more: object = {}) =>
    loraAdapter(name, { spec: { placement: { mode: 'Auto', ...more } } });

  async function ask(name: string, times: number) {
    for (const { registry } of harness.servers) {
      const isThere = registry.state().adapters.some((adapter) => adapter.name === name);
      for (let request = 0; isThere && request < times; request += 1)
        await registry.lookup.enter(name, null, signal);
    }
  }
  /** Ends ten seconds of asking. */
  function told() {
    for (const { registry } of harness.servers) registry.tick();
  }
  const untilTold = (name: string, isSo: (perMinute: number) => boolean) =>
    eventually(`pods tell the traffic of ${name}`, { timeoutMs: 5_000 }, () => {
      const states = harness.fleet.podsOf(POOL_KEY).flatMap(({ state }) => state?.adapters ?? []);
      const rates = states.filter((adapter) => adapter.name === name);
      return rates.every(({ requestsPerMinute = 0 }) => isSo(requestsPerMinute)) || undefined;
    });

  it('has more pods when it is asked for more, at most maxReplicas, and fewer when it has not been for minutes', async () => {
    harness = await startHarness([{}, {}, {}, {}]);
    let passedMs = 0;
    const { clock } = harness.deps;
    harness.deps.clock = { ...clock, monotonicMs: () => clock.monotonicMs() + passedMs };
    harness.apply(auto('sql', { maxReplicas: '75%' }));
    await harness.settle('sql');
    expect(holders('sql')).toHaveLength(1);

    await ask('sql', 60);
    told();
    await untilTold('sql', (perMinute) => perMinute > 0);
    const { mode, requestsPerMinute } = whyOf(harness.deps, 'lora', 'sql');
    expect([mode, requestsPerMinute > 0]).toEqual(['Auto', true]);
    await harness.settle('sql', () => holders('sql').length === 2);
    expect(harness.deps.places.dueInMs(harness.deps, POOL_KEY)).toBeGreaterThan(20_000);
    passedMs += 30_000;
    await harness.settle('sql', () => holders('sql').length === 3);
    expect(harness.deps.places.dueInMs(harness.deps, POOL_KEY)).toBeNull();
    await harness.settle('sql');
    expect(harness.statusOf('sql').pods?.summary).toBe('3/3');

    for (let tick = 0; tick < 7; tick += 1) told();
    await untilTold('sql', (perMinute) => perMinute === 0);
    await harness.settle('sql');
    expect(holders('sql')).toHaveLength(3);
    const outcome = await reconcilePool(harness.poolDeps, POOL_KEY, signal);
    expect(outcome).toMatchObject({ kind: 'again', afterMs: expect.any(Number) });
    passedMs += 300_000;
    await harness.settle('sql', () => holders('sql').length === 1);
  });

  it('leaves pods to the one that gets most of it', async () => {
    harness = await startHarness([{}, {}, {}, {}]);
    harness.apply(auto('sql'));
    harness.apply(auto('chat'));
    harness.source.put(2);
    await harness.settle('sql');
    await harness.settle('chat');
    await ask('sql', 60);
    await ask('chat', 20);
    told();
    await untilTold('sql', (perMinute) => perMinute > 0);
    await untilTold('chat', (perMinute) => perMinute > 0);
    await harness.settle('sql', () => holders('sql').length === 2);
    await harness.settle('chat');
    expect(holders('chat')).toHaveLength(1);
  });
});
