import { afterEach, describe, expect, it } from 'vitest';
import { Errands } from '../../../operator/source/errands.ts';
import { Retryable } from '../../../operator/source/types.ts';
import { LorikeetError } from '../../../server/contract/errors.ts';
import { digestOf } from '../../support/adapter-files.ts';
import { FakeClock } from '../kube/fake-clock.ts';
import { type Harness, startHarness } from './harness.ts';
import { loraAdapter } from './objects.ts';

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

  it('is refreshed by the next operator where this one ends before status tells what it found', async () => {
    harness = await startHarness();
    harness.apply(loraAdapter('sql'));
    await harness.settle('sql');
    const { status } = harness.deps;
    harness.source.put(2);
    harness.apply(loraAdapter('sql', { metadata: { annotations: { 'lorikeet.dev/refresh': 'now' } } }));
    harness.deps.status = { write: () => {} };
    await harness.once('sql');

    harness.deps.status = status;
    harness.forget();
    await harness.settle('sql');
    const digest = digestOf(harness.source.files);
    expect(harness.servers.map((server) => server.currentOf('sql'))).toEqual([digest, digest]);
    expect(harness.statusOf('sql').currentRevision?.digest).toBe(digest);
  });

  it('is not taken back by the next operator where this one ends before status tells what it activated', async () => {
    harness = await startHarness();
    harness.apply(loraAdapter('sql'));
    await harness.settle('sql');
    const { status } = harness.deps;
    const newer = harness.source.put(2);
    harness.apply(loraAdapter('sql', { metadata: { annotations: { 'lorikeet.dev/refresh': 'now' } } }));
    harness.deps.status = { write: () => {} };
    await harness.once('sql');
    await expect.poll(() => served('sql')).toEqual([newer, newer]);
    const activations = harness.servers.map((server) => server.count('activate'));

    harness.deps.status = status;
    harness.forget();
    await harness.settle('sql');
    expect(harness.servers.map((server) => server.count('activate'))).toEqual(activations);
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

  it('is told of later by those that wait for their turn to ask it', async () => {
    await startSlow();
    const limits = { total: 1, perTenant: 1, perHost: 1 };
    harness.deps.errands = new Errands({ limits, clock, onAnswer: () => {} });
    const names = ['sql', 'json'];
    const lookAtBoth = async (afterMs: number) => {
      await clock.advance(afterMs);
      for (const name of names) await harness.once(name);
      return names.map((name) => harness.conditionOf(name, 'Ready')?.reason);
    };
    for (const name of names) harness.apply(loraAdapter(name));
    await lookAtBoth(0);
    expect(await lookAtBoth(1_000)).toEqual(['Pending', undefined]);
    expect(await lookAtBoth(9_000)).toEqual(['Pending', 'Pending']);
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
