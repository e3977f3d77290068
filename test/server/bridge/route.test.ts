import { describe, expect, it } from 'vitest';
import { affinityKey, choosePod } from '../../../server/bridge/route.ts';

const key = (body: Record<string, unknown>, served = 'policy') => affinityKey(served, body);
const long = (end: string) => 'x'.repeat(256) + end;

describe('the key of a prompt', () => {
  it.each<[string, Record<string, unknown>, Record<string, unknown>]>([
    ['texts', { prompt: long('a') }, { prompt: long('b') }],
    ['tokens', { prompt: [...Array(256).keys(), 1] }, { prompt: [...Array(256).keys(), 2] }],
    ['several texts', { prompt: ['a', 'b'] }, { prompt: ['a', 'c'] }],
    ['token_ids', { token_ids: [...Array(256).keys(), 1] }, { token_ids: [...Array(256).keys(), 2] }],
    [
      'chats',
      { messages: [{ role: 'user', content: long('a') }] },
      {
        messages: [
          { role: 'user', content: long('b') },
          { role: 'assistant', content: 'c' },
        ],
      },
    ],
  ])('is the same for %s that begin alike', (_name, a, b) => {
    expect(key(a)).toBe(key(b));
  });

  it.each<[string, Record<string, unknown>, Record<string, unknown>]>([
    ['texts', { prompt: 'a' }, { prompt: 'b' }],
    ['tokens', { prompt: [1, 2] }, { prompt: [12] }],
    [
      'chats',
      { messages: [{ role: 'user', content: 'a' }] },
      { messages: [{ role: 'system', content: 'a' }] },
    ],
    [
      'texts in parts',
      { messages: [{ content: [{ text: 'a' }] }] },
      { messages: [{ content: [{ text: 'b' }] }] },
    ],
  ])('differs for %s that begin otherwise', (_name, a, b) => {
    expect(key(a)).not.toBe(key(b));
  });

  it('differs by adapter', () => {
    expect(key({ prompt: 'a' })).not.toBe(key({ prompt: 'a' }, 'other'));
  });

  it('can be had of what is no prompt', () => {
    expect(key({ prompt: null, messages: [null, 7] })).toEqual(expect.any(String));
  });
});

describe('the choice of a pod', () => {
  const pods = (...inFlight: number[]) =>
    inFlight.map((count, index) => ({ url: `http://${index}`, inFlight: count }));
  const keys = Array.from({ length: 300 }, (_, index) => key({ prompt: `prompt ${index}` }));

  it('spreads prompts', () => {
    const counts = new Map<string, number>();
    for (const each of keys) {
      const { url } = choosePod(each, pods(0, 0, 0)) as { url: string };
      counts.set(url, (counts.get(url) ?? 0) + 1);
    }
    expect([...counts.values()].every((count) => count > 60)).toBe(true);
  });

  it('moves only the prompts of a pod that is gone', () => {
    const before = keys.map((each) => choosePod(each, pods(0, 0, 0))?.url);
    const after = keys.map((each) => choosePod(each, pods(0, 0))?.url);
    expect(before.filter((url, index) => url !== 'http://2' && url !== after[index])).toEqual([]);
  });

  it('passes over a pod with more than its share', () => {
    const own = choosePod('a', pods(0, 0))?.url === 'http://0' ? 0 : 1;
    const loaded = (own_: number, other: number) => (own === 0 ? pods(own_, other) : pods(other, own_));
    // 1.25 times the mean of 4, with this one counted.
    expect(choosePod('a', loaded(5, 3))?.url).toBe(`http://${own}`);
    expect(choosePod('a', loaded(6, 2))?.url).toBe(`http://${1 - own}`);
  });

  it('is none of none', () => {
    expect(choosePod('a', [])).toBeUndefined();
  });
});
