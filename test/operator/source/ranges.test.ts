import { Readable } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { pause } from '../../../operator/kube/clock.ts';
import { readRanges } from '../../../operator/source/ranges.ts';
import { FakeClock } from '../kube/fake-clock.ts';

const LIMITS = {
  rangeBytes: 1_000,
  concurrency: 1,
  stallMs: 30_000,
  paceBytes: 100,
  resumes: 0,
  resumeDelayMs: 1,
};

describe('a store that is slow', () => {
  it.each([
    ['a byte now and then is given up', 1, 40_000, 'The source sent too little in 30000 ms.'],
    ['the least pace is read to the end', 100, 20_000 * 10, null],
    ['less than that at the end only too', 300, 20_000 * 4, null],
  ])('and gives %s', async (_name, bytesPerChunk, untilMs, message) => {
    const clock = new FakeClock();
    async function* slowly() {
      for (let sent = 0; sent < 1_000; sent += bytesPerChunk) {
        await pause(clock, 20_000);
        yield Buffer.alloc(Math.min(bytesPerChunk, 1_000 - sent));
      }
    }
    const reading = { open: async () => Readable.from(slowly()), limits: LIMITS, clock };
    const read = async () => {
      let bytes = 0;
      const span = { begin: 0, end: 1_000 };
      for await (const part of readRanges(reading, span, new AbortController().signal)) bytes += part.length;
      return bytes;
    };
    const outcome = read().catch((error: Error) => error.message);
    await clock.advance(untilMs);
    expect(await Promise.race([outcome, Promise.resolve('reads on')])).toBe(message ?? 1_000);
  });
});
