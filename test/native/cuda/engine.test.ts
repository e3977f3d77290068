import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { backends } from '../../../native/index.ts';
import type { EngineOptions } from '../../../native/types.ts';
import { agree, ask, MODELS, serveAll, withoutStep } from '../golden.ts';
import {
  type Generated,
  type GoldenCase,
  goldenCases,
  goldenTensors,
  logSoftmax,
  TestEngine,
} from '../support.ts';
import { swapUnderLoad } from '../swaps.ts';

/** The CUDA backend's own sources on an emulated device, 1,000 times slower than any other: a selection. */
const SIMT = resolve(import.meta.dirname, '../../../build/simt/liblorikeet_simt.so');
const SLOW = { timeout: 120_000 };

const EMULATED = { backend: 'cuda', dtype: 'bfloat16' } as const;
const open = (model: string, options: Partial<EngineOptions> = {}) =>
  TestEngine.open(model, { ...EMULATED, ...options });
const serve = (model: string, cases: GoldenCase[], options: Partial<EngineOptions> = {}) =>
  serveAll(model, cases, { ...EMULATED, slots: 16, ...options });
const withoutSteps = (answers: Generated[]) => answers.map(withoutStep);

beforeAll(() => {
  if (!existsSync(SIMT)) throw new Error(`${SIMT} is missing: run \`node test/support/setup.mjs cluster\``);
  // Opened once in this process.
  process.env.LORIKEET_CUDA_LIBRARY = SIMT;
});
afterEach(() => vi.unstubAllEnvs());

/** Of each adapter a short prompt, and one that fills more than a split of attention. */
function selection(model: string): GoldenCase[] {
  const cases = goldenCases(model);
  const adapters = [...new Set(cases.map(({ adapter }) => adapter))];
  const short = adapters.flatMap((adapter) =>
    cases.filter((c) => c.adapter === adapter && c.ids.length > 4 && c.ids.length <= 48).slice(0, 1),
  );
  return [...short, ...cases.filter(({ ids }) => ids.length > 256).slice(0, 1)];
}

