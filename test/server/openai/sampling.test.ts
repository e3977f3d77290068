import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  adapterFlags,
  type ParrotServer,
  sseObjects,
  startParrot,
  userSays,
} from '../../support/parrot-server.ts';

let server: ParrotServer;
beforeAll(async () => {
  server = await startParrot(adapterFlags(['sql', 'pirate', 'json']));
});
afterAll(() => server.close());

const PROMPT = [0, 151, 759, 613, 99, 937, 341];
const WILD = { model: 'sql', prompt: PROMPT, temperature: 1.5, max_tokens: 16, return_token_ids: true };

// biome-ignore lint/suspicious/noExplicitAny: JSON of the server.
async function complete(body: object | string): Promise<any> {
  const reply = await server.post('/v1/completions', body);
  expect(reply.status, JSON.stringify(reply.body)).toBe(200);
  return reply.body;
}

const tokensOf = async (body: object) => (await complete(body)).choices[0].token_ids;

describe('seeds', () => {
  it.each([0, 42, -1, Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER])(
    '%d gives the same answer again',
    async (seed) => {
      expect(await tokensOf({ ...WILD, seed })).toEqual(await tokensOf({ ...WILD, seed }));
    },
  );

  it('keep all 64 bits', async () => {
    const ask = async (digits: string) =>
      (await complete(JSON.stringify({ ...WILD, seed: 7 }).replace('"seed":7', `"seed": ${digits}`)))
        .choices[0].token_ids;
    const seeds = ['9223372036854775807', '9223372036854775806', '-9223372036854775808', '9007199254740993'];
    const first = await Promise.all(seeds.map(ask));
    expect(new Set(first.map(String)).size).toBe(4);
    expect(await Promise.all(seeds.map(ask))).toEqual(first);
  });

  it('differ from each other, and from none', async () => {
    const answers = await Promise.all([
      tokensOf({ ...WILD, seed: 1 }),
      tokensOf({ ...WILD, seed: 2 }),
      tokensOf(WILD),
      tokensOf(WILD),
    ]);
    expect(new Set(answers.map(String)).size).toBe(4);
  });
});

describe('n', () => {
  it('gives so many choices, different where sampled and the same again by seed', async () => {
    const first = await complete({ ...WILD, n: 4, seed: 5 });
    const again = await complete({ ...WILD, n: 4, seed: 5 });
    expect(first.choices.map(({ index }: { index: number }) => index)).toEqual([0, 1, 2, 3]);
    expect(new Set(first.choices.map((choice: object) => JSON.stringify(choice).slice(12))).size).toBe(4);
    expect(again.choices).toEqual(first.choices);
    expect(first.usage.prompt_tokens).toBe(PROMPT.length);
  });

  it('of several prompts numbers the choices prompt by prompt', async () => {
    const prompts = [PROMPT, [0, 308]];
    const both = await complete({ ...WILD, prompt: prompts, n: 2, temperature: 0 });
    const alone = await Promise.all(prompts.map((prompt) => tokensOf({ ...WILD, prompt, temperature: 0 })));
    expect(both.choices.map((choice: { token_ids: number[] }) => choice.token_ids)).toEqual([
      alone[0],
      alone[0],
      alone[1],
      alone[1],
    ]);
    expect(both.choices[2].prompt_token_ids).toEqual([0, 308]);
    expect(both.usage.prompt_tokens).toBe(9);
  });
});

describe('sampling parameters', () => {
  it('top_k 1 and a tiny top_p are greedy', async () => {
    const greedy = await tokensOf({ ...WILD, temperature: 0 });
    expect(await tokensOf({ ...WILD, top_k: 1 })).toEqual(greedy);
    expect(await tokensOf({ ...WILD, top_p: 1e-6 })).toEqual(greedy);
    expect(await tokensOf({ ...WILD, min_p: 1 })).toEqual(greedy);
  });

  it('logit_bias forces and forbids a token', async () => {
    const [first] = await tokensOf({ ...WILD, temperature: 0 });
    expect((await tokensOf({ ...WILD, temperature: 0, logit_bias: { [first]: -100 } }))[0]).not.toBe(first);
    expect(await tokensOf({ ...WILD, logit_bias: { 77: 100 }, max_tokens: 3 })).toEqual([77, 77, 77]);
  });

  it('penalties break a repetition', async () => {
    const loop = { model: 'parrot', prompt: [0], temperature: 0, max_tokens: 8, return_token_ids: true };
    expect(new Set(await tokensOf(loop)).size).toBe(1);
    expect(new Set(await tokensOf({ ...loop, presence_penalty: 2 })).size).toBeGreaterThan(1);
    expect(new Set(await tokensOf({ ...loop, frequency_penalty: 2 })).size).toBeGreaterThan(1);
    expect(new Set(await tokensOf({ ...loop, repetition_penalty: 3 })).size).toBeGreaterThan(1);
  });

  it('log-probabilities are of the raw distribution unless the request says otherwise', async () => {
    const of = async (more: object) =>
      (await complete({ ...WILD, logprobs: 5, max_tokens: 1, ...more })).choices[0].logprobs;
    const raw = await of({ temperature: 0 });
    expect(
      (await of({ temperature: 0, logit_bias: { 5: 50 }, presence_penalty: 1 })).top_logprobs[0],
    ).toMatchObject(raw.top_logprobs[0]);
  });
});

