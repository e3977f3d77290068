import { once } from 'node:events';
import { request } from 'node:http';
import { connect } from 'node:net';
import { describe, expect, it } from 'vitest';
import { createLog } from '../../../server/contract/log.ts';
import { ByteBudget } from '../../../server/openai/byte-budget.ts';
import type { Encoder } from '../../../server/text/encoder.ts';
import { eventually } from '../../support/eventually.ts';
import type { Scripted } from '../../support/scripted-engine.ts';
import { accepted, serve, token } from './scripted-server.ts';

const TOO_LONG = Array(3000).fill(7);

describe('a client that leaves while its prompt is tokenized', () => {
  it.each([
    ['/v1/completions', { prompt: 'Hi' }],
    ['/v1/chat/completions', { messages: [{ role: 'user', content: 'Hi' }] }],
  ])('is not generated for (%s)', async (path, body) => {
    const started = Promise.withResolvers<void>();
    const encoded = Promise.withResolvers<number[]>();
    const forRequest: Encoder['forRequest'] = () => ({
      encode: () => {
        started.resolve();
        return encoded.promise;
      },
    });
    const { url, post, submitted } = await serve({ script: () => [], encoder: { forRequest } });
    const client = new AbortController();
    const reply = post(body, { path, signal: client.signal });
    await started.promise;
    client.abort();
    await expect(reply).rejects.toThrow();
    const metrics = async () => await (await fetch(`${url}/metrics`)).text();
    await eventually('the server knows', { timeoutMs: 10_000, everyMs: 5 }, async () =>
      (await metrics()).includes('code="499"') ? true : undefined,
    );
    encoded.resolve([7]);
    await metrics();
    expect(submitted).toEqual([]);
  });
});

describe('a client whose prompt is tokenized', () => {
  it.each([
    ['/v1/completions', { prompt: 'Hi' }],
    ['/v1/chat/completions', { messages: [{ role: 'user', content: 'Hi' }] }],
    ['/tokenize', { prompt: 'Hi' }],
  ])('is its address (%s)', async (path, body) => {
    const clients: string[] = [];
    const forRequest: Encoder['forRequest'] = (client) => {
      clients.push(client);
      return { encode: async () => TOO_LONG };
    };
    const { url } = await serve({ script: () => [], encoder: { forRequest } });
    const headers = { 'content-type': 'application/json', 'x-forwarded-for': '10.9.9.9' };
    for (const localAddress of ['127.0.0.1', '127.0.0.2']) {
      const asking = request(new URL(path, url), { method: 'POST', headers, localAddress });
      asking.end(JSON.stringify({ model: 'sql', ...body }));
      const [reply] = await once(asking, 'response');
      reply.resume();
      await once(reply, 'end');
    }
    expect(clients).toEqual(['127.0.0.1', '127.0.0.2']);
  });
});

describe('the byte budget', () => {
  const TOKENS: Scripted[] = Array.from({ length: 200 }, () => ({
    type: 'token',
    token: 77,
    logprobs: { logprob: -1, top: Array.from({ length: 20 }, (_, id) => [id, -1] as [number, number]) },
  }));
  const script = (): Scripted[] => [
    accepted,
    ...TOKENS,
    { type: 'finished', reason: 'length', stopToken: null, logprobs: null },
  ];
  const LONG = { stop_token_ids: [5], metadata: 'x'.repeat(100_000) };

  it('refuses a body that it has no room for, and asks to come again', async () => {
    const { post } = await serve({ script, budget: new ByteBudget(99_000) });
    const reply = await post(LONG);
    expect(reply.status).toBe(503);
    expect(reply.headers.get('retry-after')).toBe('1');
    expect(await reply.json()).toMatchObject({ error: { type: 'ServiceUnavailableError', code: 503 } });
    expect((await post({})).status).toBe(200);
  });

  it.each([
    ['/v1/completions', { logprobs: 20 }],
    [
      '/v1/chat/completions',
      { messages: [{ role: 'user', content: 'Hi' }], logprobs: true, top_logprobs: 20 },
    ],
  ])('refuses an answer beyond its share, for good (%s)', async (path, body) => {
    const { post } = await serve({ script, budget: new ByteBudget(200_000) });
    const reply = await post({ ...body, n: 4 }, { path });
    expect(reply.status).toBe(400);
    expect(await reply.text()).toContain('more than 50000 bytes');
  });

  it('is given back when answers are read, refused or left', async () => {
    const budget = new ByteBudget(1 << 30);
    const { post } = await serve({ script, budget });
    const client = new AbortController();
    const left = post(LONG, { signal: client.signal }).catch(() => undefined);
    await Promise.all(
      [post({ ...LONG, logprobs: 20 }), post({ ...LONG, n: 0 })].map(async (reply) => (await reply).text()),
    );
    client.abort();
    await left;
    await eventually(
      'nothing is held',
      { timeoutMs: 10_000, everyMs: 5 },
      () => budget.used === 0 || undefined,
    );
  });

  it('lets a large answer through in pieces, and none of it is missing', async () => {
    const { post } = await serve({ script });
    const answer = await (await post({ n: 16, logprobs: 20 })).json();
    const { choices } = answer as { choices: { text: string; logprobs: { tokens: string[] } }[] };
    expect(choices.map(({ text }) => text)).toEqual(Array(16).fill('h'.repeat(200)));
    expect(choices.map(({ logprobs }) => logprobs.tokens.length)).toEqual(Array(16).fill(200));
  });
});

