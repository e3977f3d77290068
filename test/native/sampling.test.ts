import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { GenerateRequest, TokenLogprobs } from '../../native/types.ts';
import { type GoldenCase, goldenCases, goldenTensors, logSoftmax, TestEngine } from './support.ts';

// One token as prompt: the next one is uncertain enough to be worth sampling.
const { ids: PROMPT, key: KEY } = goldenCases('parrot').find(({ key }) => key === 'sql.5') as GoldenCase;
const SQL = { kind: 'adapter', name: 'sql' } as const;

let served: TestEngine;

beforeAll(async () => {
  served = await TestEngine.open('parrot', { maxWaiting: 10_000 });
  await served.serve('sql');
});
afterAll(() => served.engine.close());

function sample(request: Partial<GenerateRequest>): Promise<number[]> {
  return served
    .generate({ prompt: PROMPT, target: SQL, stopTokens: [], temperature: 1, ...request })
    .then(({ tokens }) => tokens);
}

/** How often each token came first in `draws` answers with different seeds. */
async function frequencies(draws: number, request: Partial<GenerateRequest>): Promise<Map<number, number>> {
  const firsts = await Promise.all(
    Array.from({ length: draws }, (_, seed) => sample({ ...request, maxTokens: 1, seed })),
  );
  const counts = new Map<number, number>();
  for (const [first] of firsts) counts.set(first ?? -1, (counts.get(first ?? -1) ?? 0) + 1 / draws);
  return counts;
}

function expected(temperature: number): { token: number; probability: number }[] {
  const logits = (goldenTensors('parrot').get(`${KEY}.last`) as Float32Array).map(
    (logit) => logit / temperature,
  );
  return [...logSoftmax(logits)]
    .map((logprob, token) => ({ token, probability: Math.exp(logprob) }))
    .sort((a, b) => b.probability - a.probability);
}