describe('logprobs_mode', () => {
  const LIKELY = { ...WILD, temperature: 0.7, top_k: 5, max_tokens: 1, logprobs: 20, seed: 11 };
  const namesById = { return_tokens_as_token_ids: true };

  it('processed is the raw distribution at the temperature, among what top_k leaves', async () => {
    const raw = await complete({ ...LIKELY, ...namesById });
    const drawn = await complete({ ...LIKELY, ...namesById, logprobs_mode: 'processed' });
    expect([raw.logprobs_mode, drawn.logprobs_mode]).toEqual(['raw', 'processed']);
    const top = Object.entries<number>(raw.choices[0].logprobs.top_logprobs[0]);
    const scaled = top.map(([name, logprob]) => [name, logprob / 0.7] as const);
    const kept = scaled.toSorted(([, a], [, b]) => b - a).slice(0, 5);
    const logSum = Math.log(kept.reduce((sum, [, logit]) => sum + Math.exp(logit), 0));
    const wanted = new Map(kept.map(([name, logit]) => [name, logit - logSum]));
    const { tokens, token_logprobs, top_logprobs } = drawn.choices[0].logprobs;
    expect(tokens).toEqual(raw.choices[0].logprobs.tokens);
    expect(token_logprobs[0]).toBeCloseTo(wanted.get(tokens[0]) ?? Number.NaN, 5);
    expect(token_logprobs[0]).not.toBeCloseTo(raw.choices[0].logprobs.token_logprobs[0], 2);
    for (const [name, logprob] of Object.entries<number>(top_logprobs[0])) {
      expect(logprob).toBeCloseTo(wanted.get(name) ?? -9999, 5);
    }
  });

  const chat = { model: 'sql', messages: userSays('List'), temperature: 2, max_tokens: 3, seed: 5 };
  const ask = async (body: object) => await server.post('/v1/chat/completions', body);

  it('is in a chat too, streamed as at once', async () => {
    const body = { ...chat, logprobs: true, logprobs_mode: 'processed' };
    const whole = (await ask(body)).body;
    const chunks = sseObjects((await ask({ ...body, stream: true })).body);
    expect([whole.logprobs_mode, chunks.at(-1).logprobs_mode]).toEqual(['processed', 'processed']);
    const logprobs = (choice: { logprobs: { content: { logprob: number }[] } | null }) =>
      (choice.logprobs?.content ?? []).map(({ logprob }) => logprob);
    expect(chunks.flatMap(({ choices: [choice] }) => logprobs(choice))).toEqual(logprobs(whole.choices[0]));
    const raw = (await ask({ ...body, logprobs_mode: 'raw' })).body;
    expect(logprobs(raw.choices[0])).not.toEqual(logprobs(whole.choices[0]));
  });

  it('is what --logprobs-mode says where a request does not', async () => {
    const processing = await startParrot(['--logprobs-mode', 'processed']);
    const modeOf = async (more: object) =>
      (await processing.post('/v1/completions', { ...LIKELY, model: 'parrot', ...more })).body.logprobs_mode;
    const modes = [await modeOf({}), await modeOf({ logprobs_mode: 'raw' })];
    await processing.close();
    expect(modes).toEqual(['processed', 'raw']);
  });

  it('is not in an answer without log-probabilities', async () => {
    expect((await ask(chat)).body).not.toHaveProperty('logprobs_mode');
  });

  it('is refused where it is neither', async () => {
    const { status, body } = await ask({ ...chat, logprobs_mode: 'drawn' });
    expect([status, body.error.param]).toEqual([400, 'logprobs_mode']);
  });
});

describe('lora.scale', () => {
  const first = async (model: string, scale: number) => {
    const body = { ...WILD, model, temperature: 0, max_tokens: 1, logprobs: 5, lora: { scale } };
    return (await complete(body)).choices[0].logprobs.top_logprobs[0];
  };

  it('0 is the base, 1 the adapter, between is neither', async () => {
    const base = await first('parrot', 1);
    const adapter = await first('sql', 1);
    expect(await first('sql', 0)).toEqual(base);
    expect(adapter).not.toEqual(base);
    const half = await first('sql', 0.5);
    expect(half).not.toEqual(base);
    expect(half).not.toEqual(adapter);
  });
});

describe('the base', () => {
  it('is bit-equal whether or not adapter rows run beside it', async () => {
    const body = {
      model: 'parrot',
      prompt: PROMPT,
      temperature: 0,
      max_tokens: 24,
      logprobs: 20,
      prompt_logprobs: 3,
    };
    const alone = (await complete(body)).choices;
    const beside = ['sql', 'pirate', 'json', 'sql'].map((model, index) =>
      complete({ ...WILD, model, max_tokens: 40, ignore_eos: true, seed: index }),
    );
    const inMixture = (await complete(body)).choices;
    await Promise.all(beside);
    expect(inMixture).toEqual(alone);
    expect(alone[0].logprobs.token_logprobs).toHaveLength(24);
  });

  it('has no revision', async () => {
    const reply = await server.post('/v1/chat/completions', {
      model: 'parrot',
      messages: userSays('Hi'),
      max_tokens: 1,
    });
    expect(reply.body.lora).toBeNull();
    expect(reply.headers.get('x-lora-revision')).toBeNull();
  });
});
