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

const CHAT = { model: 'sql', messages: userSays('Hi'), temperature: 0, max_tokens: 2 };
const COMPLETION = { model: 'sql', prompt: 'Hi', temperature: 0, max_tokens: 2 };

type Row = [
  name: string,
  path: 'chat' | 'completion',
  fields: object,
  status: number,
  param: string | null,
  says: RegExp,
];

const REFUSED: Row[] = [
  ['an unknown model', 'chat', { model: 'nobody' }, 404, 'model', /nobody/],
  ['a model of another case', 'chat', { model: 'SQL' }, 404, 'model', /SQL/],
  ['a pin that nothing matches', 'chat', { model: 'sql@000000' }, 404, 'model', /000000/],
  ['a step that nobody pushed', 'completion', { model: 'sql@step-9' }, 404, 'model', /step-9/],
  ['no model', 'chat', { model: undefined }, 400, 'model', /model/],
  ['no messages', 'chat', { messages: [] }, 400, 'messages', /messages/],
  ['an unknown role', 'chat', { messages: [{ role: 'tool', content: 'x' }] }, 400, 'messages.0.role', /role/],
  [
    'an image',
    'chat',
    { messages: [{ role: 'user', content: [{ type: 'image_url' }] }] },
    400,
    'messages.0.content.0.type',
    /expected "text"/,
  ],
  ['tools', 'chat', { tools: [{ type: 'function' }] }, 400, 'tools', /not supported$/],
  [
    'a JSON schema',
    'chat',
    { response_format: { type: 'json_object' } },
    400,
    'response_format',
    /not supported/,
  ],
  ['a guided grammar', 'completion', { guided_regex: 'a*' }, 400, 'guided_regex', /not supported/],
  ['min_tokens', 'completion', { min_tokens: 3 }, 400, 'min_tokens', /not supported/],
  ['a suffix', 'completion', { suffix: 'x' }, 400, 'suffix', /not supported/],
  ['best_of', 'completion', { best_of: 3 }, 400, 'best_of', /not supported, but 1$/],
  ['a policy that there is not', 'chat', { lora: { policy: 'newest' } }, 400, 'lora.policy', /./],
  [
    'a revision that is expected of what may move on',
    'chat',
    { lora: { policy: 'latest', expect: { revision: '0123456' } } },
    400,
    'lora.policy',
    /goes with min_step/,
  ],
  ['other weights that there are not', 'chat', { lora: { score_under: ['none'] } }, 404, 'model', /none/],
  [
    'more other weights than nine',
    'chat',
    { lora: { score_under: Array(9).fill('parrot') } },
    400,
    'lora.score_under',
    /at most 8/,
  ],
  ['an empty salt', 'chat', { cache_salt: '' }, 400, 'cache_salt', /./],
  ['a negative scale', 'chat', { lora: { scale: -1 } }, 400, 'lora.scale', />=0/],
  ['a huge scale', 'chat', { lora: { scale: 17 } }, 400, 'lora.scale', /<=16/],
  ['a negative temperature', 'chat', { temperature: -1 }, 400, 'temperature', />=0/],
  ['a temperature in words', 'chat', { temperature: 'hot' }, 400, 'temperature', /number/],
  ['top_p of zero', 'chat', { top_p: 0 }, 400, 'top_p', />0/],
  ['too many choices', 'chat', { n: 129 }, 400, 'n', /<=128/],
  [
    'too many prompts times n',
    'completion',
    { prompt: ['a', 'b'], n: 65 },
    400,
    'n',
    /2 prompts times n = 65/,
  ],
  ['an empty stop string', 'chat', { stop: [''] }, 400, 'stop.0', /./],
  ['too many log-probabilities', 'completion', { logprobs: 21 }, 400, 'logprobs', /<=20/],
  ['top_logprobs alone', 'chat', { top_logprobs: 3 }, 400, 'top_logprobs', /logprobs: true/],
  [
    'streamed prompt_logprobs',
    'chat',
    { stream: true, prompt_logprobs: 1 },
    400,
    'prompt_logprobs',
    /streamed/,
  ],
  [
    'stream_options without a stream',
    'chat',
    { stream_options: { include_usage: true } },
    400,
    'stream_options',
    /stream/,
  ],
  ['a bias on no token', 'chat', { logit_bias: { x: 1 } }, 400, 'logit_bias.x', /./],
  [
    'a bias beyond the vocabulary',
    'chat',
    { logit_bias: { 1024: 1 } },
    400,
    'logit_bias',
    /below 1024 but received 1024/,
  ],
  [
    'a token beyond the vocabulary',
    'completion',
    { prompt: [1, 1024] },
    400,
    'prompt',
    /below 1024 but received 1024/,
  ],
  ['a negative token', 'completion', { prompt: [-1] }, 400, 'prompt.0', /./],
  ['an empty prompt', 'completion', { prompt: [] }, 400, 'prompt', /./],
  [
    'nothing to encode',
    'completion',
    { prompt: '', add_special_tokens: false },
    400,
    'prompt',
    /at least one token/,
  ],
  [
    'a prompt that is too long',
    'completion',
    { prompt: Array(2049).fill(7) },
    400,
    'prompt',
    /has 2049 tokens, but at most 2048/,
  ],
  [
    'a full prompt that leaves no room',
    'completion',
    { prompt: Array(2048).fill(7), max_tokens: null },
    400,
    'prompt',
    /2048 tokens, but at most 2048/,
  ],
  [
    'more tokens than fit',
    'completion',
    { prompt: [7, 7], max_tokens: 2047 },
    400,
    'max_tokens',
    /has 2 tokens and 2047 .* 2048/,
  ],
  ['a text that cannot fit', 'completion', { prompt: 'a'.repeat(32_769) }, 400, 'prompt', /32769 characters/],
];

