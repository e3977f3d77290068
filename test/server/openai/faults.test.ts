import { connect } from 'node:net';
import type { Logger } from 'pino';
import { afterEach, describe, expect, it } from 'vitest';
import type { FailureCode, GenerateRequest } from '../../../native/types.ts';
import { LorikeetError } from '../../../server/contract/errors.ts';
import { createLog } from '../../../server/contract/log.ts';
import { NativeEngine } from '../../../server/engine/native.ts';
import { StepWatch } from '../../../server/engine/step-watch.ts';
import { ByteBudget } from '../../../server/openai/byte-budget.ts';
import type { AdapterLookup, NotReady } from '../../../server/openai/serving.ts';
import { buildServingApp } from '../../../server/openai/serving-app.ts';
import { createMetrics } from '../../../server/telemetry/metrics.ts';
import { ChatTemplate } from '../../../server/text/chat-template.ts';
import { Encoder } from '../../../server/text/encoder.ts';
import { Tokenizer } from '../../../server/text/tokenizer.ts';
import { eventually } from '../../support/eventually.ts';
import { PARROT, sseObjects } from '../../support/parrot-server.ts';
import { type Scripted, type ScriptedEngine, scriptedEngine } from '../../support/scripted-engine.ts';

const tokenizer = await Tokenizer.load(PARROT);
const template = await ChatTemplate.load(PARROT);
const REVISION = `sha256:${'a'.repeat(64)}`;

const accepted: Scripted = { type: 'accepted', revision: REVISION, step: 1 };
const token: Scripted = { type: 'token', token: 77, logprobs: null };
const failed = (code: FailureCode): Scripted => ({ type: 'failed', code, message: 'secret detail' });

interface Setup {
  script: (request: GenerateRequest, attempt: number) => Scripted[];
  waitForSlot?: AdapterLookup['waitForSlot'];
  notReady?: () => NotReady;
  encoder?: Pick<Encoder, 'forRequest'>;
  log?: Logger;
  budget?: ByteBudget;
  watch?: StepWatch;
  progress?: () => { step: number; running: number };
  connectionsMax?: number;
}

const apps: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const app of apps.splice(0)) await app.close();
});

async function serve({
  script,
  waitForSlot = async () => undefined,
  notReady = () => null,
  encoder = new Encoder(tokenizer, PARROT),
  log = createLog('silent'),
  budget = new ByteBudget(1 << 30),
  watch = new StepWatch(0),
  progress,
  connectionsMax = 64,
}: Setup) {
  let scripted: ScriptedEngine | undefined;
  const engine = new NativeEngine((onEvents) => {
    scripted = scriptedEngine(onEvents, script);
    const { engine } = scripted;
    return { ...engine, snapshot: () => ({ ...engine.snapshot(), ...progress?.() }) };
  }, watch);
  const { submitted, cancelled, emit } = scripted as unknown as ScriptedEngine;
  const app = buildServingApp(
    {
      model: { name: 'parrot', createdAt: 0, maxTokens: 2048, vocabSize: 1024, eosTokenIds: [4] },
      engine,
      adapters: {
        resolve: (name) => (name === 'parrot' ? { kind: 'base' } : { kind: 'adapter', name }),
        resolveExpected: () => ({ kind: 'unmet', actual: null, mayCome: false }),
        nextChange: async () => undefined,
        describe: (name, revision) => ({ name, revision, step: 3 }),
        enter: async () => undefined,
        waitForSlot,
        models: () => [],
      },
      tokenizer,
      encoder,
      template,
      metrics: createMetrics({
        baseModel: 'parrot',
        blockTokens: 16,
        kvBlocks: 128,
        pages: 1,
        snapshot: () => engine.snapshot(),
        hostTier: { bytesMax: 0, usedBytes: 0 },
        residency: () => ({ slots: 1, resident: [], host: [] }),
      }),
      budget,
      notReady,
      log,
    },
    connectionsMax,
  );
  apps.push(app);
  const url = await app.listen({ host: '127.0.0.1', port: 0 });
  const post = (body: object, { path = '/v1/completions', signal = null as AbortSignal | null } = {}) =>
    fetch(`${url}${path}`, {
      method: 'POST',
      signal,
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ model: 'sql', prompt: [7], ...body }),
    });
  return { app, url, post, submitted, cancelled, emit };
}

describe('a revision that is in no slot', () => {
  it('is brought in, and the request is served', async () => {
    const waits: unknown[] = [];
    const { post, submitted } = await serve({
      script: (_, attempt) =>
        attempt < 3
          ? [failed('not_resident')]
          : [accepted, token, { type: 'finished', reason: 'stop', stopToken: 4, logprobs: null }],
      waitForSlot: async (name, digest) => void waits.push([name, digest]),
    });
    const reply = await post({});
    expect(reply.status).toBe(200);
    expect(reply.headers.get('x-lora-revision')).toBe(REVISION);
    expect(reply.headers.get('x-lora-step')).toBe('3');
    expect(waits).toEqual([
      ['sql', null],
      ['sql', null],
    ]);
    expect(submitted).toHaveLength(3);
  });

  it('is given up after eight turns in which others were faster', async () => {
    const { post, submitted } = await serve({ script: () => [failed('not_resident')] });
    const reply = await post({});
    expect(reply.status).toBe(503);
    expect(reply.headers.get('retry-after')).toBe('1');
    expect(submitted).toHaveLength(9);
  });

  it('is refused where no slot can be had', async () => {
    const { post } = await serve({
      script: () => [failed('not_resident')],
      waitForSlot: async () => {
        throw new LorikeetError('no_capacity', 'every slot has leases');
      },
    });
    const reply = await post({});
    expect(reply.status).toBe(503);
    expect(reply.headers.get('retry-after')).toBe('1');
    expect(await reply.json()).toMatchObject({ error: { param: 'model', message: 'every slot has leases' } });
  });
});

