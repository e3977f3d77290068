import { afterEach, describe, expect, it } from 'vitest';
import { reconcilePool } from '../../../operator/pool/reconcile.ts';
import { Errands } from '../../../operator/source/errands.ts';
import { Terminal } from '../../../operator/source/types.ts';
import { digestOf, goodAdapter } from '../../support/adapter-files.ts';
import { refusal } from '../../support/pod/fault.ts';
import type { ScriptedPod } from '../../support/pod/scripted-pod.ts';
import { type Harness, startHarness } from '../adapter/harness.ts';
import { loraAdapter, POOL_KEY, pushedAdapter, serverPool } from '../adapter/objects.ts';
import { FakeClock } from '../kube/fake-clock.ts';

let harness: Harness;

afterEach(async () => {
  await harness.stop();
});

const signal = new AbortController().signal;
const look = () => reconcilePool(harness.poolDeps, POOL_KEY, signal);
const status = () => harness.pools.get(POOL_KEY)?.status;
const ready = () => status()?.conditions?.find(({ type }) => type === 'Ready');
const seeded = () => harness.servers.map((server) => server.registry.seeded);

/** As somebody does it by hand, or an operator with this fence. */
async function put(
  server: ScriptedPod | undefined,
  name: string,
  fence: { term: number; sequence: number } | null,
) {
  const pod = harness.fleet.podsOf(POOL_KEY).find(({ ip }) => ip === server?.host);
  if (!pod || !server) throw new Error('there is no such pod');
  const files = goodAdapter(1);
  const config = JSON.parse(files.config.toString('utf8')) as unknown;
  const options = {
    size: files.tensors.length,
    config,
    step: null,
    fence: fence ?? { term: 0, sequence: 0 },
    signal,
  };
  await pod.client.stage(name, digestOf(files), files.tensors, options);
  await server.registry.activate({ name, digest: digestOf(files), fence });
  await harness.fleet.whenState(
    pod,
    (state) => state.adapters.some((item) => item.name === name && item.current !== null),
    1_000,
  );
}

const adaptersIn = (index: number) =>
  harness.servers[index]?.registry.state().adapters.map(({ name }) => name);

