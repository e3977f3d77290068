import { describe, expect, it } from 'vitest';
import type { EngineOptions } from '../../native/types.ts';
import { BASE, goldenCases, TestEngine } from './support.ts';

const GOLDEN = goldenCases('parrot');
const LONG = GOLDEN.flatMap(({ ids }) => ids).slice(0, 70);
const STYLE = { kind: 'adapter', name: 'style' } as const;

async function cachedBy(served: TestEngine, request: Parameters<TestEngine['generate']>[0]): Promise<number> {
  return (await served.generate({ maxTokens: 4, ...request })).cachedTokens;
}

const open = (options: Partial<EngineOptions> = {}) =>
  TestEngine.open('parrot', { prefixCache: true, ...options });

describe('a prompt that came before', () => {
  it('is taken from the cache but for what must be computed, with the same bits', async () => {
    await using served = await open();
    const request = { prompt: LONG, maxTokens: 40, logprobs: 3, temperature: 0.8, seed: 7 };
    const first = await served.generate(request);
    const second = await served.generate(request);
    expect([first.cachedTokens, second.cachedTokens]).toEqual([0, 64]);
    expect(second.tokens).toEqual(first.tokens);
    expect(second.logprobs).toEqual(first.logprobs);
  });

  it('computes at least its last token', async () => {
    await using served = await open();
    const prompt = LONG.slice(0, 64);
    await cachedBy(served, { prompt });
    expect(await cachedBy(served, { prompt })).toBe(48);
  });

  it('is found as far as it is the same, answers of before included', async () => {
    await using served = await open();
    const { tokens } = await served.generate({ prompt: LONG, maxTokens: 30, stopTokens: [] });
    expect(await cachedBy(served, { prompt: [...LONG, ...tokens] })).toBe(96);
    expect(await cachedBy(served, { prompt: [...LONG.slice(0, 40), ...LONG] })).toBe(32);
    expect(await cachedBy(served, { prompt: [1, ...LONG] })).toBe(0);
  });

  it('is computed again where its log-probabilities are wanted, and these are the same', async () => {
    await using served = await open();
    const scored = { prompt: LONG, promptLogprobs: 2 };
    const first = await served.generate(scored);
    const second = await served.generate(scored);
    expect(second.cachedTokens).toBe(0);
    expect(second.promptLogprobs).toEqual(first.promptLogprobs);
    const part = await served.generate({ ...scored, promptLogprobsFrom: 50 });
    expect(part.cachedTokens).toBe(48);
    expect(part.promptLogprobs).toEqual(first.promptLogprobs?.slice(49));
  });

  it('is not looked for where the cache is off, or after a reset', async () => {
    await using off = await open({ prefixCache: false });
    await cachedBy(off, { prompt: LONG });
    expect(await cachedBy(off, { prompt: LONG })).toBe(0);
    await using served = await open();
    await cachedBy(served, { prompt: LONG });
    served.engine.resetPrefixCache();
    expect(await cachedBy(served, { prompt: LONG })).toBe(0);
    expect(await cachedBy(served, { prompt: LONG })).toBe(64);
  });
});

describe('what keys and values depend on', () => {
  it('is the content, not the name: what comes back is warm, and serves nothing of what was between', async () => {
    await using served = await open();
    const request = { prompt: LONG, target: STYLE, maxTokens: 20, logprobs: 1 };
    await served.serve('sql', 'sha256:sql', 'style');
    const sql = await served.generate(request);
    await served.serve('pirate', 'sha256:pirate', 'style');
    const pirate = await served.generate(request);
    await served.serve('sql', 'sha256:sql', 'style');
    const again = await served.generate(request);
    expect([sql, pirate, again].map(({ cachedTokens }) => cachedTokens)).toEqual([0, 0, 64]);
    expect(again.logprobs).toEqual(sql.logprobs);
    await using cold = await open({ prefixCache: false });
    await cold.serve('pirate', 'sha256:pirate', 'style');
    expect(pirate.logprobs).toEqual((await cold.generate(request)).logprobs);
  });

  it.each([
    ['the base', { target: BASE }],
    ['another scale', { loraScale: 0.5 }],
    ['another salt', { cacheSalt: 'a' }],
  ])('%s is apart', async (_, other) => {
    await using served = await open();
    await served.serve('sql', 'sha256:sql', 'style');
    await cachedBy(served, { prompt: LONG, target: STYLE });
    expect(await cachedBy(served, { prompt: LONG, target: STYLE, ...other })).toBe(0);
    expect(await cachedBy(served, { prompt: LONG, target: STYLE, ...other })).toBe(64);
  });

  it('an adapter at scale 0 is the base', async () => {
    await using served = await open();
    await served.serve('sql', 'sha256:sql', 'style');
    await cachedBy(served, { prompt: LONG });
    expect(await cachedBy(served, { prompt: LONG, target: STYLE, loraScale: 0 })).toBe(64);
  });
});

it('blocks that nobody holds make room, the least recently used first', async () => {
  await using served = await open();
  const blockBytes = (32 << 20) / served.engine.info.kvBlocks;
  await using small = await open({ kvBytes: 12 * blockBytes });
  const prompts = [1, 2, 3, 4].map((first) => [first, ...LONG.slice(0, 63)]);
  for (const prompt of prompts) await cachedBy(small, { prompt, maxTokens: 1 });
  const found = [];
  for (const prompt of prompts.toReversed()) found.push(await cachedBy(small, { prompt, maxTokens: 1 }));
  expect(found).toEqual([48, 48, 48, 0]);
  expect(small.engine.snapshot()).toMatchObject({
    kvBlocksUsed: 0,
    prefixTokensQueried: 512,
    prefixTokensHit: 144,
  });
});

it('choices that begin together compute their prompt once', async () => {
  await using served = await open();
  const draws = (seed: number) => ({ prompt: LONG, maxTokens: 20, temperature: 1, seed, logprobs: 0 });
  const together = await Promise.all([1, 2, 3].map((seed) => served.generate(draws(seed))));
  expect(together.map(({ cachedTokens }) => cachedTokens)).toEqual([0, 64, 64]);
  await using cold = await open({ prefixCache: false });
  const alone = await Promise.all([1, 2, 3].map((seed) => cold.generate(draws(seed))));
  expect(together.map(({ logprobs }) => logprobs)).toEqual(alone.map(({ logprobs }) => logprobs));
});
