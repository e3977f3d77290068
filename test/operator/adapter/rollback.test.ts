import { afterEach, describe, expect, it } from 'vitest';
import type { Rollback, RollbackResult } from '../../../operator/adapter/publish/publication.ts';
import { refusal } from '../../support/pod/fault.ts';
import type { ScriptedPod } from '../../support/pod/scripted-pod.ts';
import { type Harness, startHarness } from './harness.ts';
import { kubePod, loraAdapter, pushedAdapter } from './objects.ts';
import { digestOfSeed, Trainer } from './trainer.ts';

let harness: Harness;
let trainer: Trainer;

async function start(pods?: Parameters<typeof startHarness>[0], spec: Record<string, unknown> = {}) {
  harness = await startHarness(pods);
  trainer = new Trainer(harness);
  harness.apply(pushedAdapter('policy', { spec }));
}

afterEach(() => harness.stop());

const [A, B, C] = [digestOfSeed(1), digestOfSeed(2), digestOfSeed(3)] as [string, string, string];

async function pushed(...seeds: number[]): Promise<void> {
  for (const seed of seeds) await trainer.push(seed, { step: seed });
  await harness.settle('policy');
}

function back(order: Partial<Rollback> = {}): Promise<RollbackResult> {
  const { signal } = new AbortController();
  const who = { namespace: 'lora', name: 'policy', askedBy: 'ops' };
  return trainer.publisher.rollback({ ...who, to: undefined, expectCurrent: null, signal, ...order });
}

/** The leader is gone with all that it knew, its spool too where it was in its pod. */
function succeed({ withSpool = false } = {}): void {
  harness.forget();
  if (withSpool) harness.emptySpool();
  harness.world.term = (harness.world.term ?? 0) + 1;
}

const served = () => harness.servers.map((server) => server.currentOf('policy'));
const reported = () =>
  harness.fleet.podsOf('lora/parrot').map(({ state }) => state?.adapters[0]?.current ?? null);
const code = (expected: string) => expect.objectContaining({ code: expected });