describe('the status of a pool', () => {
  it('sums up what its pods report', async () => {
    harness = await startHarness();
    harness.apply(pushedAdapter('policy'));
    await look();
    expect(status()).toMatchObject({
      pods: 2,
      readyPods: 2,
      podsSummary: '2/2',
      slots: { total: 16, used: 0 },
      hostBytes: { total: 2 * (64 << 20), used: 0 },
      adapters: 1,
      podErrors: [],
      unmanaged: [],
    });
    expect(ready()).toMatchObject({ status: 'True', reason: 'PodsReady' });
  });

  it('names pods with another base model, and leaves them alone', async () => {
    harness = await startHarness([{}, {}, { baseModel: { name: 'owl' } }]);
    harness.apply(loraAdapter('sql'));
    await harness.settle('sql');
    await look();
    expect(ready()).toMatchObject({ status: 'False', reason: 'BaseModelMismatch' });
    expect(status()?.podErrors).toEqual([
      {
        name: 'pod-2',
        reason: 'BaseModelMismatch',
        message: 'Expected base model parrot but the pod has owl',
      },
    ]);
    expect(harness.servers[2]?.calls.filter(({ operation }) => operation !== 'watch')).toEqual([]);
    expect(harness.conditionOf('sql', 'Ready')?.status).toBe('True');
    expect(harness.statusOf('sql').pods?.desired).toBe(2);
  });

  it('names pods that do not answer', async () => {
    harness = await startHarness();
    await harness.servers[1]?.stop();
    await expect.poll(() => harness.fleet.podsOf(POOL_KEY)[1]?.reachable).toBe(false);
    await look();
    expect(status()).toMatchObject({ pods: 2, readyPods: 1 });
    expect(ready()).toMatchObject({ status: 'False', reason: 'PodsNotReady' });
    expect(status()?.podErrors?.map(({ name, reason }) => [name, reason])).toEqual([
      ['pod-1', 'Unreachable'],
    ]);
  });

  it('says that an older pool has its pods, and leaves them alone', async () => {
    harness = await startHarness();
    const { port = 0 } = harness.servers[0] ?? {};
    const older = serverPool(port);
    const at = (name: string, creationTimestamp: string) => ({
      ...older,
      metadata: { ...older.metadata, name, uid: `uid-${name}`, creationTimestamp },
    });
    harness.pools.set(POOL_KEY, at('parrot', '2026-01-01T00:00:00Z'));
    harness.pools.set('lora/rival', at('rival', '2026-02-01T00:00:00Z'));
    harness.fleet.sync();
    harness.apply(loraAdapter('sql'));
    await harness.settle('sql');

    await reconcilePool(harness.poolDeps, 'lora/rival', signal);
    await look();

    expect(harness.servers.map((server) => server.currentOf('sql'))).not.toContain(null);
    expect(ready()).toMatchObject({ status: 'True', reason: 'PodsReady' });
    const rival = harness.pools.get('lora/rival')?.status;
    expect(rival?.pods).toBe(0);
    expect(rival?.conditions?.find(({ type }) => type === 'Ready')).toMatchObject({
      status: 'False',
      reason: 'PodsOwnedElsewhere',
      message: 'pod-0, pod-1: of ServerPool lora/parrot, which is older; no two may select one pod',
    });
  });

  it('tells people once', async () => {
    harness = await startHarness();
    await look();
    await look();
    expect(harness.world.events).toEqual(['Normal PodsReady 2 pods with base model parrot']);
  });

  describe('that is deleted and made again', () => {
    const again = async (uid: string) => {
      const pool = serverPool(harness.servers[0]?.port ?? 0);
      harness.pools.set(POOL_KEY, { ...pool, metadata: { ...pool.metadata, uid } });
      await look();
    };
    const goes = async () => {
      harness.pools.delete(POOL_KEY);
      await look();
    };

    it('is told of anew', async () => {
      harness = await startHarness([{}]);
      await put(harness.servers[0], 'handmade', null);
      await look();
      await again('uid-again');
      const once = [
        'Warning UnmanagedAdapters handmade on pod-0: no LoraAdapter owns it',
        'Normal PodsReady 1 pod with base model parrot',
      ];
      expect(harness.world.events).toEqual([...once, ...once]);
    });

    it('leaves nothing behind', async () => {
      harness = await startHarness([{}]);
      await put(harness.servers[0], 'handmade', null);
      for (let made = 0; made < 20; made += 1) {
        await again(`uid-${made}`);
        expect(harness.poolDeps.announced.size).toBe(1);
        // Half of them come back before anybody has looked.
        if (made % 2 === 0) await goes();
      }
      await goes();
      expect(harness.poolDeps.announced.size).toBe(0);
    });
  });
});

describe('adapters that no object owns', () => {
  it('put there by hand are reported, or pruned where the pool says so', async () => {
    harness = await startHarness();
    await put(harness.servers[0], 'handmade', null);
    await look();
    expect(status()?.unmanaged).toEqual([{ pod: 'pod-0', name: 'handmade' }]);
    expect(harness.world.events).toContain(
      'Warning UnmanagedAdapters handmade on pod-0: no LoraAdapter owns it',
    );
    expect(adaptersIn(0)).toEqual(['handmade']);

    const pool = serverPool(harness.servers[0]?.port ?? 0, { unmanaged: 'Prune' });
    harness.pools.set(POOL_KEY, pool);
    await look();
    expect(adaptersIn(0)).toEqual([]);
    expect(status()?.unmanaged).toEqual([]);
  });

  it('brought by an operator are removed: their object was deleted while the pod was away', async () => {
    harness = await startHarness();
    await put(harness.servers[0], 'orphan', { term: 3, sequence: 1 });
    await look();
    expect(adaptersIn(0)).toEqual([]);
  });

  it('are left where the API server still knows an owner that the cache does not', async () => {
    harness = await startHarness();
    await put(harness.servers[0], 'sql', { term: 3, sequence: 1 });
    harness.poolDeps.liveAdapters = async () => [loraAdapter('sql')];
    await look();
    expect(adaptersIn(0)).toEqual(['sql']);
  });

  it('that were only staged are removed by their tombstone', async () => {
    harness = await startHarness();
    await put(harness.servers[0], 'sql', null);
    harness.deps.tombstones.bury(POOL_KEY, 'sql');
    await look();
    expect(adaptersIn(0)).toEqual([]);
  });

  it('are tried again when the pod does not let go of them', async () => {
    harness = await startHarness();
    await put(harness.servers[0], 'orphan', { term: 3, sequence: 1 });
    harness.servers[0]?.fail('remove', refusal('internal'));
    expect((await look()).kind).toBe('again');
    await look();
    expect(adaptersIn(0)).toEqual([]);
  });
});

