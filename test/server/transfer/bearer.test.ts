import { expect, it } from 'vitest';
import { isBearer } from '../../../server/transfer/bearer.ts';

it.each([
  ['Bearer right', true],
  ['bearer right', true],
  ['Bearer wrong', false],
  ['Bearer right ', false],
  ['Basic right', false],
  ['right', false],
  ['', false],
  [undefined, false],
])('%j carries the token "right": %j', (header, carried) => {
  expect(isBearer(header, 'right')).toBe(carried);
});