describe('a rollback', () => {
  it('makes the earlier revision current in every pod, and says so', async () => {
    await start();
    await pushed(1, 2);
    const result = await back();
    expect(served()).toEqual([A, A]);
    expect(result).toMatchObject({ revision: A, step: 1, noop: false, previous: B });
    expect(result.pods.map(({ state }) => state)).toEqual(['active', 'active']);
    await harness.settle('policy');
    const { desiredRevision, currentRevision, previousRevisions } = harness.statusOf('policy');
    expect(desiredRevision).toMatchObject({
      digest: A,
      step: 1,
      pushedBy: 'trainer',
      rollback: { from: B, reachedStep: 2, by: 'ops' },
    });
    expect(currentRevision?.digest).toBe(A);
    expect(previousRevisions?.map(({ digest }) => digest)).toEqual([B]);
    expect(harness.conditionOf('policy', 'Ready')?.status).toBe('True');
    expect(harness.conditionOf('policy', 'SourceResolved')?.message).toBe(
      `pushed by trainer, step 1, rolled back from ${B.slice(7, 19)}`,
    );
    const told = `Normal RolledBack ${A.slice(7, 19)} is desired again instead of ${B.slice(7, 19)}, as ops asked`;
    expect(harness.world.events.filter((event) => event.includes('RolledBack'))).toEqual([told]);
  });

  it('asked for again without a revision stays, also by another operator; with one it goes there', async () => {
    await start();
    await pushed(1, 2, 3);
    await back();
    expect(await back()).toMatchObject({ revision: B, noop: true, previous: B });
    expect(await back({ expectCurrent: C })).toMatchObject({ revision: B, noop: true });
    await harness.settle('policy');
    succeed();
    expect(await back()).toMatchObject({ revision: B, noop: true });
    expect(await back({ to: 1 })).toMatchObject({ revision: A, noop: false, previous: B });
    expect(await back({ to: C })).toMatchObject({ revision: C, noop: false, previous: A });
    expect(served()).toEqual([C, C]);
  });

  it('to what is desired by a push changes nothing: the next one still goes back', async () => {
    await start();
    await pushed(1, 2);
    expect(await back({ to: B })).toMatchObject({ noop: true, previous: B });
    expect(await back()).toMatchObject({ revision: A, noop: false });
  });

  it('is undone by the next push, which needs a step above all before', async () => {
    await start();
    await pushed(1, 2);
    await back();
    await expect(trainer.push(3, { step: 2 })).rejects.toThrow(code('step_not_newer'));
    expect(served()).toEqual([A, A]);
    await trainer.push(3, { step: 3 });
    expect(served()).toEqual([C, C]);
    await harness.settle('policy');
    expect(harness.statusOf('policy').desiredRevision?.rollback).toBeUndefined();
    expect(await back()).toMatchObject({ revision: A, previous: C });
  });

  it('is undone by a push of the same tensors with a newer step', async () => {
    await start();
    await pushed(1, 2);
    await back();
    await trainer.push(1, { step: 3 });
    await harness.settle('policy');
    expect(harness.statusOf('policy').desiredRevision).toMatchObject({ digest: A, step: 3 });
    expect(harness.statusOf('policy').desiredRevision?.rollback).toBeUndefined();
    expect(await back()).toMatchObject({ revision: B, noop: false });
  });

  it('goes only to what is kept, and says what that is', async () => {
    await start(undefined, { update: { keepRevisions: 1 } });
    await expect(back()).rejects.toThrow(code('revision_not_found'));
    await pushed(1, 2, 3);
    harness.emptySpool();
    const kept = [{ revision: B, step: 2 }];
    await expect(back({ to: 1 })).rejects.toMatchObject({ code: 'revision_not_found', expected: kept });
    await expect(back({ to: digestOfSeed(9) })).rejects.toThrow(code('revision_not_found'));
    expect(served()).toEqual([C, C]);
  });

  it('where another revision is desired than expected changes nothing', async () => {
    await start();
    await pushed(1, 2);
    await expect(back({ expectCurrent: A })).rejects.toThrow(code('precondition_failed'));
    expect(served()).toEqual([B, B]);
    expect(await back({ expectCurrent: B })).toMatchObject({ revision: A });
  });

  it('tells pods what the spec says of running requests', async () => {
    await start(undefined, { update: { inFlight: 'Migrate' } });
    await pushed(1, 2);
    await back();
    expect(harness.servers.map(({ engine }) => engine.migrated)).toEqual([
      [B, A],
      [B, A],
    ]);
  });

  it('is left to whoever owns the object where the tensors lie in a store', async () => {
    await start([{}]);
    harness.apply(loraAdapter('policy'));
    await expect(back()).rejects.toThrow(/change spec\.source/);
    await expect(back()).rejects.toThrow(code('not_push_source'));
  });
});

describe('pods that lack the revision', () => {
  it('are given it before any serves it, from a pod where no spool has it', async () => {
    await start();
    await pushed(1, 2);
    harness.emptySpool();
    await harness.servers[1]?.restart();
    await harness.settle('policy', () => served()[1] === B);
    const result = await back();
    expect(result.pods.map(({ state }) => state)).toEqual(['active', 'active']);
    expect(served()).toEqual([A, A]);
  });

  it('are given it from the spool where no pod has it', async () => {
    await start([{}]);
    await pushed(1, 2);
    await harness.servers[0]?.restart();
    await harness.settle('policy', () => served()[0] === B);
    expect(await back()).toMatchObject({ revision: A });
    expect(served()).toEqual([A]);
  });

  it('and refuse it for what it is keep it from all', async () => {
    await start();
    await pushed(1, 2);
    await harness.servers[1]?.restart();
    await harness.settle('policy', () => served()[1] === B);
    harness.servers[1]?.fail('stage', refusal('rank_too_large'));
    await expect(back()).rejects.toThrow(code('rank_too_large'));
    expect(served()).toEqual([B, B]);
  });

  it('and fail for the moment are named, and follow', async () => {
    await start();
    await pushed(1, 2);
    await harness.servers[1]?.restart();
    await harness.settle('policy', () => served()[1] === B);
    harness.servers[1]?.fail('stage', refusal('internal'));
    const result = await back();
    expect(result.pods.map(({ state }) => state)).toEqual(['active', 'failed']);
    await harness.settle('policy', () => served()[1] === A);
  });
});

