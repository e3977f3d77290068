import { afterEach, describe, expect, it } from 'vitest';
import { systemClock } from '../../../operator/kube/clock.ts';
import { Errands } from '../../../operator/source/errands.ts';
import { Retryable } from '../../../operator/source/types.ts';
import { LorikeetError } from '../../../server/contract/errors.ts';
import { digestOf, goodAdapter } from '../../support/adapter-files.ts';
import { refusal } from '../../support/pod/fault.ts';
import { FakeClock } from '../kube/fake-clock.ts';
import { type Harness, startHarness } from './harness.ts';
import { loraAdapter, POOL_KEY, serverPool } from './objects.ts';

let harness: Harness;

afterEach(async () => {
  await harness.stop();
});

/** Served digests by pod. */
function served(name: string): (string | null)[] {
  return harness.servers.map((server) => server.currentOf(name));
}

describe('an adapter from a source', () => {
  it('is served by every pod once it is Ready, and only after it has its finalizer', async () => {
    harness = await startHarness();
    const digest = digestOf(harness.source.files);
    harness.apply(loraAdapter('sql', { metadata: { finalizers: [] } }));

    await harness.once('sql');
    expect(harness.source.resolves).toBe(0);
    expect(harness.adapters.get('lora/sql')?.metadata.finalizers).toEqual(['lorikeet.dev/adapter']);

    await harness.settle('sql');
    expect(served('sql')).toEqual([digest, digest]);
    const status = harness.statusOf('sql');
    expect(status.currentRevision?.digest).toBe(digest);
    expect(status.pods).toEqual({ desired: 2, staged: 2, ready: 2, summary: '2/2' });
    expect(status.observedGeneration).toBe(1);
    expect(status.conditions?.map(({ type, status: is }) => [type, is])).toEqual([
      ['SourceResolved', 'True'],
      ['Placed', 'True'],
      ['Verified', 'True'],
      ['Loaded', 'True'],
      ['Ready', 'True'],
    ]);
  });

  it('is left alone when nothing changes: no write, no call, also after the operator starts anew', async () => {
    harness = await startHarness();
    harness.apply(loraAdapter('sql'));
    await harness.settle('sql');
    const before = [harness.world.statusWrites, ...harness.servers.map((server) => server.calls.length)];
    const { resolves, fetches } = harness.source;

    await harness.settle('sql');
    harness.forget();
    await harness.settle('sql');

    expect([harness.world.statusWrites, ...harness.servers.map((server) => server.calls.length)]).toEqual(
      before,
    );
    expect([harness.source.resolves, harness.source.fetches]).toEqual([resolves, fetches]);
  });

  it('is pinned: content that changes under one spec is rolled out only when the refresh annotation changes', async () => {
    harness = await startHarness();
    const first = digestOf(harness.source.files);
    harness.apply(loraAdapter('sql'));
    await harness.settle('sql');
    const second = harness.source.put(2);

    await harness.settle('sql');
    expect(served('sql')).toEqual([first, first]);

    harness.apply(loraAdapter('sql', { metadata: { annotations: { 'lorikeet.dev/refresh': 'now' } } }));
    await harness.settle('sql');
    expect(served('sql')).toEqual([second, second]);
    expect(harness.statusOf('sql').previousRevisions?.map(({ digest }) => digest)).toEqual([first]);
    expect(harness.adapters.get('lora/sql')?.metadata.annotations?.['lorikeet.dev/refreshed']).toBe('now');
  });

  it('keeps serving the old revision when the new one is bad, says so, and does not fetch it again', async () => {
    harness = await startHarness();
    const good = digestOf(harness.source.files);
    harness.apply(loraAdapter('sql'));
    await harness.settle('sql');

    harness.source.version = 'v2';
    harness.source.fetchError = new LorikeetError('shape_mismatch', 'wrong shape');
    const spec = { source: { objectStore: { uri: 's3://bucket/other/' } } };
    harness.apply(loraAdapter('sql', { metadata: { generation: 2 }, spec }));
    await harness.once('sql');
    await harness.once('sql');

    expect(harness.source.fetches).toBe(2);
    expect(served('sql')).toEqual([good, good]);
    expect(harness.conditionOf('sql', 'Ready')).toMatchObject({
      status: 'False',
      reason: 'AdapterIncompatible',
    });
    expect(harness.conditionOf('sql', 'Ready')?.message).toContain('keeps serving');
    expect(harness.statusOf('sql').currentRevision?.digest).toBe(good);
    expect(harness.statusOf('sql').observedGeneration).toBe(2);
  });

  it('is tried again after an outage of its source', async () => {
    harness = await startHarness();
    harness.source.nextError = new Retryable('SourceUnreachable', 'no answer');
    harness.apply(loraAdapter('sql'));

    const outcome = await harness.once('sql');

    expect(outcome.kind).toBe('again');
    expect(harness.conditionOf('sql', 'Ready')).toMatchObject({
      status: 'False',
      reason: 'SourceUnreachable',
    });
    await harness.settle('sql', () => harness.conditionOf('sql', 'Ready')?.status === 'True');
  });

  it('changes nothing while it is suspended, and is kept up in a pod that starts anew', async () => {
    harness = await startHarness();
    const first = digestOf(harness.source.files);
    harness.apply(loraAdapter('sql'));
    await harness.settle('sql');
    harness.source.put(2);
    const source = { objectStore: { uri: 's3://bucket/other/' } };

    harness.apply(loraAdapter('sql', { metadata: { generation: 2 }, spec: { suspend: true, source } }));
    await harness.settle('sql');
    await harness.servers[1]?.restart();
    await harness.settle('sql', () => served('sql')[1] !== null);

    expect(served('sql')).toEqual([first, first]);
    expect(harness.conditionOf('sql', 'Ready')?.reason).toBe('Suspended');
  });
});

