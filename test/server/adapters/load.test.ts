import { expect, it } from 'vitest';
import { Load } from '../../../server/adapters/load.ts';
import { bench } from './bench.ts';

/** Of 64 blocks. */
function told(used: readonly number[]): { kvBlocks: number[]; moves: number } {
  const { native } = bench();
  let kvBlocksUsed = 0;
  const load = new Load({ info: native.info, snapshot: () => ({ ...native.snapshot(), kvBlocksUsed }) });
  let moves = 0;
  const kvBlocks = used.map((many) => {
    kvBlocksUsed = many;
    if (load.tick().moved) moves += 1;
    return load.kvBlocksUsed;
  });
  return { kvBlocks, moves };
}

it('follows the KV blocks in use, by an eighth of all at least', () => {
  const { kvBlocks, moves } = told([...Array(12).fill(60), ...Array(12).fill(4)]);
  expect(kvBlocks[11]).toBeGreaterThan(52);
  expect(kvBlocks[23]).toBeLessThan(12);
  expect(moves).toBeLessThan(8);
});

it('is not moved by use that goes up and down, nor by one busy moment', () => {
  const restless = Array.from({ length: 60 }, (_, index) => (index % 2 === 0 ? 20 : 36));
  expect(told(restless).moves).toBeLessThanOrEqual(2);
  expect(told([0, 0, 0, 0, 0, 0, 40, 0, 0, 0, 0, 0, 0]).moves).toBe(0);
});

it('is in the state of the pod', () => {
  const { registry, engine } = bench();
  expect(registry.state()).toMatchObject({ limits: { kvBlocks: 64 }, used: { kvBlocks: 0 } });
  engine.kvBlocksUsed = 32;
  registry.tick();
  expect(registry.state().used.kvBlocks).toBe(32);
});