describe('the CUDA backend', () => {
  it.each(MODELS)('agrees with transformers and PEFT, all requests of %s mixed', SLOW, async (model) => {
    const cases = selection(model);
    await using served = await serve(model, cases);
    expect(served.engine.info).toMatchObject({ backend: 'cuda, simt', dtype: 'bfloat16' });
    const answers = await Promise.all(cases.map((golden) => ask(served, golden)));
    answers.forEach((answer, i) => {
      agree(model, cases[i] as GoldenCase, answer, 'bfloat16');
    });
  });

  it(
    'answers a request alone as in company, whatever the chunks of its prompt, bit for bit',
    SLOW,
    async () => {
      const cases = selection('parrot').slice(0, 12);
      await using served = await serve('parrot', cases);
      await using chunked = await serve('parrot', cases, { maxBatchTokens: 7 });
      const mixed = await Promise.all(cases.map((golden) => ask(served, golden)));
      const alone: Generated[] = [];
      for (const golden of cases.slice(0, 3)) alone.push(await ask(served, golden));
      expect(withoutSteps(alone)).toEqual(withoutSteps(mixed.slice(0, 3)));
      expect(withoutSteps(await Promise.all(cases.map((golden) => ask(chunked, golden))))).toEqual(
        withoutSteps(mixed),
      );
    },
  );

  it('gives the same bits with graphs and without', SLOW, async () => {
    const cases = selection('qwen3').slice(0, 4);
    await using graphs = await serve('qwen3', cases);
    vi.stubEnv('LORIKEET_CUDA_GRAPHS', '0');
    await using eager = await serve('qwen3', cases);
    const all = (served: TestEngine) => Promise.all(cases.map((golden) => ask(served, golden)));
    expect(withoutSteps(await all(eager))).toEqual(withoutSteps(await all(graphs)));
  });

  it('finishes a stream on its old revision and serves the next request with the new one', SLOW, async () => {
    await using served = await open('parrot', { slots: 2 });
    const { ids: prompt } = goldenCases('parrot').find(({ key }) => key === 'sql.0') as GoldenCase;
    const request = {
      prompt,
      target: { kind: 'adapter' as const, name: 'style' },
      stopTokens: [],
      // More steps than staging waits for: the emulated device does one thing at a time, in turn.
      maxTokens: 60,
      logprobs: 2,
    };
    await served.serve('sql', 'sha256:sql', 'style');
    const undisturbed = await served.generate(request);
    const running = served.start(request);
    await served.serve('pirate', 'sha256:pirate', 'style');
    await served.engine.release('sha256:sql');
    const next = await served.generate(request);
    expect(next.revision).toBe('sha256:pirate');
    expect(next.tokens).not.toEqual(undisturbed.tokens);
    expect(withoutSteps([await running.result])).toEqual(withoutSteps([undisturbed]));
    expect(served.freed).toEqual(['sha256:sql']);
    // The slot that was freed, and poisoned, is written anew.
    await served.serve('sql', 'sha256:again', 'style');
    expect((await served.generate(request)).tokens).toEqual(undisturbed.tokens);
  });

  it('never serves a token of another revision while revisions come and go', SLOW, async () => {
    await using served = await open('parrot', { slots: 4, maxBatch: 16, prefixCache: true });
    expect(await swapUnderLoad(served, { rounds: 14, seed: 4 })).toBeGreaterThan(25);
  });

  it('refuses float32, which its kernels cannot do', async () => {
    await expect(open('parrot', { dtype: 'float32' })).rejects.toMatchObject({
      code: 'invalid_argument',
      field: 'dtype',
      message: expect.stringContaining('auto or bfloat16'),
    });
  });

  it('refuses steps of more rows than a grid has', async () => {
    await expect(open('parrot', { maxBatchTokens: 1 << 16 })).rejects.toMatchObject({
      code: 'invalid_argument',
      field: 'maxBatchTokens',
    });
  });

  it('says what it needs and what is free where memory does not suffice', async () => {
    vi.stubEnv('LORIKEET_SIMT_MEMORY', '1000000');
    await expect(open('parrot')).rejects.toMatchObject({
      code: 'no_capacity',
      message: expect.stringMatching(
        /Expected \d+ bytes of device memory \(weights \d+, KV cache \d+, adapters' pages \d+, activations \d+, graphs \d+\) but 1000000 are free/,
      ),
    });
  });

  it('is there where its library and a device are', () => {
    expect(backends()[0]).toMatchObject({ name: 'cuda', available: true });
  });
});

describe('sampling on the device', () => {
  const { ids: PROMPT, key: KEY } = goldenCases('parrot').find(({ key }) => key === 'sql.5') as GoldenCase;
  const target = { kind: 'adapter', name: 'sql' } as const;
  const TEMPERATURE = 2;

  /** The golden distribution at that temperature, the likeliest token first. */
  const logits = goldenTensors('parrot').get(`${KEY}.last`) as Float32Array;
  const likely = [...logSoftmax(logits.map((logit) => logit / TEMPERATURE))]
    .map((logprob, token) => ({ token, probability: Math.exp(logprob) }))
    .sort((a, b) => b.probability - a.probability);
  const probability = (rank: number) => likely[rank]?.probability ?? 0;
  const upTo = (rank: number) => likely.slice(0, rank).reduce((sum, { probability }) => sum + probability, 0);

  // Far from the borders between tokens, which bf16 moves.
  it.each([
    { cut: {}, kept: likely.length },
    { cut: { topK: 3 }, kept: 3 },
    { cut: { topK: 5, topP: (upTo(1) + probability(1) / 2) / upTo(5) }, kept: 2 },
    { cut: { topP: upTo(3) + probability(3) / 2 }, kept: 4 },
    { cut: { minP: (probability(2) + probability(3)) / 2 / probability(0) }, kept: 3 },
  ])('keeps to %o, and to the golden distribution', SLOW, async ({ cut, kept }) => {
    await using served = await open('parrot');
    await served.serve('sql');
    const draws = 100;
    const sampling = { stopTokens: [], maxTokens: 1, temperature: TEMPERATURE, ...cut };
    const answers = await Promise.all(
      Array.from({ length: draws }, (_, seed) =>
        served.generate({ prompt: PROMPT, target, seed, ...sampling }),
      ),
    );
    const drawn = answers.map(({ tokens }) => tokens[0] as number);
    const allowed = new Set(likely.slice(0, kept).map(({ token }) => token));
    expect(drawn.filter((token) => !allowed.has(token))).toEqual([]);
    for (const { token, probability } of likely.slice(0, Math.min(kept, 5))) {
      const share = probability / upTo(kept);
      const deviation = 5 * Math.sqrt((share * (1 - share)) / draws) + 0.01;
      expect(Math.abs(drawn.filter((t) => t === token).length / draws - share)).toBeLessThan(deviation);
    }
  });

  it('leaves penalties and biases to the host', SLOW, async () => {
    await using served = await open('parrot');
    const answer = await served.generate({
      prompt: PROMPT,
      stopTokens: [],
      maxTokens: 3,
      logitBias: [[77, 1000]],
      logprobs: 2,
    });
    expect(answer.tokens).toEqual([77, 77, 77]);
    expect(answer.logprobs[0]?.top[0]?.[0]).not.toBe(77);
  });

  it.each([
    { sampling: { temperature: TEMPERATURE }, kept: 5 },
    { sampling: { temperature: 1, topK: 3 }, kept: 3 },
    { sampling: { temperature: 1, topP: 1e-6 }, kept: 1 },
    { sampling: { temperature: 1, minP: 1 }, kept: 1 },
  ])('has log-probabilities of what $sampling left', SLOW, async ({ sampling, kept }) => {
    await using served = await open('parrot');
    const request = { prompt: PROMPT, stopTokens: [], maxTokens: 1, seed: 2, logprobs: 5 };
    const [raw, drawn] = await Promise.all([
      served.generate({ ...request, logprobsMode: 'raw' }),
      served.generate({ ...request, ...sampling, logprobsMode: 'processed' }),
    ]);
    const top = drawn.logprobs[0]?.top.filter(([, logprob]) => logprob > Number.NEGATIVE_INFINITY) ?? [];
    const likeliest = raw.logprobs[0]?.top ?? [];
    expect(top.map(([token]) => token)).toEqual(likeliest.slice(0, kept).map(([token]) => token));
    const to = (scores: [number, number][], rank: number) => (scores[rank]?.[1] ?? 0) - (scores[0]?.[1] ?? 0);
    top.forEach((_, rank) => {
      expect(to(top, rank)).toBeCloseTo(to(likeliest, rank) / sampling.temperature, 4);
    });
    const sum = top.reduce((total, [, logprob]) => total + Math.exp(logprob), 0);
    if (kept < 5) expect(sum).toBeCloseTo(1, 5);
  });
});

// Last: a device that failed stays so.
describe('a device that fails', () => {
  it('fails what is running, and what comes later, with a code', SLOW, async () => {
    await using served = await open('parrot');
    vi.stubEnv('LORIKEET_SIMT_FAILS_AFTER', '300');
    const request = { prompt: [11, 22, 33], stopTokens: [], maxTokens: 200 };
    const failure = { code: 'engine_failed', message: expect.stringContaining('illegal memory access') };
    await expect(served.generate(request)).rejects.toMatchObject(failure);
    await expect(served.generate(request)).rejects.toMatchObject(failure);
  });
});
