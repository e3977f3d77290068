import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { pollAfterMs } from '../../../operator/adapter/poll.ts';
import { Vigil } from '../../../operator/adapter/vigil.ts';
import { systemClock } from '../../../operator/kube/clock.ts';
import { Retryable } from '../../../operator/source/types.ts';
import { LorikeetError } from '../../../server/contract/errors.ts';
import { digestOf } from '../../support/adapter-files.ts';
import { type Harness, startHarness } from './harness.ts';
import { loraAdapter } from './objects.ts';

const INTERVAL_MS = 60_000;
const polled = { spec: { refresh: { mode: 'Poll', interval: '1m' } } };

let harness: Harness;
let skipMs: number;

beforeEach(async () => {
  harness = await startHarness();
  skipMs = 0;
  harness.deps.clock = { ...systemClock, monotonicMs: () => systemClock.monotonicMs() + skipMs };
  harness.deps.vigil = new Vigil(harness.deps.clock);
  harness.apply(loraAdapter('sql', polled));
  await serves(digestOf(harness.source.files));
});
afterEach(() => harness.stop());

const served = () => harness.servers.map((server) => server.currentOf('sql'));
const resolvedOf = () => harness.conditionOf('sql', 'SourceResolved');

async function serves(digest: string): Promise<void> {
  await harness.settle(
    'sql',
    () => served().every((is) => is === digest) && harness.conditionOf('sql', 'Ready')?.status === 'True',
  );
}

/** So much later, looks once. */
async function later(ms: number) {
  skipMs += ms;
  return await harness.once('sql');
}

describe('a source that is polled', () => {
  it('is asked no sooner than the interval, and while nothing changes, nothing is written or fetched', async () => {
    const { resolves, fetches } = harness.source;
    const { statusWrites } = harness.world;
    const pods = harness.servers.map((server) => server.calls.length);

    expect(await later(0)).toMatchObject({ kind: 'again' });
    await later(INTERVAL_MS / 2);
    expect(harness.source.resolves).toBe(resolves);
    for (let times = 1; times <= 3; times += 1) {
      await later(INTERVAL_MS);
      expect(harness.source.resolves).toBe(resolves + times);
    }
    expect(harness.source.fetches).toBe(fetches);
    expect(harness.world.statusWrites).toBe(statusWrites);
    expect(harness.servers.map((server) => server.calls.length)).toEqual(pods);
  });

  it('is asked again when the look before said that it would be', async () => {
    const outcome = await later(0);
    const { resolves } = harness.source;
    await later(outcome.kind === 'again' ? outcome.afterMs : 0);
    expect(harness.source.resolves).toBe(resolves + 1);
  });

  it('is rolled out when it has other content, and keeps the revision before', async () => {
    const first = digestOf(harness.source.files);
    const second = harness.source.put(2);
    await later(INTERVAL_MS);
    await serves(second);
    expect(harness.statusOf('sql').previousRevisions?.map(({ digest }) => digest)).toEqual([first]);
    expect(resolvedOf()?.message).toBe('s3://bucket/sql/ is at v2');
  });

  it('that is gone is told of in SourceResolved; what is served stays, and is Ready', async () => {
    const digest = digestOf(harness.source.files);
    harness.source.nextError = new Retryable('SourceNotFound', 'There is no s3://bucket/sql/.');
    await later(INTERVAL_MS);
    await later(0);

    expect(resolvedOf()).toMatchObject({
      status: 'False',
      reason: 'SourceNotFound',
      message: 'There is no s3://bucket/sql/.',
    });
    expect(served()).toEqual([digest, digest]);
    expect(harness.conditionOf('sql', 'Ready')?.status).toBe('True');

    await later(INTERVAL_MS);
    expect(resolvedOf()).toMatchObject({ status: 'True', message: 's3://bucket/sql/ is at v1' });
    expect(harness.source.fetches).toBe(1);
  });

  it('with new content that is bad keeps what is served, does not fetch it twice, and takes what comes next', async () => {
    const good = digestOf(harness.source.files);
    harness.source.version = 'v2';
    harness.source.fetchError = new LorikeetError('shape_mismatch', 'wrong shape');
    for (let times = 0; times < 3; times += 1) await later(INTERVAL_MS);

    expect(harness.source.fetches).toBe(2);
    expect(served()).toEqual([good, good]);
    expect(harness.conditionOf('sql', 'Verified')).toMatchObject({
      status: 'False',
      reason: 'AdapterIncompatible',
    });
    expect(harness.conditionOf('sql', 'Ready')?.message).toContain('keeps serving');

    harness.source.fetchError = null;
    const third = harness.source.put(3);
    await later(INTERVAL_MS);
    await serves(third);
  });

  it('with bad content that is taken back is as it was', async () => {
    harness.source.version = 'v2';
    harness.source.fetchError = new LorikeetError('shape_mismatch', 'wrong shape');
    await later(INTERVAL_MS);
    harness.source.version = 'v1';
    await later(INTERVAL_MS);
    await harness.once('sql');
    expect(harness.conditionOf('sql', 'Verified')?.status).toBe('True');
    expect(harness.conditionOf('sql', 'Ready')?.status).toBe('True');
    expect(harness.source.fetches).toBe(2);
  });

  it('is polled on by an operator that starts anew, without a write', async () => {
    const { statusWrites } = harness.world;
    const { resolves } = harness.source;
    harness.forget();
    await later(0);
    expect(harness.source.resolves).toBe(resolves);
    await later(INTERVAL_MS);
    expect([harness.source.resolves, harness.world.statusWrites]).toEqual([resolves + 1, statusWrites]);
  });

  it('is not asked while it is suspended', async () => {
    const { resolves } = harness.source;
    harness.apply(loraAdapter('sql', { spec: { ...polled.spec, suspend: true } }));
    await later(10 * INTERVAL_MS);
    expect(harness.source.resolves).toBe(resolves);
  });
});

describe('the time until the next look', () => {
  const looked = { atMs: 1_000, random: 0.5 };
  it.each([
    ['is the interval', 'Poll', looked, 1_000, INTERVAL_MS],
    ['is a tenth less at the least', 'Poll', { ...looked, random: 0 }, 1_000, 54_000],
    ['is a tenth more at the most', 'Poll', { ...looked, random: 1 }, 1_000, 66_000],
    ['is what is left of it', 'Poll', looked, 31_000, 30_000],
    ['is over', 'Poll', looked, 100_000, 0],
    ['never comes where content is pinned', 'Pinned', looked, 100_000, null],
  ])('%s', (_, mode, since, nowMs, afterMs) => {
    const adapter = loraAdapter('sql', { spec: { refresh: { mode, interval: '1m' } } });
    const found = pollAfterMs(adapter, since, nowMs);
    expect(found === null ? null : Math.round(found)).toBe(afterMs);
  });
});
