import { describe, expect, it } from 'vitest';
import { merge } from '../../../server/openai/merge.ts';

async function* counting(to: number): AsyncGenerator<number> {
  for (let item = 0; item < to; item += 1) yield item;
}

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const out: T[] = [];
  for await (const item of items) out.push(item);
  return out;
}

/** One that waits for ever. */
function silent() {
  const state = { left: false };
  const source = {
    next: () => new Promise(() => undefined),
    return: async () => {
      state.left = true;
      return { done: true, value: undefined };
    },
  } as unknown as AsyncGenerator<number>;
  return { source, state };
}

/** How many reactions on promises it takes to hand a thousand items on beside `waiting` sources that have none. */
async function reactions(waiting: number): Promise<number> {
  const silents = Array.from({ length: waiting }, () => silent().source);
  const { then } = Promise.prototype;
  let count = 0;
  // biome-ignore lint/suspicious/noThenProperty: to count the reactions is the test.
  Promise.prototype.then = function counted(...args) {
    count += 1;
    return then.apply(this, args) as never;
  };
  try {
    let items = 0;
    for await (const _ of merge([...silents, counting(1000)])) {
      items += 1;
      if (items === 1000) break;
    }
    return count;
  } finally {
    // biome-ignore lint/suspicious/noThenProperty: as it was.
    Promise.prototype.then = then;
  }
}

describe('merge', () => {
  it('gives the items of each source in order, and all of them', async () => {
    const merged = await all(merge([counting(3), counting(0), counting(5)]));
    const of = (wanted: number) => merged.filter(({ index }) => index === wanted).map(({ item }) => item);
    expect([of(0), of(1), of(2)]).toEqual([[0, 1, 2], [], [0, 1, 2, 3, 4]]);
  });

  it('gives no source two turns while another has an item', async () => {
    const merged = await all(merge([counting(3), counting(3)]));
    expect(merged.map(({ index }) => index)).toEqual([0, 1, 0, 1, 0, 1]);
  });

  it('costs a source that waits a few reactions, not one per item of the others', async () => {
    expect((await reactions(100)) - (await reactions(0))).toBeLessThan(10 * 100);
  });

  it('leaves its sources when it is left', async () => {
    const waiting = silent();
    for await (const _ of merge([waiting.source, counting(2)])) break;
    expect(waiting.state.left).toBe(true);
  });

  it('ends with the error of a source, and leaves the others', async () => {
    const waiting = silent();
    const broken = (async function* () {
      yield 1;
      throw new Error('broken');
    })();
    await expect(all(merge([waiting.source, broken]))).rejects.toThrow('broken');
    expect(waiting.state.left).toBe(true);
  });

  it('is done at once without sources', async () => {
    expect(await all(merge([]))).toEqual([]);
  });
});
