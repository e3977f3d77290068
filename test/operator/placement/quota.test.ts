import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { beyondQuota, type Claim, nextPush } from '../../../operator/placement/quota.ts';

const claim = fc.record({
  uid: fc.uuid(),
  createdAt: fc.integer({ min: 0, max: 5 }).map((day) => `2026-06-0${day + 1}T00:00:00Z`),
  servedBytes: fc.option(fc.integer({ min: 1, max: 50 })),
  wantedBytes: fc.integer({ min: 0, max: 50 }),
});
const claims = fc.uniqueArray(claim, { selector: ({ uid }) => uid, maxLength: 12 });
const quota = fc.record({
  adapters: fc.option(fc.integer({ min: 1, max: 8 }), { nil: undefined }),
  bytes: fc.option(fc.integer({ min: 1, max: 200 }), { nil: undefined }),
});

/** With what it serves, or what it is to serve where it may. */
const bytesOf = ({ uid, servedBytes, wantedBytes }: Claim, beyond: Map<string, unknown>) =>
  beyond.has(uid) ? (servedBytes ?? 0) : Math.max(servedBytes ?? 0, wantedBytes);

describe('a quota', () => {
  it('is kept by those that are within it', () => {
    fc.assert(
      fc.property(claims, quota, (all, limits) => {
        const beyond = beyondQuota(all, limits);
        const within = all.filter(({ uid }) => !beyond.has(uid));
        expect(within.length).toBeLessThanOrEqual(limits.adapters ?? Number.POSITIVE_INFINITY);
        const bytes = within.reduce((sum, item) => sum + bytesOf(item, beyond), 0);
        expect(bytes).toBeLessThanOrEqual(limits.bytes ?? Number.POSITIVE_INFINITY);
      }),
    );
  });

  it('refuses only what does not fit, and says why', () => {
    fc.assert(
      fc.property(claims, quota, (all, limits) => {
        for (const { max, used, wanted } of beyondQuota(all, limits).values())
          expect(used + wanted).toBeGreaterThan(max);
      }),
    );
  });

  it('does not depend on the order in which objects are listed', () => {
    fc.assert(
      fc.property(claims, quota, (all, limits) => {
        expect(beyondQuota(all.toReversed(), limits)).toEqual(beyondQuota(all, limits));
      }),
    );
  });

  it('takes nothing from those that serve when others come or grow', () => {
    fc.assert(
      fc.property(claims, quota, fc.array(fc.integer({ min: 0, max: 50 })), (all, limits, growth) => {
        const calm = all.map((item) => ({ ...item, wantedBytes: item.servedBytes ?? 0 }));
        const serving = calm.filter(({ servedBytes }) => servedBytes !== null);
        const before = beyondQuota(serving, limits);
        const grown = calm.map((item, index) => ({
          ...item,
          wantedBytes: item.wantedBytes + (growth[index] ?? 0),
        }));
        const after = beyondQuota(grown, limits);
        const unchanged = grown.filter(({ servedBytes, wantedBytes }) => servedBytes === wantedBytes);
        for (const { uid } of unchanged) expect(after.has(uid)).toBe(before.has(uid));
      }),
    );
  });
});

describe('pushes', () => {
  it('are at most so many in any minute, and the wait is as short as it can be', () => {
    const gaps = fc.array(fc.integer({ min: 0, max: 30_000 }), { maxLength: 40 });
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 5 }), gaps, (max, waits) => {
        let nowMs = 0;
        let times: number[] = [];
        const begun: number[] = [];
        for (const gapMs of waits) {
          nowMs += gapMs;
          const next = nextPush(times, max, nowMs);
          if (next.waitMs === 0) begun.push(nowMs);
          else {
            expect(nextPush(next.times, max, nowMs + next.waitMs - 1).waitMs).toBe(1);
            expect(nextPush(next.times, max, nowMs + next.waitMs).waitMs).toBe(0);
          }
          times = next.times;
          expect(times.length).toBeLessThanOrEqual(max);
        }
        for (const atMs of begun)
          expect(begun.filter((other) => other > atMs - 60_000 && other <= atMs).length).toBeLessThanOrEqual(
            max,
          );
      }),
    );
  });
});
