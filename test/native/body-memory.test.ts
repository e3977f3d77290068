import { setImmediate as turn } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { expect, test } from 'vitest';
import { allocateBody } from '../../native/index.ts';
import { eventually } from '../support/eventually.ts';

const BYTES = 64 << 20;
const PAGES = BYTES / 4096;

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

/** Pages that the kernel had to make for this. */
function pagesMade(work: () => void): number {
  const before = process.resourceUsage().minorPageFault;
  work();
  return process.resourceUsage().minorPageFault - before;
}

async function collected(): Promise<void> {
  collect();
  await turn();
}

test('the pages of a body that nobody holds serve the next one', async () => {
  expect(pagesMade(() => allocateBody(BYTES).fill(1))).toBeGreaterThan(PAGES / 2);
  await eventually('a body without new pages', { timeoutMs: 20_000 }, async () => {
    await collected();
    return pagesMade(() => allocateBody(BYTES).fill(2)) < PAGES / 8 || undefined;
  });
});

test('no body is given out again while a part of it is held', async () => {
  const part = allocateBody(BYTES)
    .fill(7)
    .subarray(BYTES / 2, BYTES / 2 + 4096);
  for (let body = 0; body < 4; body++) {
    await collected();
    allocateBody(BYTES).fill(9);
  }
  expect(part.every((byte) => byte === 7)).toBe(true);
});

test('a body has the length that was asked for, and at least one byte', () => {
  expect(allocateBody(BYTES + 1).length).toBe(BYTES + 1);
  expect(() => allocateBody(Number.NaN)).toThrow(RangeError);
});