describe('an engine that refuses', () => {
  it.each([
    ['adapter_not_found', 404],
    ['queue_full', 503],
    ['closing', 503],
    ['engine_failed', 500],
    ['something_new', 500],
  ])('with %s is answered %d, without its words', async (code, status) => {
    const { post } = await serve({ script: () => [failed(code as FailureCode)] });
    const reply = await post({ stream: true });
    expect(reply.status).toBe(status);
    expect(await reply.text()).not.toContain('secret detail');
  });

  it('in mid-stream ends the stream with an error', async () => {
    const { post } = await serve({ script: () => [accepted, token, failed('engine_failed')] });
    const reply = await post({ stream: true });
    const objects = sseObjects(await reply.text());
    expect(objects[0].choices[0].text).toBe('h');
    expect(objects.at(-1)).toEqual({
      error: { message: 'The engine failed.', type: 'InternalServerError', param: null, code: 500 },
    });
  });

  it('in mid-answer fails the whole answer', async () => {
    const { post } = await serve({ script: () => [accepted, token, failed('engine_failed')] });
    expect((await post({ n: 3 })).status).toBe(500);
  });

  it('for good is not healthy any more', async () => {
    const { url, post } = await serve({ script: () => [failed('engine_failed')] });
    expect((await fetch(`${url}/health`)).status).toBe(200);
    await post({});
    expect((await fetch(`${url}/health`)).status).toBe(503);
  });
});

describe('weights that overflow', () => {
  const message = `Revision ${REVISION} of the adapter "sql" overflows: it made logits that are not finite.`;
  const error = { message, type: 'UnprocessableEntityError', param: 'model', code: 422 };
  const script = () => [accepted, token, failed('non_finite')];

  it.each([false, true])('of an adapter are said to be its fault (stream: %s)', async (stream) => {
    const { post } = await serve({ script });
    const reply = await post({ stream });
    const said = await reply.text();
    expect(reply.status).toBe(stream ? 200 : 422);
    expect(stream ? sseObjects(said).at(-1) : JSON.parse(said)).toEqual({ error });
  });

  it('of an adapter are a warning without a stack', async () => {
    const lines: object[] = [];
    const log = createLog('warn', { write: (line) => void lines.push(JSON.parse(line)) });
    const { post } = await serve({ script, log });
    await post({});
    expect(lines).toEqual([
      { level: 'warn', time: expect.any(String), adapter: 'sql', revision: REVISION, msg: message },
    ]);
  });

  it("of the base are the server's fault", async () => {
    const { post } = await serve({ script: () => [{ ...accepted, revision: null }, failed('non_finite')] });
    expect((await post({ model: 'parrot' })).status).toBe(500);
  });
});

describe('an engine whose step stands still', () => {
  it('is not healthy until it gets on', async () => {
    let nowMs = 0;
    let step = 1;
    const watch = new StepWatch(1000, () => nowMs);
    const { url } = await serve({ script: () => [], watch, progress: () => ({ step, running: 1 }) });
    const health = async () => (await fetch(`${url}/health`)).status;
    expect(await health()).toBe(200);
    nowMs = 1001;
    expect(await health()).toBe(503);
    step = 2;
    expect(await health()).toBe(200);
  });
});

describe('all choices of a response', () => {
  it('are submitted at once, so that no swap comes between them', async () => {
    let turn = 0;
    const turns: number[] = [];
    const { post, submitted } = await serve({
      script: () => {
        turns.push(turn);
        setImmediate(() => {
          turn += 1;
        });
        return [accepted, token, { type: 'finished', reason: 'length', stopToken: null, logprobs: null }];
      },
    });
    expect((await post({ n: 3 })).status).toBe(200);
    expect(submitted.map(({ target }) => target)).toEqual(Array(3).fill({ kind: 'adapter', name: 'sql' }));
    expect(turns).toEqual([0, 0, 0]);
  });

  it('are taken in all or none', async () => {
    const { post, submitted, cancelled } = await serve({
      script: (_, attempt) => [attempt === 2 ? failed('queue_full') : accepted],
    });
    expect((await post({ n: 3 })).status).toBe(503);
    expect(cancelled).toEqual([submitted[0]?.id, submitted[2]?.id]);
  });
});

describe('/ready', () => {
  it('says why not', async () => {
    let reason: NotReady = { code: 'not_seeded', message: 'Not all adapters are here.' };
    const { url } = await serve({ script: () => [], notReady: () => reason });
    const reply = await fetch(`${url}/ready`);
    expect(reply.status).toBe(503);
    expect(await reply.json()).toMatchObject({ error: { code: 503, reason: 'not_seeded' } });
    reason = null;
    expect((await fetch(`${url}/ready`)).status).toBe(200);
  });
});

describe('an answer without infinities', () => {
  it('writes -9999 for a token that cannot come', async () => {
    const logprobs = { logprob: Number.NEGATIVE_INFINITY, top: [[5, -0.1] as [number, number]] };
    const { post } = await serve({
      script: () => [
        accepted,
        { type: 'token', token: 77, logprobs },
        { type: 'finished', reason: 'length', stopToken: null, logprobs: null },
      ],
    });
    const { choices } = (await (await post({ logprobs: 1 })).json()) as { choices: { logprobs: object }[] };
    expect(choices[0]?.logprobs).toMatchObject({
      token_logprobs: [-9999],
      top_logprobs: [{ h: -9999, '<|pad|>': -0.1 }],
    });
  });
});

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
  const TOO_LONG = Array(3000).fill(7);

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