describe('a client that leaves a stream', () => {
  it.each([
    ['before its first chunk', [accepted]],
    ['after its first chunk', [accepted, token]],
  ])('%s is no error of ours', async (_, events) => {
    const lines: { level: string; code?: number }[] = [];
    const log = createLog('debug', { write: (line) => void lines.push(JSON.parse(line)) });
    const { url, post, submitted, cancelled, emit } = await serve({ script: () => events, log });
    const client = new AbortController();
    const left = post({ stream: true }, { signal: client.signal }).then(
      (reply) => reply.text().catch(() => undefined),
      () => undefined,
    );
    await eventually('it is taken in', { timeoutMs: 10_000, everyMs: 5 }, () => submitted[0]);
    await fetch(`${url}/health`);
    client.abort();
    await left;
    const id = await eventually('it is cancelled', { timeoutMs: 10_000, everyMs: 5 }, () => cancelled[0]);
    emit([{ id, type: 'finished', reason: 'cancelled', stopToken: null, logprobs: null }]);
    await eventually(
      'it is logged',
      { timeoutMs: 10_000, everyMs: 5 },
      () => lines.some(({ code }) => code === 499) || undefined,
    );
    await fetch(`${url}/health`);
    expect(lines.filter(({ level }) => level !== 'debug')).toEqual([]);
  });
});

describe("a refusal before any route is in OpenAI's shape", () => {
  /** Sends, and reads to the end of the connection. */
  const raw = async (url: string, text: string): Promise<string> => {
    const socket = connect(Number(new URL(url).port), '127.0.0.1').setEncoding('utf8');
    socket.write(text);
    let received = '';
    for await (const chunk of socket) received += chunk;
    return received;
  };
  const HOST = 'Host: x\r\n';

  it.each([
    ['no HTTP', 'nonsense\r\n\r\n', 400, 'BadRequestError'],
    [
      'a path that is none',
      `GET /v1/models/%zz HTTP/1.1\r\n${HOST}Connection: close\r\n\r\n`,
      400,
      'BadRequestError',
    ],
    [
      'headers without end',
      `GET / HTTP/1.1\r\n${HOST}a: ${'x'.repeat(17_000)}\r\n\r\n`,
      431,
      'RequestHeaderFieldsTooLargeError',
    ],
  ])('%s', async (_, text, status, type) => {
    const { url } = await serve({ script: () => [] });
    const [head = '', body = ''] = (await raw(url, text)).split('\r\n\r\n');
    expect(head).toMatch(new RegExp(`^HTTP/1.1 ${status} `));
    expect(JSON.parse(body)).toEqual({
      error: { message: expect.any(String), type, param: null, code: status },
    });
  });

  it('a request on a kept-alive connection of a closing server', async () => {
    const { app, url } = await serve({ script: () => [accepted, token] });
    const request = (body: string) =>
      `POST /v1/completions HTTP/1.1\r\n${HOST}Content-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
    const socket = connect(Number(new URL(url).port), '127.0.0.1').setEncoding('utf8');
    let received = '';
    socket.on('data', (text) => {
      received += text;
    });
    // The first of the two holds the server open.
    socket.write(request('{"model":"sql","prompt":[7],"stream":true}'));
    await eventually(
      'the stream has begun',
      { timeoutMs: 10_000, everyMs: 5 },
      () => received.includes('data:') || undefined,
    );
    const other = connect(Number(new URL(url).port), '127.0.0.1').setEncoding('utf8');
    other.write('GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /hea');
    let answers = '';
    other.on('data', (text) => {
      answers += text;
    });
    await eventually(
      'it is kept alive',
      { timeoutMs: 10_000, everyMs: 5 },
      () => answers.includes('{"status":"ok"}') || undefined,
    );
    const closed = app.close();
    await new Promise(setImmediate);
    other.write('lth HTTP/1.1\r\nHost: x\r\n\r\n');
    await eventually(
      'it is refused',
      { timeoutMs: 10_000, everyMs: 5 },
      () => answers.includes('"code":503') || undefined,
    );
    expect(answers).toMatch(
      /HTTP\/1.1 503.*retry-after: 5.*\{"error":\{"message":"The server is shutting down."/s,
    );
    socket.destroy();
    other.destroy();
    await closed;
  });
});

describe('a server whose connections are all busy', () => {
  it('answers probes, and asks others to come again', async () => {
    const { url, post } = await serve({ script: () => [accepted, token], connectionsMax: 33 });
    const client = new AbortController();
    // One after the other: of those that have only just connected some would go to make room.
    const busy: Response[] = [];
    while (busy.length < 30) busy.push(await post({ stream: true }, { signal: client.signal }));
    const probe = await fetch(`${url}/health`);
    expect([probe.status, await probe.text()]).toEqual([200, '{"status":"ok"}']);
    const refused = await post({});
    expect(refused.status).toBe(503);
    expect(refused.headers.get('retry-after')).toBe('1');
    expect(refused.headers.get('connection')).toBe('close');
    client.abort();
    await Promise.allSettled(busy.map((reply) => reply.text()));
  });
});

describe('a request whose prompts are refused', () => {
  it.each([
    ['for the first of them encodes no other', { prompt: ['a', 'b', 'c'], max_tokens: 1 }, 1],
    ['for their number encodes none', { prompt: ['a', 'b'], n: 65 }, 0],
  ])('%s', async (_, body, encodings) => {
    const texts: string[] = [];
    const forRequest: Encoder['forRequest'] = () => ({
      encode: async ({ text }) => {
        texts.push(text);
        return TOO_LONG;
      },
    });
    const { post } = await serve({ script: () => [], encoder: { forRequest } });
    expect((await post(body)).status).toBe(400);
    expect(texts).toHaveLength(encodings);
  });
});
