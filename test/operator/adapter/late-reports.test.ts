import { afterEach, beforeEach, expect, it } from 'vitest';
import { systemClock } from '../../../operator/kube/clock.ts';
import type { Pod } from '../../../operator/pods/pod.ts';
import { type Harness, startHarness } from './harness.ts';
import { loraAdapter, POOL_KEY } from './objects.ts';

let harness: Harness;
let report: () => void;
/** How far the operator's clock is ahead. */
let laterMs: number;

beforeEach(async () => {
  harness = await startHarness([{}]);
  const { fleet, deps } = harness;
  let state = fleet.podsOf(POOL_KEY)[0]?.state ?? null;
  const pods: Pod[] = fleet
    .podsOf(POOL_KEY)
    .map((pod) => Object.create(pod, { state: { get: () => state }, reachable: { value: true } }));
  report = () => {
    state = harness.servers[0]?.registry.state() ?? null;
  };
  deps.fleet = {
    podsOf: () => pods,
    formerOf: () => [],
    followedMs: () => 60_000,
    whenState: async (_, satisfies) => state !== null && satisfies(state),
  };
  laterMs = 0;
  deps.clock = { ...systemClock, monotonicMs: () => systemClock.monotonicMs() + laterMs };
  harness.apply(loraAdapter('sql'));
});

afterEach(async () => {
  await harness.stop();
});

async function look(times: number): Promise<[loads: number, activations: number]> {
  for (let time = 0; time < times; time += 1) await harness.once('sql');
  const [pod] = harness.servers;
  return [pod?.count('stage') ?? 0, pod?.count('activate') ?? 0];
}

it('a pod that reports late is asked for nothing twice', async () => {
  expect(await look(3)).toEqual([1, 0]);
  report();
  expect(await look(3)).toEqual([1, 1]);
  expect(harness.conditionOf('sql', 'Ready')?.status).not.toBe('True');
  report();
  expect(await look(1)).toEqual([1, 1]);
  expect(harness.conditionOf('sql', 'Ready')?.status).toBe('True');
});

it('a pod that never reports what it confirmed is asked again after half a minute', async () => {
  expect(await look(2)).toEqual([1, 0]);
  const outcome = await harness.once('sql');
  expect(outcome.kind === 'again' && outcome.afterMs).toBeLessThanOrEqual(30_000);
  laterMs = 30_001;
  expect(await look(1)).toEqual([2, 0]);
  report();
  expect(await look(1)).toEqual([2, 1]);
  laterMs *= 2;
  expect(await look(1)).toEqual([2, 2]);
});

it('a pod that reports that it lost what it had confirmed and reported is given it again', async () => {
  await look(1);
  report();
  await look(1);
  report();
  await look(1);
  const [pod] = harness.servers;
  await pod?.registry.remove('sql', null, null);
  report();
  expect(await look(1)).toEqual([2, 1]);
});
