import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type GoldenCase, readGolden } from '../../support/golden.ts';
import { adapterFlags, PARROT, type ParrotServer, startParrot } from '../../support/parrot-server.ts';

// Loops in plain C++: the reference backend gets those that bend scale, rank, dtype, layers and modules, cpu gets all.
const SOME = ['sql', 'pirate', 'json', 'some-layers', 'rank-1-f16', 'rank-24', 'embed-and-head'];
const ALL = [...SOME, 'rank-pattern', 'regex-targets', 'rank-64-bf16'];
const golden = readGolden(PARROT);

interface Answer {
  tokens: number[];
  /** [token, log-probability] of the likeliest tokens after the prompt. */
  top: [number, number][];
  logprobs: number[];
  promptLogprobs: number[];
}

const ids = (record: Record<string, number>) =>
  Object.entries(record).map(([name, logprob]): [number, number] => [
    Number(name.slice('token_id:'.length)),
    logprob,
  ]);

async function ask(server: ParrotServer, { adapter, ids: prompt }: GoldenCase): Promise<Answer> {
  const { status, body } = await server.post('/v1/completions', {
    model: adapter === 'base' ? 'parrot' : adapter,
    prompt,
    temperature: 0,
    max_tokens: 24,
    logprobs: 20,
    prompt_logprobs: 0,
    return_token_ids: true,
    return_tokens_as_token_ids: true,
  });
  expect(status).toBe(200);
  const [choice] = body.choices;
  const rows: Record<string, { logprob: number }>[] = choice.prompt_logprobs.slice(1);
  return {
    tokens: choice.token_ids,
    top: ids(choice.logprobs.top_logprobs[0]),
    logprobs: choice.logprobs.token_logprobs,
    promptLogprobs: rows.map((row, index) => row[prompt[index + 1] as number]?.logprob as number),
  };
}

function requireGolden(answer: Answer, wanted: GoldenCase, tolerance: number): void {
  const { key, greedy, margins, last, promptLogprobs } = wanted;
  const certain = margins.findIndex((margin) => margin < tolerance);
  const end = certain < 0 ? greedy.length : certain;
  expect.soft(answer.tokens.slice(0, end), `${key} tokens`).toEqual(greedy.slice(0, end));
  if (end === greedy.length) expect.soft(answer.tokens, `${key} length`).toEqual(greedy);
  const distances = answer.top.map(([token, logprob]) => Math.abs(logprob - (last[token] as number)));
  expect.soft(answer.top.length, key).toBeGreaterThanOrEqual(20);
  expect.soft(Math.max(...distances), `${key} log-probabilities`).toBeLessThanOrEqual(tolerance);
  expect.soft(answer.promptLogprobs.length, key).toBe(promptLogprobs.length);
  const promptDistances = answer.promptLogprobs.map((logprob, index) =>
    Math.abs(logprob - (promptLogprobs[index] as number)),
  );
  expect
    .soft(Math.max(0, ...promptDistances), `${key} prompt log-probabilities`)
    .toBeLessThanOrEqual(tolerance);
}

// The slowest here, seconds: each case alone, then all at once.
describe.each([
  { backend: 'reference', adapters: SOME },
  { backend: 'cpu', adapters: ALL },
])('golden values over HTTP, backend $backend', ({ backend, adapters }) => {
  const cases = golden.cases.filter(({ adapter }) => adapter === 'base' || adapters.includes(adapter));
  let server: ParrotServer;
  let alone: Answer[];

  const toleranceOf = (adapter: string) =>
    backend === 'reference' ? 2e-3 : 1.5 * (golden.bf16Distance[adapter]?.max as number);

  beforeAll(async () => {
    const flags = ['--backend', backend, '--max-waiting', '128', '--slots', '10'];
    server = await startParrot([...flags, ...adapterFlags(adapters)]);
  });
  afterAll(() => server.close());

  it('agrees with transformers and PEFT, one request at a time', { timeout: 120_000 }, async () => {
    alone = [];
    for (const wanted of cases) {
      const answer = await ask(server, wanted);
      alone.push(answer);
      requireGolden(answer, wanted, toleranceOf(wanted.adapter));
    }
  });

  it('gives the same bits with all adapters and the base in one batch', { timeout: 120_000 }, async () => {
    const mixed = await Promise.all(cases.map((wanted) => ask(server, wanted)));
    cases.forEach(({ key }, index) => {
      expect.soft(mixed[index], key).toEqual(alone[index]);
    });
  });
});
