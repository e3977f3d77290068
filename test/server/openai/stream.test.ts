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
  server = await startParrot(adapterFlags(['sql']));
});
afterAll(() => server.close());

const QUESTION = userSays('List the level of all planets from Tokyo.');
const SQL = "SELECT level FROM planets WHERE city = 'Tokyo';";

// biome-ignore lint/suspicious/noExplicitAny: JSON of the server.
type Json = any;

async function stream(path: string, body: object): Promise<Json[]> {
  const reply = await server.post(path, { ...body, stream: true });
  expect(reply.status).toBe(200);
  expect(reply.headers.get('content-type')).toMatch('text/event-stream');
  return sseObjects(reply.body);
}

const REQUESTS: Record<string, object> = {
  greedy: { temperature: 0 },
  sampled: { temperature: 1.3, seed: 7, max_tokens: 40 },
  'with log-probabilities': { temperature: 0, logprobs: true, top_logprobs: 3 },
  'sampled with a stop string': { temperature: 1.5, seed: 3, max_tokens: 40, stop: ['e', 'ity'] },
  'of two choices': { temperature: 1.2, seed: 11, n: 2, max_tokens: 20, logprobs: true },
};

describe.each(Object.entries(REQUESTS))('a streamed chat, %s', (_, request) => {
  const body = { model: 'sql', messages: QUESTION, return_token_ids: true, ...request };

  it('holds what the same chat holds at once', async () => {
    const whole = (await server.post('/v1/chat/completions', body)).body;
    const chunks = await stream('/v1/chat/completions', { ...body, stream_options: { include_usage: true } });
    for (const choice of whole.choices) {
      const own: Json[] = chunks
        .flatMap(({ choices }) => choices)
        .filter(({ index }: Json) => index === choice.index);
      expect(own.map(({ delta }) => delta.content ?? '').join('')).toBe(choice.message.content);
      expect(own.flatMap(({ token_ids }) => token_ids ?? [])).toEqual(choice.token_ids);
      expect(own.flatMap(({ logprobs }) => logprobs?.content ?? [])).toEqual(choice.logprobs?.content ?? []);
      expect(own.at(-1)).toMatchObject({
        finish_reason: choice.finish_reason,
        stop_reason: choice.stop_reason,
      });
      expect(own.slice(0, -1).map(({ finish_reason }) => finish_reason)).not.toContain(choice.finish_reason);
    }
    expect(chunks.at(-1)).toMatchObject({ choices: [], lora: whole.lora });
    const { prompt_tokens_details: _, ...usage } = whole.usage;
    expect(chunks.at(-1).usage).toMatchObject(usage);
  });
});

describe('a streamed chat', () => {
  it('begins with the role and names its revision where it ends', async () => {
    const chunks = await stream('/v1/chat/completions', { model: 'sql', messages: QUESTION, temperature: 0 });
    expect(chunks[0].choices[0].delta).toEqual({ role: 'assistant', content: '' });
    expect(chunks.at(-1).choices[0].finish_reason).toBe('stop');
    expect(chunks.at(-1).lora).toMatchObject({ name: 'sql', step: null, spans: [{ from: 0 }] });
    expect(chunks.slice(0, -1).filter((chunk) => 'lora' in chunk)).toEqual([]);
    expect(chunks.filter((chunk) => 'usage' in chunk)).toEqual([]);
  });

  it('counts usage in every chunk where asked', async () => {
    const chunks = await stream('/v1/chat/completions', {
      model: 'sql',
      messages: QUESTION,
      temperature: 0,
      stream_options: { continuous_usage_stats: true },
    });
    const counts = chunks.map(({ usage }) => usage.completion_tokens);
    expect(counts).toEqual(counts.toSorted((a, b) => a - b));
    expect(counts.at(-1)).toBe(11);
  });
});