describe('a source that is slow', () => {
  let clock: FakeClock;
  async function startSlow(): Promise<void> {
    harness = await startHarness();
    clock = new FakeClock();
    harness.deps.errands = new Errands({ clock, onAnswer: () => {} });
    harness.source.isSlow = true;
  }

  it('is not waited for by who looks at the adapter; status says so once it is worth a word', async () => {
    await startSlow();
    harness.apply(loraAdapter('sql'));
    await harness.once('sql');
    expect(harness.statusOf('sql')).toEqual({});
    await clock.advance(1_000);
    await harness.once('sql');
    expect(harness.source.resolves).toBe(1);
    expect(harness.conditionOf('sql', 'Ready')).toMatchObject({
      status: 'Unknown',
      reason: 'Pending',
      message: 'The source is being asked.',
    });
  });

  it('does not hold up the deletion of its adapter', async () => {
    await startSlow();
    harness.apply(loraAdapter('sql'));
    await harness.once('sql');
    harness.apply(loraAdapter('sql', { metadata: { deletionTimestamp: new Date().toISOString() } }));
    await harness.once('sql');
    expect(harness.adapters.has('lora/sql')).toBe(false);
  });

  it('does not keep what is served from a pod that starts anew', async () => {
    harness = await startHarness();
    harness.apply(loraAdapter('sql'));
    await harness.settle('sql');
    const digest = digestOf(harness.source.files);
    harness.source.isSlow = true;
    harness.emptySpool();
    harness.apply(loraAdapter('sql', { metadata: { annotations: { 'lorikeet.dev/refresh': 'now' } } }));
    await harness.servers[1]?.restart();
    await harness.settle('sql', () => served('sql')[1] === digest);
  });
});

describe('a pod that leaves', () => {
  const leave = () => {
    const [pod] = harness.kubePods.splice(1, 1);
    const metadata = { deletionTimestamp: new Date().toISOString() };
    if (pod) harness.kubePods.push({ ...pod, metadata: { ...pod.metadata, ...metadata } });
    harness.fleet.sync();
  };

  it('is not counted while it terminates', async () => {
    harness = await startHarness();
    harness.apply(loraAdapter('sql'));
    await harness.settle('sql');
    leave();
    await harness.settle('sql');
    expect(harness.statusOf('sql').pods?.summary).toBe('1/1');
    expect(harness.conditionOf('sql', 'Ready')?.message).toContain('on 1 pod.');
  });

  it('is not counted by a look that began before either', async () => {
    harness = await startHarness();
    harness.apply(loraAdapter('sql'));
    harness.deps.events = {
      event: (_object, _type, reason) => {
        if (reason === 'Activated') leave();
      },
    };
    await harness.once('sql');
    expect(harness.statusOf('sql').pods?.summary).toBe('1/1');
  });
});

describe('a served name', () => {
  it('belongs to the older object until that is gone', async () => {
    harness = await startHarness();
    harness.apply(loraAdapter('old', { spec: { servedName: 'sql' } }));
    const younger = { metadata: { creationTimestamp: '2026-06-02T00:00:00Z' }, spec: { servedName: 'sql' } };
    harness.apply(loraAdapter('young', younger));
    await harness.settle('young');
    expect(harness.conditionOf('young', 'Ready')?.reason).toBe('ServedNameTaken');
    expect(served('sql')).toEqual([null, null]);

    harness.adapters.delete('lora/old');
    await harness.settle('young');
    expect(harness.conditionOf('young', 'Ready')?.status).toBe('True');
  });

  it('may not be that of the base model', async () => {
    harness = await startHarness();
    harness.apply(loraAdapter('parrot'));
    await harness.settle('parrot');
    expect(harness.conditionOf('parrot', 'Ready')?.reason).toBe('ServedNameInvalid');
  });
});

