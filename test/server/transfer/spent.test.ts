import { expect, it } from 'vitest';
import { giveBack } from '../../../server/transfer/spent.ts';

it('takes the memory of a chunk that has it alone', () => {
  const chunk = Buffer.allocUnsafeSlow(65_536);
  giveBack(chunk);
  expect([chunk.length, chunk.buffer.byteLength]).toEqual([0, 0]);
});

it('leaves what others have a part of', () => {
  const all = Buffer.allocUnsafeSlow(1024);
  giveBack(all.subarray(0, 512));
  expect(all.length).toBe(1024);
});
