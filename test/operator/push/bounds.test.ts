import type { IncomingMessage } from 'node:http';
import { PassThrough } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { BodyReader } from '../../../operator/push/body-reader.ts';
import { Budget } from '../../../operator/push/turns.ts';
import { FakeClock } from '../kube/fake-clock.ts';

const busy = expect.objectContaining({ code: 'too_many_requests' });

describe('the places of pushes', () => {
  const open = (pushesMax = 8, bytesMax = 800) => new Budget({ pushesMax, bytesMax }, () => undefined);

  function takeAll(budget: Budget, namespace: string, bytes = 1): number {
    for (let taken = 0; ; taken += 1) {
      try {
        budget.take(namespace, bytes);
      } catch (error) {
        expect(error).toEqual(busy);
        return taken;
      }
    }
  }

  it('are never all taken by one namespace, nor by a few', () => {
    const budget = open();
    expect(takeAll(budget, 'a')).toBe(4);
    expect(takeAll(budget, 'b')).toBe(2);
    expect(takeAll(budget, 'c')).toBe(1);
    expect(takeAll(budget, 'd')).toBe(1);
  });

  it('nor is the room for their bytes', () => {
    const budget = open();
    expect(takeAll(budget, 'a', 200)).toBe(2);
    expect(takeAll(budget, 'b', 200)).toBe(1);
  });

  it('come back when pushes end', () => {
    const budget = open();
    const places = [1, 2, 3, 4].map(() => budget.take('a', 1));
    expect(() => budget.take('a', 1)).toThrow(busy);
    for (const giveBack of places) giveBack();
    expect(takeAll(budget, 'a')).toBe(4);
  });

  it('let one push alone be larger than all of them', () => {
    const budget = open();
    budget.take('a', 10_000);
    expect(() => budget.take('b', 1)).toThrow(busy);
  });
});

describe('a body', () => {
  const limits = {
    ...{ windowMs: 10_000, windowBytesMin: 64 * 1024, waitMs: 30_000, bytesPerMsMin: 1_000 },
    ...{ maxBytes: 2 ** 30, stopping: new AbortController().signal },
  };

  /** Sends so many bytes every five seconds and returns for how long that was taken, at most a minute. */
  async function takenFor(bytesEach: number): Promise<number> {
    const clock = new FakeClock();
    const raw = new PassThrough({ highWaterMark: 2 ** 30 });
    const reader = new BodyReader(raw as unknown as IncomingMessage, limits, clock);
    const startedAt = clock.monotonicMs();
    let endedAt: number | null = null;
    reader.expect(2 ** 29);
    const reading = (async () => {
      while ((await reader.next()) !== null);
    })().catch(() => {
      endedAt = clock.monotonicMs();
    });
    for (let passedMs = 0; passedMs < 60_000 && endedAt === null; passedMs += 5_000) {
      raw.write(Buffer.alloc(bytesEach));
      await clock.advance(5_000);
    }
    raw.end();
    await clock.advance(0);
    await reading;
    return (endedAt ?? clock.monotonicMs()) - startedAt;
  }

  it('that comes a byte at a time is given up after ten seconds', async () => {
    expect(await takenFor(1)).toBe(10_000);
  });

  it('that comes slowly but comes is taken', async () => {
    expect(await takenFor(64 * 1024)).toBe(60_000);
  });
});