describe('a pod that fails', () => {
  it('and refuses the content stops the revision everywhere, for good', async () => {
    harness = await startHarness();
    harness.servers[1]?.fail('stage', refusal('non_finite'), 100);
    harness.apply(loraAdapter('sql'));
    await harness.settle('sql');
    await harness.settle('sql');

    expect(served('sql')).toEqual([null, null]);
    expect(harness.servers[1]?.count('stage')).toBe(1);
    expect(harness.conditionOf('sql', 'Ready')).toMatchObject({
      status: 'False',
      reason: 'AdapterMalformed',
    });
    expect(harness.statusOf('sql').podErrors).toEqual([
      { name: 'pod-1', reason: 'non_finite', message: 'scripted' },
    ]);
  });

  it('and refuses a new revision leaves the last good one in pods that restart', async () => {
    harness = await startHarness();
    const good = digestOf(harness.source.files);
    harness.apply(loraAdapter('sql'));
    await harness.settle('sql');
    harness.source.put(2);
    harness.servers[1]?.fail('stage', refusal('shape_mismatch'), 100);
    harness.apply(loraAdapter('sql', { metadata: { annotations: { 'lorikeet.dev/refresh': 'now' } } }));
    await harness.settle('sql');
    expect(served('sql')).toEqual([good, good]);

    harness.servers[1]?.heal();
    await harness.servers[0]?.restart();
    await harness.settle('sql', () => served('sql')[0] === good);
    expect(harness.conditionOf('sql', 'Ready')).toMatchObject({
      status: 'False',
      reason: 'AdapterIncompatible',
    });
  });

  it('for the moment is tried again, and the others do not wait for it', async () => {
    harness = await startHarness();
    const digest = digestOf(harness.source.files);
    harness.servers[1]?.fail('stage', refusal('internal'));
    harness.apply(loraAdapter('sql'));
    await harness.once('sql');

    expect(served('sql')).toEqual([digest, null]);
    expect(harness.conditionOf('sql', 'Ready')).toMatchObject({ status: 'False', reason: 'PodsFailed' });
    expect(harness.statusOf('sql').podErrors?.[0]).toMatchObject({ name: 'pod-1', reason: 'internal' });
    expect(harness.statusOf('sql').podErrors?.[0]?.retryAt).toBeDefined();
    await harness.settle('sql', () => harness.conditionOf('sql', 'Ready')?.status === 'True');
    expect(harness.statusOf('sql').podErrors).toEqual([]);
  });

  it('and hangs costs a bounded time', async () => {
    harness = await startHarness();
    const digest = digestOf(harness.source.files);
    harness.servers[1]?.fail('stage', { kind: 'hang' }, 100);
    harness.apply(loraAdapter('sql'));
    const startMs = performance.now();

    await harness.once('sql');

    expect(performance.now() - startMs).toBeLessThan(3_000);
    expect(served('sql')).toEqual([digest, null]);
    expect(harness.conditionOf('sql', 'Ready')).toMatchObject({
      status: 'Unknown',
      reason: 'PodsUnreachable',
    });
  });

  it('and hangs for long is told of before staging ends', async () => {
    harness = await startHarness([{}]);
    harness.deps.clock = { ...systemClock, after: (ms, run) => systemClock.after(Math.min(ms, 20), run) };
    harness.servers[0]?.fail('stage', { kind: 'hang' }, 100);
    harness.apply(loraAdapter('sql'));
    const looking = harness.once('sql');
    await expect.poll(() => harness.conditionOf('sql', 'Loaded')?.reason).toBe('Loading');
    expect(harness.conditionOf('sql', 'Verified')?.status).toBe('True');
    await looking;
    expect(harness.conditionOf('sql', 'Loaded')?.reason).toBe('PodsUnreachable');
  });

  it('after it did what it was asked is believed by what it reports', async () => {
    harness = await startHarness();
    harness.servers[1]?.fail('activate', { kind: 'lostReply' });
    harness.apply(loraAdapter('sql'));

    await harness.settle('sql', () => harness.conditionOf('sql', 'Ready')?.status === 'True');

    expect(harness.servers[1]?.count('activate')).toBe(1);
  });

  it('and comes back empty gets all of it again, from the spool', async () => {
    harness = await startHarness();
    const digest = digestOf(harness.source.files);
    harness.apply(loraAdapter('sql'));
    await harness.settle('sql');
    await harness.servers[1]?.restart();

    await harness.settle('sql', () => served('sql')[1] === digest);

    expect(harness.source.fetches).toBe(1);
    await harness.settle('sql', () => harness.conditionOf('sql', 'Ready')?.status === 'True');
  });
});

