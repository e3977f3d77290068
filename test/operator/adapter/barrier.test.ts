import { setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { plan } from '../../../operator/adapter/plan.ts';
import { eventually } from '../../support/eventually.ts';
import { FakePod, type FakePodOptions } from '../../support/pod/fake-pod.ts';
import { refusal } from '../../support/pod/fault.ts';
import { adapterState, digest, held } from '../../support/pod/state.ts';
import { type Harness, startHarness } from './harness.ts';
import { loraAdapter, POOL_KEY, pushedAdapter } from './objects.ts';
import { digestOfSeed, Trainer } from './trainer.ts';

const D = digest('d');
const OLD = digest('e');
const PODS: Record<string, FakePodOptions> = {
  current: { adapters: [adapterState('sql', D)] },
  held: { adapters: [adapterState('sql', OLD, [held(OLD, 'current'), held(D, 'staged')])] },
  lacking: { adapters: [adapterState('sql', OLD)] },
  silent: { state: null },
};

it('a swap behind a barrier begins nowhere before all pods hold the revision, and then goes on', () => {
  const kinds = fc.array(fc.constantFrom(...Object.keys(PODS)), { maxLength: 6 });
  fc.assert(
    fc.property(kinds, (all) => {
      const pods = all.map((kind, index) => new FakePod({ name: `pod-${index}`, ...PODS[kind] }));
      const common = { servedName: 'sql', digest: D, pods, attemptOf: () => null, confirmedBy: () => null };
      const actions = (isBarrier: boolean) =>
        plan({ ...common, isBarrier, refusedSomewhere: false, onlyWhereNothing: false, nowMs: 0 }).map(
          ({ action }) => action,
        );
      const mayBegin = all.includes('current') || all.every((kind) => kind === 'held');
      const expected = actions(false).map((action) => (action === 'activate' && !mayBegin ? 'hold' : action));
      expect(actions(true)).toEqual(expected);
    }),
  );
});

describe('with a barrier', () => {
  let harness: Harness;

  afterEach(async () => {
    await harness.stop();
  });

  const served = (name: string) => harness.servers.map((server) => server.currentOf(name));
  const update = (consistency: string, maxSkew = '500ms') => ({ update: { consistency, maxSkew } });

  it('a pod that cannot take the revision holds the swap of all up, and is named', async () => {
    harness = await startHarness();
    const first = harness.source.put(1);
    harness.apply(loraAdapter('sql', { spec: update('Barrier') }));
    await harness.settle('sql');
    expect(served('sql')).toEqual([first, first]);

    const second = harness.source.put(2);
    harness.servers[1]?.fail('stage', refusal('no_capacity'), Number.POSITIVE_INFINITY);
    const metadata = { generation: 2, annotations: { 'lorikeet.dev/refresh': '1' } };
    harness.apply(loraAdapter('sql', { metadata, spec: update('Barrier') }));
    const staged = () => harness.statusOf('sql').pods?.staged === 1;
    await harness.settle('sql', staged);
    for (let pass = 0; pass < 5; pass += 1) await harness.once('sql');
    expect(served('sql')).toEqual([first, first]);
    expect(harness.conditionOf('sql', 'Loaded')).toMatchObject({ status: 'False', reason: 'NoCapacity' });
    expect(harness.conditionOf('sql', 'Loaded')?.message).toContain('pod-1');

    harness.servers[1]?.heal();
    await harness.settle('sql', () => served('sql').every((revision) => revision === second));
    await harness.settle('sql');
    // In one burst.
    expect(harness.statusOf('sql').lastSwap?.pods).toBe(2);
  });

  it('a push is taken by all pods or refused, and changes nothing then', async () => {
    harness = await startHarness();
    harness.apply(pushedAdapter('policy', { spec: update('Barrier') }));
    const trainer = new Trainer(harness);
    await trainer.push(1);
    harness.servers[1]?.fail('upload', refusal('internal'));
    await expect(trainer.push(2)).rejects.toMatchObject({
      code: 'pod_failed',
      actual: [{ pod: 'pod-1', code: 'internal' }],
      message: expect.stringMatching(/did not: pod-1 \(.+\)\. Nothing was changed: try again once they can/),
    });
    await harness.settle('policy');
    expect(served('policy')).toEqual([digestOfSeed(1), digestOfSeed(1)]);
    expect(harness.statusOf('policy').desiredRevision?.digest).toBe(digestOfSeed(1));
    const { swap } = await trainer.push(2);
    expect(served('policy')).toEqual([digestOfSeed(2), digestOfSeed(2)]);
    expect(swap?.skewMs).toBeGreaterThanOrEqual(0);
  });

  it('a push for which a pod has no room may be tried again as it is', async () => {
    harness = await startHarness();
    harness.apply(pushedAdapter('policy', { spec: update('Barrier') }));
    harness.servers[1]?.fail('upload', refusal('no_capacity'));
    const trainer = new Trainer(harness);
    await expect(trainer.push(1)).rejects.toMatchObject({ code: 'no_capacity', retryAfterSeconds: 1 });
    expect((await trainer.push(1)).pods).toHaveLength(2);
  });

  it('a push beside a pod that is away says which one, and why', async () => {
    harness = await startHarness();
    harness.apply(pushedAdapter('policy', { spec: update('Barrier') }));
    await harness.servers[1]?.stop();
    const isAway = () => harness.fleet.podsOf(POOL_KEY).some(({ reachable }) => !reachable);
    await eventually('it is away', { timeoutMs: 20_000 }, () => isAway() || undefined);
    await expect(new Trainer(harness).push(1)).rejects.toMatchObject({
      code: 'pod_failed',
      message: expect.stringMatching(/these did not: pod-1 \(unreachable: .+\)\./),
    });
  });

  it.each([
    ['10ms', 1],
    ['10s', 0],
  ])('a skew beyond maxSkew is told: %s', async (maxSkew, warnings) => {
    harness = await startHarness();
    harness.apply(pushedAdapter('policy', { spec: update('Barrier', maxSkew) }));
    const { registry } = harness.servers[1] ?? {};
    if (registry === undefined) throw new Error('there is no second pod');
    const activate = registry.activate.bind(registry);
    registry.activate = async (call) => {
      await sleep(60);
      return await activate(call);
    };
    await new Trainer(harness).push(1);
    expect(harness.world.events.filter((event) => event.startsWith('Warning SkewExceeded'))).toHaveLength(
      warnings,
    );
  });
});