describe('a push', () => {
  it('that is accepted while pods are given the revision leaves nothing to roll back from', async () => {
    await start();
    await pushed(1, 2);
    await harness.servers[1]?.restart();
    await harness.settle('policy', () => served()[1] === B);
    const publication = await trainer.stageEverywhere(3, { step: 3 });
    const { reached, release } = gateStaging(harness.servers[1] as ScriptedPod);
    const rollingBack = expect(back()).rejects.toThrow(code('superseded'));
    await reached;
    const publishing = trainer.publisher.publish({ ...publication, staged: publication.staged.slice(0, 1) });
    release();
    await Promise.all([publishing, rollingBack]);
    await harness.settle('policy', () => served().every((digest) => digest === C));
  });
});

/** Holds the next staging back. */
function gateStaging({ engine }: ScriptedPod): { reached: Promise<void>; release: () => void } {
  const reached = Promise.withResolvers<void>();
  const gate = Promise.withResolvers<void>();
  const pass = () => {
    Object.defineProperty(engine, 'gate', { value: null });
    reached.resolve();
    return gate.promise;
  };
  Object.defineProperty(engine, 'gate', { configurable: true, get: pass });
  return { reached: reached.promise, release: gate.resolve };
}

describe('what was rolled back to', () => {
  it('is what a pod gets that was away meanwhile', async () => {
    await start();
    await pushed(1, 2);
    harness.servers[1]?.fail('activate', { kind: 'hang' });
    expect((await back()).pods.map(({ state }) => state)).toEqual(['active', 'failed']);
    expect(served()).toEqual([A, B]);
    await harness.settle('policy', () => served()[1] === A);
  });

  it('is what a new pod gets', async () => {
    await start([{}, {}]);
    harness.kubePods.splice(1);
    harness.fleet.sync();
    await pushed(1, 2);
    await back();
    succeed({ withSpool: true });
    harness.kubePods.push(kubePod('pod-1', '127.0.1.2', { uid: 'uid-new' }));
    harness.fleet.sync();
    await harness.fleet.whenHeard(2_000);
    await harness.settle('policy', () => served()[1] === A);
    expect(served()).toEqual([A, A]);
  });

  it('outlives a leader that died before it wrote status, and so does that it was a rollback', async () => {
    await start();
    await pushed(1);
    await trainer.push(2, { step: 2 });
    await back();
    await expect.poll(reported).toEqual([A, A]);
    succeed();
    await harness.settle('policy');
    expect(served()).toEqual([A, A]);
    expect(harness.statusOf('policy').desiredRevision).toMatchObject({
      digest: A,
      rollback: { from: B, reachedStep: 2 },
    });
    expect(await back()).toMatchObject({ revision: A, noop: true });
    await expect(trainer.push(3, { step: 2 })).rejects.toThrow(code('step_not_newer'));
    await trainer.push(3, { step: 3 });
    expect(served()).toEqual([C, C]);
  });

  it('is brought to pods by the successor where the leader died between status and activation', async () => {
    await start();
    await pushed(1, 2);
    for (const server of harness.servers) server.fail('activate', refusal('internal'));
    await expect(back()).rejects.toThrow(code('pod_failed'));
    await harness.once('policy');
    expect(harness.statusOf('policy').desiredRevision?.digest).toBe(A);
    expect(served()).toEqual([B, B]);
    succeed({ withSpool: true });
    await harness.settle('policy', () => served().every((digest) => digest === A));
  });
});