describe('a refusal ends with its cause', () => {
  it('when the pod that spoke it is gone', async () => {
    harness = await startHarness([{}, {}, { maxRank: 4 }]);
    const [small] = harness.kubePods.splice(2);
    harness.fleet.sync();
    harness.apply(loraAdapter('sql'));
    await harness.settle('sql');
    if (small) harness.kubePods.push(small);
    harness.fleet.sync();
    await harness.fleet.whenHeard(2_000);
    await harness.settle('sql');
    expect(harness.conditionOf('sql', 'Ready')).toMatchObject({ status: 'False', reason: 'RankTooLarge' });

    harness.kubePods.pop();
    harness.fleet.sync();
    await harness.settle('sql');
    expect(harness.conditionOf('sql', 'Ready')).toMatchObject({ status: 'True', reason: 'Ready' });
    expect(harness.statusOf('sql').pods?.summary).toBe('2/2');
  });

  it('when the pod that spoke it has started anew', async () => {
    harness = await startHarness();
    harness.servers[1]?.fail('stage', refusal('rank_too_large'));
    harness.apply(loraAdapter('sql'));
    await harness.settle('sql');
    expect(harness.conditionOf('sql', 'Ready')?.reason).toBe('RankTooLarge');

    await harness.servers[1]?.restart();
    await harness.settle('sql', () => harness.conditionOf('sql', 'Ready')?.status === 'True');
    const digest = digestOf(harness.source.files);
    expect(served('sql')).toEqual([digest, digest]);
  });

  it('when another pod that also spoke it stays, not yet', async () => {
    harness = await startHarness([{}, {}, {}]);
    for (const index of [1, 2]) {
      harness.servers[index]?.fail('stage', refusal('rank_too_large'), 100);
    }
    harness.apply(loraAdapter('sql'));
    await harness.settle('sql');
    harness.kubePods.splice(1, 1);
    harness.fleet.sync();
    await harness.settle('sql');
    expect(harness.conditionOf('sql', 'Ready')?.reason).toBe('RankTooLarge');
    expect(served('sql')[0]).toBeNull();
  });

  it('when the limits of the pool that it was held against are others', async () => {
    harness = await startHarness();
    const port = harness.servers[0]?.port ?? 0;
    harness.pools.set(POOL_KEY, serverPool(port, { limits: { maxRank: 4 } }));
    harness.source.fetchError = new LorikeetError('rank_too_large', 'Expected at most 4');
    harness.apply(loraAdapter('sql'));
    await harness.once('sql');
    await harness.once('sql');
    expect(harness.conditionOf('sql', 'Ready')?.reason).toBe('RankTooLarge');
    expect(harness.source.fetches).toBe(1);

    harness.source.fetchError = null;
    harness.pools.set(POOL_KEY, serverPool(port, { limits: { maxRank: 16 } }));
    await harness.once('sql');
    expect(harness.conditionOf('sql', 'Ready')?.status).toBe('True');
  });
});

describe('the bytes of a pinned revision', () => {
  it.each([
    ['', {}],
    // Near the most that a pod takes in a header.
    [', with a config of 24 kB', { base_model_name_or_path: 'x'.repeat(23_600) }],
  ])('come from a pod where spool and source have lost them%s', async (_name, config) => {
    harness = await startHarness();
    harness.source.files = goodAdapter(1, config);
    const digest = digestOf(harness.source.files);
    harness.apply(loraAdapter('sql'));
    await harness.settle('sql');
    harness.source.put(2);
    harness.emptySpool();
    await harness.servers[1]?.restart();

    await harness.settle('sql', () => served('sql')[1] === digest);

    expect(harness.servers[0]?.count('fetch')).toBe(1);
  });

  it('may be lost: then that is said, and no other content is taken for them', async () => {
    harness = await startHarness([{}]);
    harness.apply(loraAdapter('sql'));
    await harness.settle('sql');
    harness.source.files = goodAdapter(2);
    harness.source.version = 'v2';
    harness.emptySpool();
    await harness.servers[0]?.restart();

    await harness.settle('sql', () => harness.conditionOf('sql', 'Ready')?.reason === 'RevisionLost');

    expect(served('sql')).toEqual([null]);
  });
});