describe('a pod is told that it is seeded', () => {
  it('when it serves all that it should, not before', async () => {
    harness = await startHarness();
    harness.apply(loraAdapter('sql'));
    await look();
    expect(seeded()).toEqual([false, false]);
    await harness.settle('sql');
    await look();
    expect(seeded()).toEqual([true, true]);
    expect(harness.servers.map((server) => server.count('seeded'))).toEqual([1, 1]);

    await harness.servers[1]?.restart();
    await expect.poll(() => harness.fleet.podsOf(POOL_KEY)[1]?.state?.seeded).toBe(false);
    await look();
    expect(seeded()).toEqual([true, false]);
    await harness.settle('sql');
    await look();
    expect(seeded()).toEqual([true, true]);
  });

  it('at once where there is nothing to hold', async () => {
    harness = await startHarness();
    await look();
    expect(seeded()).toEqual([true, true]);
  });

  it('though an adapter is bad, or nobody has pushed to one', async () => {
    harness = await startHarness();
    harness.source.fetchError = new Terminal('AdapterMalformed', 'garbage');
    harness.apply(loraAdapter('bad'));
    harness.apply(pushedAdapter('policy'));
    await harness.once('bad');
    await harness.once('policy');
    await look();
    expect(seeded()).toEqual([true, true]);
  });

  it('not while it cannot hold what the others serve, which the pool says', async () => {
    harness = await startHarness([{}, {}, { maxRank: 4 }]);
    const [small] = harness.kubePods.splice(2);
    harness.fleet.sync();
    harness.apply(loraAdapter('sql'));
    await harness.settle('sql');
    await look();
    if (small) harness.kubePods.push(small);
    harness.fleet.sync();
    await harness.fleet.whenHeard(2_000);
    await harness.settle('sql');
    harness.poolDeps.fleet = {
      podsOf: (key) => harness.fleet.podsOf(key),
      claimedOf: (key) => harness.fleet.claimedOf(key),
      followedMs: () => 3_600_000,
      whenState: (...call) => harness.fleet.whenState(...call),
    };
    await look();
    expect(seeded()).toEqual([true, true, false]);
    const message =
      'pod-2: cannot hold sql (rank_too_large), which other pods serve, and gets no requests until it can';
    expect(ready()).toMatchObject({ status: 'False', reason: 'PodsHeldBack', message });

    harness.adapters.delete('lora/sql');
    await look();
    expect(seeded()).toEqual([true, true, true]);
  });

  it('though a source is slow, once that has had its time', async () => {
    harness = await startHarness();
    const clock = new FakeClock();
    harness.deps.errands = new Errands({ clock, onAnswer: () => {} });
    harness.source.isSlow = true;
    harness.apply(loraAdapter('sql'));
    for (const [ms, expected] of [
      [9_999, false],
      [1, true],
    ] as const) {
      await harness.once('sql');
      await clock.advance(ms);
      await harness.once('sql');
      await look();
      expect(seeded()).toEqual([expected, expected]);
    }
  });

  it('not by a process that does not lead', async () => {
    harness = await startHarness();
    harness.world.term = null;
    await look();
    expect(seeded()).toEqual([false, false]);
  });
});
