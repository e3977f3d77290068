import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type ParrotServer, sseObjects, startParrot } from '../../support/parrot-server.ts';

let server: ParrotServer;
beforeEach(async () => {
  server = await startParrot();
});
afterEach(() => server.close());

const LONG = {
  model: 'live',
  prompt: [0, 151, 759, 613],
  temperature: 0,
  max_tokens: 600,
  ignore_eos: true,
  return_token_ids: true,
};

/** Streams, pushes once some tokens have come, and reads to the end. */
async function pushedInto(lora: object, push: () => Promise<unknown>) {
  const response = await fetch(`${server.serving}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ ...LONG, lora, stream: true }),
  });
  const began = response.headers.get('x-lora-revision');
  let text = '';
  let pushed = false;
  for await (const chunk of (response.body as ReadableStream<Uint8Array>).pipeThrough(
    new TextDecoderStream(),
  )) {
    text += chunk;
    if (pushed || text.split('\n\n').length < 5) continue;
    pushed = true;
    await push();
  }
  return { began, text };
}

async function put(fixture: string, headers: Record<string, string> = {}): Promise<string> {
  const { status, body } = await server.put('live', fixture, headers);
  expect(status).toBe(200);
  return body.revision;
}

describe.each([
  ['no policy', {}, 'Finish', false],
  ['no policy', {}, 'Migrate', true],
  ['pin', { policy: 'pin' }, 'Migrate', false],
  ['latest', { policy: 'latest' }, 'Finish', true],
  ['latest, a step expected', { policy: 'latest', expect: { min_step: 1 } }, 'Finish', true],
])('a stream with %s %j, and a push in flight %s', (_, lora, inFlight, moves) => {
  it(`has spans of ${moves ? 'both revisions' : 'its own revision'}`, async () => {
    const first = await put('sql', { 'x-lora-step': '1' });
    let second = '';
    const { began, text } = await pushedInto(lora, async () => {
      second = await put('pirate', { 'x-lora-step': '2', 'x-lora-in-flight': inFlight });
    });
    const chunks = sseObjects(text);
    const tokens = chunks.flatMap(({ choices }) => choices[0].token_ids);
    expect(tokens).toHaveLength(600);
    const last = chunks.at(-1);
    const from = last.lora.spans[1]?.from;
    const spans = [{ from: 0, revision: first, step: 1 }];
    if (moves) spans.push({ from, revision: second, step: 2 });
    expect(last.lora).toEqual({ name: 'live', revision: first, step: 1, spans });
    expect(last.choices[0].lora).toEqual({ spans });
    expect(last.weight_versions).toEqual([
      { version: first, start: 0, end: from ?? 600 },
      ...(moves ? [{ version: second, start: from, end: 600 }] : []),
    ]);
    expect(began).toBe(first);
    if (moves) expect(from).toBeGreaterThan(0);
  });
});

it('a stream that would come to an older step than it expects ends with an error, before a token of it', async () => {
  await put('pirate', { 'x-lora-step': '1' });
  await put('sql', { 'x-lora-step': '2' });
  const sql = await server.post('/v1/completions', LONG);
  const { text } = await pushedInto({ policy: 'latest', expect: { min_step: 2 } }, () =>
    fetch(`${server.admin}/lora/v1/adapters/live/rollback`, {
      method: 'POST',
      headers: { authorization: `Bearer ${server.token}`, 'content-type': 'application/json' },
      body: '{}',
    }),
  );
  const events = text
    .split('\n\n')
    .flatMap((event) => (event.startsWith('data: {') ? [JSON.parse(event.slice(6))] : []));
  expect(events.at(-1).error).toMatchObject({ code: 409, message: expect.stringContaining('of step 1') });
  const tokens = events.flatMap(({ choices }) => choices?.[0].token_ids ?? []);
  expect(tokens).toEqual(sql.body.choices[0].token_ids.slice(0, tokens.length));
  expect(tokens.length).toBeLessThan(600);
});

describe('scores', () => {
  const SHORT = { ...LONG, max_tokens: 12, temperature: 0.7, top_p: 0.9, seed: 3, logprobs: 0, n: 2 };
  /** Of tokens after a prompt, by echo. */
  async function echoed(model: string, tokens: number[]): Promise<number[]> {
    const asked = { model, prompt: [...LONG.prompt, ...tokens], max_tokens: 0, echo: true, logprobs: 0 };
    const { body } = await server.post('/v1/completions', asked);
    return body.choices[0].logprobs.token_logprobs.slice(LONG.prompt.length);
  }

  it('of the base and of other revisions are what those say of the same tokens', async () => {
    const pirate = await put('pirate', { 'x-lora-step': '1' });
    await put('sql', { 'x-lora-step': '2' });
    const lora = { base_logprobs: true, score_under: ['live@step-1', 'live', 'parrot'] };
    const { status, body } = await server.post('/v1/completions', { ...SHORT, lora });
    expect(status).toBe(200);
    for (const choice of body.choices) {
      const base = await echoed('parrot', choice.token_ids);
      expect(choice.lora.base_logprobs).toEqual(base);
      const { score_under: under } = choice.lora;
      expect(Object.keys(under)).toEqual(['live@step-1', 'live', 'parrot']);
      const older = await echoed('live@step-1', choice.token_ids);
      expect(under['live@step-1']).toEqual({ revision: pirate, step: 1, logprobs: older });
      expect(under.live.logprobs).toEqual(choice.logprobs.token_logprobs);
      expect(under.parrot).toEqual({ revision: null, step: null, logprobs: base });
    }
    expect(body.choices[0].token_ids).not.toEqual(body.choices[1].token_ids);
  });

  it('as drawn are under what would have been drawn from', async () => {
    await put('sql');
    const drawn = { ...SHORT, logprobs_mode: 'processed', repetition_penalty: 1.2, presence_penalty: 0.3 };
    const { body } = await server.post('/v1/completions', { ...drawn, lora: { score_under: ['live'] } });
    for (const choice of body.choices) {
      expect(choice.lora.score_under.live.logprobs).toEqual(choice.logprobs.token_logprobs);
    }
    expect(body.logprobs_mode).toBe('processed');
  });

  it('come with the last chunk of a stream, of what they name when the request came', async () => {
    const sql = await put('sql', { 'x-lora-step': '1' });
    const { text } = await pushedInto({ score_under: ['live'], base_logprobs: true }, () =>
      put('pirate', { 'x-lora-step': '2' }),
    );
    const last = sseObjects(text).at(-1).choices[0];
    expect(last.lora.score_under.live).toMatchObject({ revision: sql, step: 1 });
    expect(last.lora.score_under.live.logprobs).toHaveLength(600);
    expect(last.lora.base_logprobs).toHaveLength(600);
  });
});

it('usage says what was computed before, once for all choices of a prompt', async () => {
  await put('sql');
  const prompt = Array.from({ length: 70 }, (_, index) => (7 * index) % 1000);
  const ask = async () =>
    (await server.post('/v1/completions', { ...LONG, prompt, max_tokens: 2, n: 3 })).body.usage;
  expect(await ask()).toMatchObject({ prompt_tokens: 70, prompt_tokens_details: { cached_tokens: 0 } });
  expect(await ask()).toMatchObject({ prompt_tokens: 70, prompt_tokens_details: { cached_tokens: 64 } });
  const { body: metrics } = await server.get('/metrics');
  expect(metrics).toContain('lorikeet_prefix_cache_queries_total{adapter="live"} 420');
  expect(metrics).toContain('lorikeet_prefix_cache_hits_total{adapter="live"} 320');
  expect(metrics).toMatch(/vllm:prefix_cache_hits_total{[^}]*} 320/);
});