describe('sampling', () => {
  it('draws tokens as often as the golden distribution says', async () => {
    const draws = 3000;
    const counts = await frequencies(draws, { temperature: 2 });
    for (const { token, probability } of expected(2).slice(0, 30)) {
      const deviation = 5 * Math.sqrt((probability * (1 - probability)) / draws);
      expect(Math.abs((counts.get(token) ?? 0) - probability)).toBeLessThan(deviation);
    }
  });

  it.each([
    { cut: { topK: 3 }, kept: (rank: number) => rank < 3 },
    { cut: { topP: 0.5 }, kept: (_: number, before: number) => before < 0.5 },
    { cut: { minP: 0.2 }, kept: (_: number, __: number, ratio: number) => ratio >= 0.2 },
    { cut: { topK: 5, topP: 0.6 }, kept: (rank: number) => rank < 5 },
  ])('keeps to %o', async ({ cut, kept }) => {
    const distribution = expected(2);
    let before = 0;
    const allowed = distribution.filter(({ probability }, rank) => {
      const keeps = kept(rank, before, probability / (distribution[0]?.probability ?? 1));
      before += probability;
      return keeps;
    });
    const counts = await frequencies(400, { temperature: 2, ...cut });
    const tokens = new Set(allowed.map(({ token }) => token));
    expect([...counts.keys()].filter((token) => !tokens.has(token))).toEqual([]);
    expect(counts.size).toBeGreaterThan(1);
  });

  it('repeats an answer with its seed, in any company, and differs without', async () => {
    const alone = await sample({ seed: 7, temperature: 1.5 });
    const company = Array.from({ length: 20 }, (_, seed) => sample({ seed: seed + 100, temperature: 1.5 }));
    expect(await sample({ seed: 7, temperature: 1.5 })).toEqual(alone);
    expect(new Set((await Promise.all(company)).map(String)).size).toBeGreaterThan(15);
  });

  it('draws anew at every position', async () => {
    const nearlyUniform = await sample({ temperature: 1000, maxTokens: 100 });
    expect(new Set(nearlyUniform).size).toBeGreaterThan(80);
  });

  it('is greedy with topK 1 and with topP 0', async () => {
    const greedy = await sample({ temperature: 0 });
    expect(await sample({ topK: 1 })).toEqual(greedy);
    expect(await sample({ topP: 0 })).toEqual(greedy);
  });

  it('obeys logit bias', async () => {
    expect(await sample({ temperature: 0, maxTokens: 3, logitBias: [[77, 1000]] })).toEqual([77, 77, 77]);
    const [first] = await sample({ temperature: 0, maxTokens: 1 });
    expect(await sample({ temperature: 0, maxTokens: 1, logitBias: [[first ?? 0, -1000]] })).not.toEqual([
      first,
    ]);
  });

  it('repeats less under penalties', async () => {
    const distinct = async (request: Partial<GenerateRequest>) =>
      new Set(await sample({ temperature: 0, maxTokens: 20, ...request })).size;
    const plain = await distinct({});
    expect(await distinct({ presencePenalty: 100 })).toBe(20);
    expect(await distinct({ frequencyPenalty: 100 })).toBeGreaterThan(plain);
    expect(await distinct({ repetitionPenalty: 100 })).toBeGreaterThan(plain);
  });

  it('reports log-probabilities of the raw distribution', async () => {
    const request = { prompt: PROMPT, target: SQL, stopTokens: [], maxTokens: 1, logprobs: 4 };
    const plain = await served.generate(request);
    const bent = await served.generate({ ...request, temperature: 3, logitBias: [[77, 1000]] });
    const golden = logSoftmax(goldenTensors('parrot').get(`${KEY}.last`) as Float32Array);
    expect(bent.tokens).toEqual([77]);
    expect(bent.logprobs[0]?.top).toEqual(plain.logprobs[0]?.top);
    expect(Math.abs((bent.logprobs[0]?.logprob ?? 0) - (golden[77] ?? 0))).toBeLessThan(2e-3);
  });

  it("reports log-probabilities of what it drew from, a prompt's raw all the same", async () => {
    const sampling = { temperature: 0.7, topK: 8, presencePenalty: 1.5, seed: 3 };
    const request = {
      prompt: PROMPT,
      target: SQL,
      stopTokens: [],
      maxTokens: 6,
      logprobs: 1024,
      ...sampling,
    };
    const raw = await served.generate({ ...request, promptLogprobs: 3 });
    const drawn = await served.generate({ ...request, promptLogprobs: 3, logprobsMode: 'processed' });
    expect(drawn.tokens).toEqual(raw.tokens);
    expect(drawn.promptLogprobs).toEqual(raw.promptLogprobs);
    for (const [place, token] of drawn.tokens.entries()) {
      const before = new Set(drawn.tokens.slice(0, place));
      const bent = (raw.logprobs[place]?.top ?? [])
        .map(([id, logprob]) => ({ id, logit: (logprob - (before.has(id) ? 1.5 : 0)) / 0.7 }))
        .sort((a, b) => b.logit - a.logit);
      const kept = bent.slice(0, 8);
      const logSum = Math.log(kept.reduce((sum, { logit }) => sum + Math.exp(logit), 0));
      const wanted = new Map(kept.map(({ id, logit }) => [id, logit - logSum]));
      const { logprob, top } = drawn.logprobs[place] as TokenLogprobs;
      expect(logprob).toBeCloseTo(wanted.get(token) ?? Number.NaN, 5);
      expect(top.slice(0, 8).map(([id]) => id)).toEqual([...wanted.keys()]);
      for (const [id, value] of top.slice(0, 8)) expect(value).toBeCloseTo(wanted.get(id) ?? Number.NaN, 5);
      expect(new Set(top.slice(8).map(([, value]) => value))).toEqual(new Set([Number.NEGATIVE_INFINITY]));
    }
  });

  it('ends at a stop token, which is not delivered, and at maxTokens', async () => {
    const tokens = await sample({ temperature: 0, maxTokens: 12 });
    const stop = tokens[4] as number;
    const until = tokens.indexOf(stop);
    const stopped = await served.generate({ prompt: PROMPT, target: SQL, stopTokens: [stop] });
    expect(stopped).toMatchObject({ tokens: tokens.slice(0, until), reason: 'stop', stopToken: stop });
    const scored = await served.generate({ prompt: PROMPT, target: SQL, maxTokens: 0, promptLogprobs: 0 });
    expect(scored).toMatchObject({ tokens: [], reason: 'length', stopToken: null });
    expect(scored.promptLogprobs).toHaveLength(PROMPT.length - 1);
  });
});
