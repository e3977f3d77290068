import { afterEach, describe, expect, it, vi } from 'vitest';
import { Vigil } from '../../../operator/adapter/vigil.ts';
import { systemClock } from '../../../operator/kube/clock.ts';
import { silentLog } from '../../../operator/kube/log.ts';
import { noAnswer } from '../../../operator/source/no-answer.ts';
import { Retryable, type SourceReason } from '../../../operator/source/types.ts';
import { LorikeetError } from '../../../server/contract/errors.ts';
import { digestOf, goodAdapter } from '../../support/adapter-files.ts';
import { refusal } from '../../support/pod/fault.ts';
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

  it('is tried again also where the time for it came while another pod was waited for', async () => {
    harness = await startHarness();
    const digest = digestOf(harness.source.files);
    const monotonicMs = systemClock.monotonicMs.bind(systemClock);
    const passed = () => (harness.servers[0]?.currentOf('sql') === digest ? 10_000 : 0);
    const clock = vi.spyOn(systemClock, 'monotonicMs').mockImplementation(() => monotonicMs() + passed());
    harness.servers[1]?.fail('stage', refusal('internal'));
    harness.apply(loraAdapter('sql'));
    const outcome = await harness.once('sql');
    clock.mockRestore();

    expect(served('sql')).toEqual([digest, null]);
    expect(outcome).toEqual({ kind: 'again', afterMs: 1 });
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

describe('a source that people are to put right', () => {
  const secretRef = {
    source: { objectStore: { uri: 's3://bucket/sql/', credentialsSecretRef: { name: 'minio' } } },
  };

  /** So many looks that fail, each at the time that the one before named; returns how long the last waited. */
  async function failing(reason: SourceReason, looks: number): Promise<number> {
    let waitedMs = 0;
    const { deps, source } = harness;
    const startMs = Math.round(systemClock.monotonicMs());
    deps.clock = { ...systemClock, monotonicMs: () => startMs + waitedMs };
    deps.vigil = new Vigil(deps.clock);
    let lastMs = 0;
    for (let look = 0; look < looks; look += 1) {
      source.nextError = new Retryable(reason, 'scripted');
      const outcome = await harness.once('sql');
      lastMs = outcome.kind === 'again' ? outcome.afterMs : Number.POSITIVE_INFINITY;
      waitedMs += Math.ceil(lastMs);
    }
    return lastMs;
  }

  it.each<SourceReason>(['CredentialsNotFound', 'CredentialsForbidden', 'SourceAccessDenied'])(
    'is looked at every few seconds, however long it takes: %s',
    async (reason) => {
      harness = await startHarness();
      harness.apply(loraAdapter('sql', { spec: secretRef }));
      expect(await failing(reason, 12)).toBeLessThanOrEqual(10_000);
      expect(harness.source.resolves).toBe(12);
      await harness.settle('sql', () => harness.conditionOf('sql', 'Ready')?.status === 'True');
    },
  );

  it('is told of in the log when it fails otherwise than before, with what the condition does not say', async () => {
    harness = await startHarness();
    const told: object[] = [];
    const warn = (fields: object, what: string) => void (what === 'the source failed' && told.push(fields));
    harness.deps.log = { ...silentLog, warn };
    let nowMs = systemClock.monotonicMs();
    harness.deps.clock = { ...systemClock, monotonicMs: () => nowMs };
    harness.apply(loraAdapter('sql'));
    for (const code of ['ECONNREFUSED', 'ECONNREFUSED', 'timeout']) {
      harness.source.nextError = noAnswer(code);
      await harness.once('sql');
      nowMs += 600_000;
    }
    const message = 'The source does not answer.';
    const about = { adapter: 'lora/sql', reason: 'SourceUnreachable', message };
    expect(told).toEqual([
      { ...about, code: 'ECONNREFUSED' },
      { ...about, code: 'timeout' },
    ]);
    expect(harness.conditionOf('sql', 'SourceResolved')).toMatchObject({ message });
  });

  it.each<[SourceReason, Record<string, unknown>]>([
    ['SourceUnreachable', secretRef],
    ['SourceNotFound', secretRef],
    ['SourceAccessDenied', {}],
  ])('is not where nothing of ours is: %s', async (reason, spec) => {
    harness = await startHarness();
    harness.apply(loraAdapter('sql', { spec }));
    expect(await failing(reason, 12)).toBeGreaterThan(60_000);
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