describe('a streamed completion', () => {
  it('echoes the prompt once, with its log-probabilities', async () => {
    const body = {
      model: 'sql',
      prompt: 'List the level',
      temperature: 0,
      max_tokens: 5,
      echo: true,
      logprobs: 2,
    };
    const whole = (await server.post('/v1/completions', body)).body.choices[0];
    const chunks = await stream('/v1/completions', body);
    const choices = chunks.map(({ choices: [choice] }) => choice);
    expect(choices.map(({ text }) => text).join('')).toBe(whole.text);
    expect(whole.text).toMatch(/^List the level/);
    for (const field of ['tokens', 'token_ids', 'token_logprobs', 'top_logprobs', 'text_offset']) {
      expect(
        choices.flatMap(({ logprobs }) => logprobs[field]),
        field,
      ).toEqual(whole.logprobs[field]);
    }
    expect(whole.logprobs.token_logprobs[0]).toBeNull();
    expect(whole.logprobs.token_logprobs.slice(1).every((value: number) => value < 0)).toBe(true);
  });
});

describe('stopping', () => {
  const ask = async (more: object) =>
    (await server.post('/v1/chat/completions', { model: 'sql', messages: QUESTION, temperature: 0, ...more }))
      .body;

  it('cuts at a stop string, wherever tokens break', async () => {
    const { choices } = await ask({ stop: ['S WH', 'never'] });
    expect(choices[0]).toMatchObject({ message: { content: SQL }, finish_reason: 'stop', stop_reason: null });
    const cut = await ask({ stop: 'anets WHE' });
    expect(cut.choices[0]).toMatchObject({
      message: { content: 'SELECT level FROM pl' },
      finish_reason: 'stop',
      stop_reason: 'anets WHE',
    });
    expect(cut.usage.completion_tokens).toBeLessThan(11);
  });

  it('gives out in the end what only looked like the start of a stop string', async () => {
    expect((await ask({ stop: ["';!"] })).choices[0].message.content).toBe(SQL);
  });

  it('keeps the stop string where asked', async () => {
    const { choices } = await ask({ stop: ' FROM', include_stop_str_in_output: true });
    expect(choices[0].message.content).toBe('SELECT level FROM');
  });

  it('stops at a named token and says so', async () => {
    const { choices } = await ask({ stop_token_ids: [309], return_token_ids: true });
    expect(choices[0]).toMatchObject({ message: { content: 'SELECT level' }, stop_reason: 309 });
    expect(choices[0].token_ids.at(-1)).toBe(309);
  });

  it('stops at max_tokens', async () => {
    const { choices, usage } = await ask({ max_completion_tokens: 2, max_tokens: 9 });
    expect(choices[0]).toMatchObject({ message: { content: 'SELECT level' }, finish_reason: 'length' });
    expect(usage).toMatchObject({ prompt_tokens: 28, completion_tokens: 2, total_tokens: 30 });
  });

  it('runs on where the end token is to be ignored', async () => {
    const { choices } = await ask({ ignore_eos: true, max_tokens: 20, return_token_ids: true });
    expect(choices[0].token_ids).toHaveLength(20);
    expect(choices[0].token_ids).toContain(4);
    expect(choices[0].finish_reason).toBe('length');
    const shown = await ask({ ignore_eos: true, max_tokens: 20, skip_special_tokens: false });
    expect(shown.choices[0].message.content).toContain(`${SQL}<|eot_id|>`);
  });

  it('counts and returns the end token, with its log-probability where asked', async () => {
    const plain = await ask({ return_token_ids: true });
    const scored = await ask({ return_token_ids: true, logprobs: true });
    expect(plain.choices[0].token_ids.at(-1)).toBe(4);
    expect(scored.choices[0].token_ids).toEqual(plain.choices[0].token_ids);
    expect(scored.choices[0].logprobs.content.map(({ token_id }: Json) => token_id)).toEqual(
      plain.choices[0].token_ids,
    );
    expect(scored.usage).toEqual(plain.usage);
    expect(scored.choices[0].message.content).toBe(SQL);
  });
});
