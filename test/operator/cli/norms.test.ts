import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { type AdapterFiles, openAdapter } from '../../../operator/cli/adapter-files.ts';
import { byModule, compareAdapters, together } from '../../../operator/cli/compare.ts';
import { type Delta, decode, inner } from '../../../operator/cli/norms.ts';

const ADAPTERS = join(import.meta.dirname, '../../fixtures/parrot/adapters');

/** `scale · b · a`, as it is written. */
function formed({ rank, in: width, out, scale, a, b }: Delta): number[] {
  return Array.from({ length: out * width }, (_, at) => {
    const [row, column] = [Math.floor(at / width), at % width];
    let sum = 0;
    for (let i = 0; i < rank; i++) sum += (b[row * rank + i] ?? 0) * (a[i * width + column] ?? 0);
    return scale * sum;
  });
}

const value = fc.float({ min: -2, max: 2, noNaN: true });
const delta = (width: number, out: number) =>
  fc.integer({ min: 1, max: 4 }).chain((rank) =>
    fc.record({
      rank: fc.constant(rank),
      in: fc.constant(width),
      out: fc.constant(out),
      scale: fc.constantFrom(0.5, 1, 2),
      a: fc
        .array(value, { minLength: rank * width, maxLength: rank * width })
        .map((v) => Float32Array.from(v)),
      b: fc.array(value, { minLength: rank * out, maxLength: rank * out }).map((v) => Float32Array.from(v)),
    }),
  );

it('the inner product is that of the weights as they would be formed, of any two ranks', () => {
  fc.assert(
    fc.property(delta(3, 5), delta(3, 5), (one, two) => {
      const [first, second] = [formed(one), formed(two)];
      const expected = first.reduce((sum, item, at) => sum + item * (second[at] ?? 0), 0);
      expect(inner(one, two)).toBeCloseTo(expected, 3);
    }),
  );
});

it.each([
  ['F32', '0000803f', 1],
  ['F32', 'db0f49c0', -3.1415927410125732],
  ['BF16', '803f', 1],
  ['BF16', '49c0', -3.140625],
  ['F16', '003c', 1],
  ['F16', '48c2', -3.140625],
  ['F16', '0100', 2 ** -24],
  ['F16', '007c', Number.POSITIVE_INFINITY],
] as const)('%s %s is %d', (dtype, hex, expected) => {
  expect([...decode(Buffer.from(hex, 'hex'), dtype)]).toEqual([expected]);
});

describe('two adapters', () => {
  const opened: AdapterFiles[] = [];
  const open = async (name: string) => {
    const files = await openAdapter(join(ADAPTERS, name), null);
    opened.push(files);
    return files;
  };

  afterEach(async () => {
    for (const { file } of opened.splice(0)) await file.close();
  });

  it('that are the same are not apart', async () => {
    const diffs = await compareAdapters(await open('sql'), await open('sql'));
    expect(diffs).toHaveLength(28);
    const { norms, distance } = together('all', diffs);
    expect(norms.one).toBeGreaterThan(1);
    expect(norms.two).toBe(norms.one);
    expect(distance).toBeLessThan(1e-6 * (norms.one ?? 0));
  });

  it('of two ranks are as far apart both ways', async () => {
    const one = together('all', await compareAdapters(await open('sql'), await open('json')));
    const two = together('all', await compareAdapters(await open('json'), await open('sql')));
    expect(one.ranks).toEqual({ one: [8], two: [4] });
    expect(one.distance).toBeCloseTo(two.distance ?? 0, 9);
  });

  it('of which one lacks a module are apart by what the other adds', async () => {
    const diffs = await compareAdapters(await open('sql'), await open('rank-24'));
    const gone = byModule(diffs).find(({ ranks }) => ranks.two.length === 0);
    expect(gone?.norms.two).toBeNull();
    expect(gone?.distance).toBeCloseTo(gone?.norms.one ?? 0, 9);
  });
});
