import { afterEach, describe, expect, it } from 'vitest';
import { digestOf } from '../../support/adapter-files.ts';
import { type Harness, startHarness } from './harness.ts';
import { loraAdapter, POOL_KEY, serverPool } from './objects.ts';

let harness: Harness;

afterEach(async () => {
  await harness.stop();
});

async function served(name: string, spec: Record<string, unknown> = {}): Promise<string> {
  harness.apply(loraAdapter(name, { spec }));
  await harness.settle(name);
  return digestOf(harness.source.files);
}

function deleted(name: string, deletionTimestamp: string, spec: Record<string, unknown> = {}): void {
  harness.apply(loraAdapter(name, { metadata: { deletionTimestamp }, spec }));
}

const now = () => new Date().toISOString();
const isGone = (name: string) => !harness.adapters.has(`lora/${name}`);

describe('deleting an adapter', () => {
  it('takes it out of every pod before the object goes', async () => {
    harness = await startHarness();
    await served('sql');
    deleted('sql', now());
    await harness.settle('sql', () => isGone('sql'));
    expect(harness.servers.flatMap((server) => server.registry.state().adapters)).toEqual([]);
    expect(harness.world.events.at(-1)).toBe('Normal Removed sql is in no pod of pool parrot');
  });

  it('waits for running requests', async () => {
    harness = await startHarness([{}]);
    const digest = await served('sql');
    const engine = harness.servers[0]?.engine;
    engine?.lease(digest);
    deleted('sql', now());

    await harness.once('sql');
    expect(isGone('sql')).toBe(false);
    expect(harness.conditionOf('sql', 'Ready')).toMatchObject({ status: 'False', reason: 'Draining' });

    engine?.endLease(digest);
    await harness.settle('sql', () => isGone('sql'));
  });

  it('at once does not wait for them', async () => {
    harness = await startHarness([{}]);
    const spec = { deletion: { policy: 'Immediate' } };
    harness.servers[0]?.engine.lease(await served('sql', spec));
    deleted('sql', now(), spec);
    await harness.settle('sql', () => isGone('sql'));
  });

  it('is held up by a silent pod until the deadline, which then has a tombstone', async () => {
    harness = await startHarness();
    await served('sql');
    await harness.servers[1]?.stop();
    await expect.poll(() => harness.fleet.podsOf(POOL_KEY)[1]?.reachable).toBe(false);
    deleted('sql', now());

    await harness.once('sql');
    expect(isGone('sql')).toBe(false);
    expect(harness.servers[0]?.currentOf('sql')).toBeNull();
    expect(harness.conditionOf('sql', 'Ready')).toMatchObject({ reason: 'RemovalBlocked' });
    expect(harness.conditionOf('sql', 'Reconciling')).toMatchObject({
      status: 'True',
      reason: 'RemovalBlocked',
    });
    expect(harness.conditionOf('sql', 'Ready')?.message).toContain('pod-1');

    // Followed for long enough, and past the deadline.
    harness.deps.fleet = Object.assign(Object.create(harness.fleet), { followedMs: () => 60_000 });
    harness.deps.fleet.podsOf = (key) => harness.fleet.podsOf(key);
    harness.deps.fleet.formerOf = (key) => harness.fleet.formerOf(key);
    deleted('sql', '2026-01-01T00:00:00Z');
    await harness.once('sql');
    expect(isGone('sql')).toBe(true);
    expect(harness.deps.tombstones.has(POOL_KEY, 'sql')).toBe(true);
    expect(harness.world.events.some((event) => event.startsWith('Warning RemovalUnconfirmed pod-1'))).toBe(
      true,
    );
  });

  it('does not go by the deadline while the operator has only just begun to look', async () => {
    harness = await startHarness();
    await served('sql');
    await harness.servers[1]?.stop();
    await expect.poll(() => harness.fleet.podsOf(POOL_KEY)[1]?.reachable).toBe(false);
    deleted('sql', '2026-01-01T00:00:00Z');
    await harness.once('sql');
    expect(isGone('sql')).toBe(false);
  });

  it.each([
    ['was deleted', () => void harness.pools.delete(POOL_KEY)],
    [
      'selects other pods by now',
      () => {
        const selector = { matchLabels: { app: 'owl' } };
        harness.pools.set(POOL_KEY, serverPool(harness.servers[0]?.port ?? 0, { selector }));
      },
    ],
  ])('takes it out of pods that run on after their pool %s', async (_name, change) => {
    harness = await startHarness();
    await served('sql');
    change();
    harness.fleet.sync();
    deleted('sql', now());
    await harness.settle('sql', () => isGone('sql'));
    expect(harness.servers.map((server) => server.currentOf('sql'))).toEqual([null, null]);
  });

  it('leaves a pod alone that another pool took over with another adapter of this name', async () => {
    harness = await startHarness([{}]);
    const digest = await served('sql');
    const selector = { matchLabels: { app: 'owl' } };
    const port = harness.servers[0]?.port ?? 0;
    harness.pools.set(POOL_KEY, serverPool(port, { selector }));
    harness.pools.set('lora/heir', {
      ...serverPool(port),
      metadata: { name: 'heir', namespace: 'lora', uid: 'uid-heir', generation: 1 },
    });
    harness.apply(loraAdapter('other', { spec: { servedName: 'sql', poolRef: { name: 'heir' } } }));
    harness.fleet.sync();
    deleted('sql', now());
    await harness.settle('sql', () => isGone('sql'));
    expect(harness.servers[0]?.currentOf('sql')).toBe(digest);
  });

  it('does not wait for a former pod once that is gone', async () => {
    harness = await startHarness([{}]);
    await served('sql');
    harness.pools.delete(POOL_KEY);
    harness.fleet.sync();
    await harness.servers[0]?.stop();
    await expect.poll(() => harness.fleet.formerOf(POOL_KEY)[0]?.pod.reachable).toBe(false);
    deleted('sql', now());
    await harness.once('sql');
    expect(isGone('sql')).toBe(false);
    harness.kubePods.pop();
    harness.fleet.sync();
    await harness.once('sql');
    expect(isGone('sql')).toBe(true);
  });

  it('counts a pod that left the cluster as absent', async () => {
    harness = await startHarness();
    await served('sql');
    await harness.servers[1]?.stop();
    harness.kubePods.pop();
    harness.fleet.sync();
    deleted('sql', now());
    await harness.settle('sql', () => isGone('sql'));
  });

  it('that never had its name leaves the owner of the name alone', async () => {
    harness = await startHarness();
    const digest = await served('sql');
    const younger = { creationTimestamp: '2026-06-02T00:00:00Z', deletionTimestamp: now() };
    harness.apply(loraAdapter('other', { metadata: younger, spec: { servedName: 'sql' } }));
    await harness.settle('other', () => isGone('other'));
    expect(harness.servers.map((server) => server.currentOf('sql'))).toEqual([digest, digest]);
  });

  it('by an old cache, of an object that was made again, touches no pod', async () => {
    harness = await startHarness();
    const digest = await served('sql');
    deleted('sql', now());
    harness.deps.objects.live = async () => null;
    await harness.once('sql');
    expect(harness.servers.map((server) => server.currentOf('sql'))).toEqual([digest, digest]);
  });

  it('by a process that does not lead any more touches no pod', async () => {
    harness = await startHarness();
    const digest = await served('sql');
    deleted('sql', now());
    harness.world.term = null;
    await harness.once('sql');
    expect(harness.servers.map((server) => server.currentOf('sql'))).toEqual([digest, digest]);
  });
});