describe('a request is refused by name for', () => {
  it.each(REFUSED)('%s', async (_, path, fields, status, param, says) => {
    const base = path === 'chat' ? CHAT : COMPLETION;
    const reply = await server.post(path === 'chat' ? '/v1/chat/completions' : '/v1/completions', {
      ...base,
      ...fields,
    });
    expect(reply.status).toBe(status);
    expect(reply.body).toEqual({
      error: {
        message: expect.stringMatching(says),
        type: status === 404 ? 'NotFoundError' : 'BadRequestError',
        param,
        code: status,
      },
    });
  });
});

describe('a body is refused', () => {
  const send = (body: string, headers: Record<string, string>) =>
    fetch(`${server.serving}/v1/completions`, { method: 'POST', body, headers });

  it.each([
    ['that is not JSON', '{', { 'content-type': 'application/json' }, 400],
    ['that is a list', '[]', { 'content-type': 'application/json' }, 400],
    ['that is empty', '', { 'content-type': 'application/json' }, 400],
    ['of a form', 'model=sql', { 'content-type': 'application/x-www-form-urlencoded' }, 415],
    [
      'that says it is compressed',
      '{}',
      { 'content-type': 'application/json', 'content-encoding': 'gzip' },
      415,
    ],
    ['beyond the limit', `"${'a'.repeat(9 << 20)}"`, { 'content-type': 'application/json' }, 413],
    ['that reaches for a prototype', '{"__proto__": {"n": 1}}', { 'content-type': 'application/json' }, 400],
  ])('%s', async (_, body, headers, status) => {
    const reply = await send(body, headers);
    expect(reply.status).toBe(status);
    expect(await reply.json()).toMatchObject({ error: { code: status, message: expect.any(String) } });
  });

  it('on a path that does not exist', async () => {
    const reply = await server.get('/v1/nothing?x=1');
    expect(reply.status).toBe(404);
    expect(reply.body.error).toMatchObject({
      type: 'NotFoundError',
      message: 'There is no GET /v1/nothing here.',
    });
  });
});

describe('a request is served', () => {
  it.each([
    [
      'with fields that nobody knows',
      { user: 'me', metadata: { a: 1 }, parallel_tool_calls: true, future_field: 3 },
    ],
    [
      'with nulls for what is not wanted',
      { stop: null, seed: null, n: null, logit_bias: null, tools: null, lora: null },
    ],
    [
      'with harmless values of what is not built',
      { tools: [], response_format: { type: 'text' }, min_tokens: 0 },
    ],
  ])('%s', async (_, fields) => {
    expect((await server.post('/v1/chat/completions', { ...CHAT, ...fields })).status).toBe(200);
  });

  it('up to the last token that fits', async () => {
    const body = { ...COMPLETION, prompt: Array(2040).fill(7), max_tokens: 8, ignore_eos: true };
    const reply = await server.post('/v1/completions', body);
    expect(reply.body.usage).toMatchObject({ prompt_tokens: 2040, completion_tokens: 8 });
  });

  it('for log-probabilities of the prompt alone', async () => {
    const body = { ...COMPLETION, max_tokens: 0, echo: true, logprobs: 1, prompt: [7, 8, 9] };
    const [choice] = (await server.post('/v1/completions', body)).body.choices;
    expect(choice.logprobs.token_ids).toEqual([7, 8, 9]);
    expect(choice.logprobs.token_logprobs).toEqual([null, expect.any(Number), expect.any(Number)]);
    expect(choice.finish_reason).toBe('length');
  });

  it('with text in parts, joined by line breaks', async () => {
    const parts = [
      { type: 'text', text: 'one' },
      { type: 'text', text: 'two' },
    ];
    const split = await server.post('/tokenize', { messages: [{ role: 'user', content: parts }] });
    const joined = await server.post('/tokenize', { messages: userSays('one\ntwo') });
    expect(split.body).toEqual(joined.body);
  });
});

describe('overload', () => {
  it('is answered 503 with Retry-After, and what was accepted is served', async () => {
    const small = await startParrot([...adapterFlags(['sql']), '--max-batch', '1', '--max-waiting', '2']);
    const body = { ...COMPLETION, ignore_eos: true, max_tokens: 300 };
    const replies = await Promise.all(Array.from({ length: 12 }, () => small.post('/v1/completions', body)));
    const statuses = replies.map(({ status }) => status);
    expect(new Set(statuses)).toEqual(new Set([200, 503]));
    const refused = replies.find(({ status }) => status === 503);
    expect(refused?.headers.get('retry-after')).toBe('1');
    expect(refused?.body.error).toMatchObject({ type: 'ServiceUnavailableError', code: 503 });
    for (const { status, body: served } of replies)
      if (status === 200) expect(served.usage.completion_tokens).toBe(300);
    await small.close();
  });

  it('refuses a whole request when one of its choices has no seat, and frees the others', async () => {
    const small = await startParrot(['--max-batch', '2', '--max-waiting', '1']);
    const body = { model: 'parrot', prompt: [7], n: 64, max_tokens: 2000, ignore_eos: true, stream: true };
    expect((await small.post('/v1/completions', body)).status).toBe(503);
    const busy = /vllm:num_requests_(running|waiting)\{[^}]*\} [1-9]/;
    while (busy.test((await small.get('/metrics')).body)) await new Promise(setImmediate);
    const one = await small.post('/v1/completions', { ...body, n: 1, max_tokens: 3 });
    expect(sseObjects(one.body).length).toBeGreaterThan(0);
    await small.close();
  });
});
