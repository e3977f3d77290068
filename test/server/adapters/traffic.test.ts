import fc from 'fast-check';
import { expect, it } from 'vitest';
import { Traffic } from '../../../server/adapters/traffic.ts';
import { mulberry32 } from '../../support/adapter-files.ts';
import { bench, put } from './bench.ts';

const SEED = { seed: 20261130, numRuns: 300 };
const PerTick = fc.oneof(fc.integer({ min: 0, max: 12 }), fc.integer({ min: 0, max: 2_000 }));

/** Whether it told something else at each tick. */
function ticks(traffic: Traffic, requests: readonly number[]): boolean[] {
  return requests.map((many) => {
    for (let index = 0; index < many; index += 1) traffic.count('sql');
    return traffic.tick().length > 0;
  });
}

it('tells steady traffic once, and is off by half at most', () => {
  fc.assert(
    fc.property(fc.array(PerTick, { maxLength: 8 }), PerTick, (before, perTick) => {
      const traffic = new Traffic();
      ticks(traffic, before);
      ticks(traffic, Array(6).fill(perTick));
      const told = traffic.perMinute('sql');
      expect(ticks(traffic, Array(30).fill(perTick)).filter(Boolean)).toEqual([]);
      expect(traffic.perMinute('sql')).toBe(told);
      const [low, high] = [told, perTick * 6].sort((a, b) => a - b) as [number, number];
      expect(high <= low * 1.5 || Math.sqrt(high) - Math.sqrt(low) <= 1.5).toBe(true);
    }),
    SEED,
  );
});

it('forgets what is asked for no more', () => {
  fc.assert(
    fc.property(fc.array(PerTick, { maxLength: 8 }), (before) => {
      const traffic = new Traffic();
      ticks(traffic, before);
      ticks(traffic, Array(7).fill(0));
      expect(traffic.perMinute('sql')).toBe(0);
      expect(traffic.size).toBe(0);
    }),
    SEED,
  );
});

it('takes traffic that comes by chance for steady', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 300 }), fc.integer(), (perMinute, seed) => {
      const traffic = new Traffic();
      const chance = mulberry32(seed);
      const requests = Array.from({ length: 66 }, () => poisson(perMinute / 6, chance));
      ticks(traffic, requests.slice(0, 6));
      // Of sixty that could.
      expect(ticks(traffic, requests.slice(6)).filter(Boolean).length).toBeLessThanOrEqual(6);
    }),
    SEED,
  );
});

it('is in the state of the pod, and a change only where it has moved', async () => {
  const { registry } = bench();
  await put(registry, 'sql', 1);
  const stated = () => registry.state().adapters[0]?.requestsPerMinute;
  let changes = 0;
  registry.subscribe(() => {
    changes += 1;
  });
  registry.tick();
  const signal = new AbortController().signal;
  for (let index = 0; index < 30; index += 1) await registry.lookup.enter('sql', null, signal);
  expect({ changes, stated: stated() }).toEqual({ changes: 0, stated: undefined });
  registry.tick();
  registry.tick();
  expect({ changes, stated: stated() }).toEqual({ changes: 1, stated: 30 });
});

function poisson(mean: number, chance: () => number): number {
  const least = Math.exp(-mean);
  let count = -1;
  for (let product = 1; product > least; count += 1) product *= chance();
  return count;
}
