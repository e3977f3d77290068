import fc from 'fast-check';
import { expect, it } from 'vitest';
import { ByteBudget } from '../../../server/openai/byte-budget.ts';
import { JsonList, jsonPieces } from '../../../server/openai/json-text.ts';

function listOf(items: unknown[]): JsonList {
  const list = new JsonList(new ByteBudget(1 << 30).open());
  for (const item of items) list.push([item]);
  return list;
}

it('the pieces of an object are its JSON, whatever its lists hold', () => {
  fc.assert(
    fc.property(fc.array(fc.jsonValue()), fc.array(fc.string()), fc.string(), (one, other, text) => {
      const pieces = [...jsonPieces({ text, one: listOf(one), in: [{ other: listOf(other) }] })];
      expect(JSON.parse(pieces.join(''))).toEqual(JSON.parse(JSON.stringify({ text, one, in: [{ other }] })));
    }),
  );
});

it('long lists come in pieces of bounded size', () => {
  const pieces = [...jsonPieces({ list: listOf(Array(100_000).fill('some text')) })];
  expect(pieces.length).toBeGreaterThan(10);
  expect(Math.max(...pieces.map(({ length }) => length))).toBeLessThan(256 << 10);
});

it('a list that is filled over many turns is the same', async () => {
  const items = Array.from({ length: 1000 }, (_, index) => ({ index }));
  const list = listOf([]);
  await list.pushAll(items);
  expect(JSON.parse([...list.pieces()].join(''))).toEqual(items);
});
