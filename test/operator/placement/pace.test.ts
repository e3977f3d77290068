import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { askedBy, boundsOf, nextPace, type Pace, paceDueMs } from '../../../operator/placement/pace.ts';

const SEED = { seed: 20261130, numRuns: 1_000 };
const STEP_MS = 10_000;
const MINUTE = 6;

interface Pool {
  pods: number;
  least: number;
  most: number;
}

const Pools = fc
  .tuple(fc.integer({ min: 1, max: 60 }), fc.integer({ min: 0, max: 8 }), fc.integer({ min: 0, max: 60 }))
  .map(([pods, least, most]): Pool => ({ pods, ...boundsOf({ replicas: least, maxReplicas: most }, pods) }));
const Own = fc.integer({ min: 0, max: 1_000 });
const Start = fc.integer({ min: 0, max: 70 });

/** The pods at each step, ten seconds apart, where the others have a thousand requests. */
function run(pool: Pool, start: number, requests: readonly number[]): number[] {
  let pace: Pace = { pods: start, grownMs: null, fewer: null };
  return requests.map((own, step) => {
    const asked = askedBy(pool, { own, all: own + 1_000 }, [pace.pods, pool.pods]);
    pace = nextPace(pace, asked, pool, step * STEP_MS);
    return pace.pods;
  });
}

const changesIn = (pods: readonly number[], begin: number) =>
  pods.flatMap((many, step) => (step > begin && many !== pods[step - 1] ? [step] : []));

describe('pods by traffic', () => {
  it('are within the bounds, whatever the traffic', () => {
    fc.assert(
      fc.property(Pools, Start, fc.array(Own, { maxLength: 100 }), (pool, start, requests) => {
        for (const many of run(pool, start, requests)) {
          expect(many).toBeGreaterThanOrEqual(pool.least);
          expect(many).toBeLessThanOrEqual(pool.most);
        }
      }),
      SEED,
    );
  });

  it('do not change any more while traffic stays as it is, and are its share then, or half more', () => {
    fc.assert(
      fc.property(Pools, Start, fc.array(Own, { maxLength: 20 }), Own, (pool, start, before, own) => {
        const pods = run(pool, start, [...before, ...Array(20 * MINUTE).fill(own)]);
        expect(changesIn(pods, before.length + 11 * MINUTE)).toEqual([]);
        const share = (own / (own + 1_000)) * pool.pods;
        const within = (many: number) => Math.max(pool.least, Math.min(pool.most, Math.ceil(many)));
        expect(pods.at(-1)).toBeGreaterThanOrEqual(within(share));
        expect(pods.at(-1)).toBeLessThanOrEqual(within(share * 1.5));
      }),
      SEED,
    );
  });

  it('do not shrink while traffic goes up and down by a fifth', () => {
    fc.assert(
      fc.property(
        Pools,
        Own,
        fc.array(fc.double({ min: 0.8, max: 1.2, noNaN: true }), { minLength: 200, maxLength: 400 }),
        (pool, own, noise) => {
          let last = 0;
          for (const many of run(
            pool,
            0,
            noise.map((factor) => own * factor),
          )) {
            expect(many).toBeGreaterThanOrEqual(last);
            last = many;
          }
        },
      ),
      { ...SEED, numRuns: 100 },
    );
  });

  it('move within bounds: fewer once in five minutes at most, twice as many at most and not in the next half minute', () => {
    fc.assert(
      fc.property(Pools, Start, fc.array(Own, { maxLength: 300 }), (pool, start, requests) => {
        const pods = run(pool, start, requests);
        let grown = Number.NEGATIVE_INFINITY;
        let shrunk = Number.NEGATIVE_INFINITY;
        for (const step of changesIn(pods, 0)) {
          const [before, after] = [pods[step - 1] as number, pods[step] as number];
          if (after < before) {
            expect(step - shrunk).toBeGreaterThanOrEqual(5 * MINUTE);
            shrunk = step;
          } else {
            expect(step - grown).toBeGreaterThanOrEqual(3);
            expect(after).toBeLessThanOrEqual(Math.max(1, before * 2));
            grown = step;
          }
        }
      }),
      SEED,
    );
  });

  it('change at no other time than what is said beforehand, where traffic does not', () => {
    fc.assert(
      fc.property(Pools, Start, Own, (pool, start, own) => {
        let pace: Pace = { pods: start, grownMs: null, fewer: null };
        let dueMs: number | null = 0;
        for (let nowMs = 0; nowMs < 1_200_000; nowMs += STEP_MS) {
          const asked = askedBy(pool, { own, all: own + 1_000 }, [pace.pods, pool.pods]);
          const next = nextPace(pace, asked, pool, nowMs);
          if (next.pods !== pace.pods) expect(dueMs !== null && dueMs <= nowMs).toBe(true);
          pace = next;
          dueMs = paceDueMs(pace, asked);
        }
      }),
      SEED,
    );
  });
});

describe('an adapter', () => {
  const pool = { pods: 10, ...boundsOf({}, 10) };
  const asked = (percent: number, has: number) => askedBy(pool, { own: percent, all: 100 }, [has, 10]);

  it('asks for its share of the pods, and for fewer than it has only when that is far below', () => {
    expect([0, 5, 30, 100].map((percent) => asked(percent, 0))).toEqual([1, 1, 3, 10]);
    expect([30, 50, 60].map((percent) => asked(percent, 4))).toEqual([4, 5, 6]);
    expect([26, 20, 2].map((percent) => asked(percent, 4))).toEqual([4, 3, 1]);
  });

  it('that asks for more gets it in steps, and new bounds at once', () => {
    const rise = run(pool, 1, Array(12).fill(9_000));
    expect(rise).toEqual([2, 2, 2, 4, 4, 4, 8, 8, 8, 9, 9, 9]);
    const pace = { pods: 8, grownMs: null, fewer: null };
    expect(nextPace(pace, 2, boundsOf({ maxReplicas: 2 }, 10), 0).pods).toBe(2);
    expect(nextPace(pace, 9, boundsOf({ replicas: '90%' }, 10), 0).pods).toBe(9);
  });
});
