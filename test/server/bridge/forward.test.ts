import type { IncomingHttpHeaders, ServerResponse } from 'node:http';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { eventually } from '../../support/eventually.ts';
import { type ParrotServer, startParrot } from '../../support/parrot-server.ts';
import { bodyOf, type Door, door, type Meddle } from './doors.ts';
import { bridge, type TestBridge } from './start.ts';

let pods: [ParrotServer, ParrotServer];
beforeAll(async () => {
  pods = await Promise.all([startParrot(['--vllm-api']), startParrot(['--vllm-api'])]);
});
afterAll(() => Promise.all(pods.map((pod) => pod.close())));

const closing: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const each of closing.splice(0).reverse()) await each.close();
});

async function behind(meddle?: Meddle, args: string[] = []): Promise<{ server: TestBridge; doors: Door[] }> {
  const doors = await Promise.all(pods.map(({ serving }) => door(serving, meddle)));
  closing.push(...doors);
  const push = pods.map(({ admin }) => admin);
  const server = await bridge({ push, serving: doors.map(({ url }) => url) }, args);
  closing.push(server);
  return { server, doors };
}

const completions = ({ asked }: Door) => asked.filter((path) => path === '/v1/completions').length;
const load = (server: TestBridge, name: string, fixture: string) =>
  server.post('/v1/load_lora_adapter', { lora_name: name, lora_path: server.save(name, fixture) });

describe('a prompt', () => {
  it('goes to the same pod, one swap after the other, and others to others', async () => {
    const { server, doors } = await behind();
    const where: number[][] = [];
    for (const [version, fixture] of ['sql', 'pirate', 'json', 'sql'].entries()) {
      await load(server, `policy-v${version}`, fixture);
      const before = doors.map(completions);
      for (const prompt of 'abcdefghijklmnopqrstuvwx')
        await server.post('/v1/completions', { model: `policy-v${version}`, prompt, max_tokens: 1 });
      where.push(doors.map((each, index) => completions(each) - (before[index] ?? 0)));
    }
    expect(new Set(where.map(String)).size).toBe(1);
    expect(where[0]).not.toContain(0);
  });

  it('goes to the same pod however often it was there', async () => {
    const { server, doors } = await behind();
    for (let times = 0; times < 8; times += 1)
      await server.post('/v1/completions', { model: 'parrot', prompt: 'the same', max_tokens: 1 });
    expect(doors.map(completions).sort()).toEqual([0, 8]);
  });

  it('leaves a pod that has more than its share', async () => {
    const held: (() => void)[] = [];
    const { server, doors } = await behind(async ({ url }, _response, pass) => {
      if (url === '/v1/completions') await new Promise<void>((done) => held.push(done));
      await pass();
    });
    const asks = Array.from({ length: 8 }, () =>
      server.post('/v1/completions', { model: 'parrot', prompt: 'the same', max_tokens: 1 }),
    );
    await eventually(
      'all are asked',
      { timeoutMs: 10_000, everyMs: 5 },
      () => held.length === 8 || undefined,
    );
    // 1.25 times the mean of eight, rounded up, and the rest.
    expect(doors.map(completions).sort()).toEqual([3, 5]);
    for (const done of held) done();
    expect((await Promise.all(asks)).map(({ status }) => status)).toEqual(Array(8).fill(200));
  });
});

describe('a body', () => {
  const echo: Meddle = async (request, response, pass) => {
    if (request.url !== '/v1/completions') return pass();
    response.setHeader('content-type', 'text/plain');
    response.end(`${JSON.stringify(request.headers)}\n${await bodyOf(request)}`);
  };

  it('is sent as it came, but for the model of a version; seeds keep all of their 63 bits', async () => {
    const { server } = await behind(echo);
    const text =
      '{"model":"parrot","seed":9223372036854775807,"prompt":[1,2],"temperature":0.1,"logit_bias":{"7":-1}}';
    const [, sent = ''] = (await server.post('/v1/completions', text)).body.split('\n');
    expect(sent).toContain('"seed":9223372036854775807');
    const { seed: _seed, ...others } = JSON.parse(text);
    expect(JSON.parse(sent)).toMatchObject(others);
  });

  it('of a version names the adapter, and the revision is expected at once', async () => {
    const seen: unknown[] = [];
    const { server } = await behind(({ url, headers }, _response, pass) => {
      if (url === '/v1/completions') seen.push(headers);
      return pass();
    });
    await load(server, 'policy-v1', 'sql');
    const { revision } = (await server.get('/v1/models/policy-v1')).body;
    const ask = { model: 'policy-v1', prompt: 'a', max_tokens: 1 };
    const { body } = await server.post('/v1/completions', ask);
    expect([body.model, body.lora.revision]).toEqual(['policy', revision]);
    expect(seen).toMatchObject([{ 'x-lora-expect': `revision=${revision}`, 'x-lora-wait-ms': '0' }]);
  });

  it('goes on in the name of its caller, with another span', async () => {
    const seen: IncomingHttpHeaders[] = [];
    const { server } = await behind(({ url, headers }, _response, pass) => {
      if (url === '/v1/completions') seen.push(headers);
      return pass();
    });
    const [trace, span] = ['4bf92f3577b34da6a3ce929d0e0e4736', '00f067aa0ba902b7'];
    const { headers } = await fetch(`${server.url}/v1/completions`, {
      method: 'POST',
      headers: {
        ...{ 'content-type': 'application/json', 'x-request-id': 'req-1' },
        ...{ traceparent: `00-${trace}-${span}-01`, tracestate: 'congo=t61' },
      },
      body: JSON.stringify({ model: 'parrot', prompt: 'a', max_tokens: 1 }),
    });
    expect(headers.get('x-request-id')).toBe('req-1');
    expect(seen).toMatchObject([
      {
        traceparent: expect.stringMatching(new RegExp(`^00-${trace}-(?!${span})[0-9a-f]{16}-01$`)),
        ...{ tracestate: 'congo=t61', 'x-request-id': 'req-1' },
      },
    ]);
  });

  it.each<[string, string, number, RegExp]>([
    ['of no object', '[]', 400, /a JSON object/],
    ['of no JSON', '{', 400, /Expected JSON/],
    ['with a model that is no text', '{"model":7}', 400, /Expected text for model/],
    ['of a model that nobody loaded', '{"model":"nobody"}', 404, /"nobody" does not exist/],
  ])('%s is refused', async (_name, text, status, says) => {
    const { server } = await behind();
    const answered = await server.post('/v1/completions', text);
    expect([answered.status, answered.body.error.message]).toEqual([status, expect.stringMatching(says)]);
    expect((await server.post('/tokenize', text)).status).toBe(status);
  });
});

describe('an answer', () => {
  const ASK = JSON.stringify({ model: 'parrot', prompt: 'a', stream: true });
  const stream = (url: string, signal: AbortSignal | null = null) =>
    fetch(`${url}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: ASK,
      signal,
    });
  /** Answers with a first piece, and then as it is told. */
  const inPieces =
    (then: (response: ServerResponse) => void): Meddle =>
    ({ url }, response, pass) => {
      if (url !== '/v1/completions') return pass();
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write('data: 1\n\n');
      return then(response);
    };

  it('comes as the pod sends it', async () => {
    const rest = Promise.withResolvers<void>();
    const { server } = await behind(
      inPieces(async (response) => {
        await rest.promise;
        response.end('data: [DONE]\n\n');
      }),
    );
    const pieces = (await stream(server.url)).body?.values() as AsyncIterableIterator<Uint8Array>;
    expect(Buffer.from((await pieces.next()).value).toString()).toBe('data: 1\n\n');
    rest.resolve();
    expect(Buffer.from((await pieces.next()).value).toString()).toBe('data: [DONE]\n\n');
  });

  it('that the pod cuts off is cut off, and nobody else is asked for the rest', async () => {
    const { server, doors } = await behind(inPieces((response) => setImmediate(() => response.destroy())));
    const response = await stream(server.url);
    expect(response.status).toBe(200);
    await expect(response.text()).rejects.toThrow('terminated');
    expect(doors.map(completions).sort()).toEqual([0, 1]);
  });

  it('that nobody reads any more is not generated any more', async () => {
    const gone = Promise.withResolvers<void>();
    const { server } = await behind(inPieces((response) => void response.once('close', gone.resolve)));
    const leaving = new AbortController();
    await stream(server.url, leaving.signal);
    leaving.abort();
    await gone.promise;
  });
});

describe('limits', () => {
  const hang: Meddle = ({ url }, _response, pass) => (url === '/v1/completions' ? undefined : pass());
  const ASK = { model: 'parrot', prompt: 'a' };

  it('one request more than may be in flight is 503, until one of them is gone', async () => {
    const { server, doors } = await behind(hang, ['--max-in-flight', '1']);
    const leaving = new AbortController();
    const first = fetch(`${server.url}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(ASK),
      signal: leaving.signal,
    }).catch(() => null);
    const patience = { timeoutMs: 10_000, everyMs: 5 };
    await eventually('it is asked', patience, () => doors.some((each) => completions(each) > 0) || undefined);
    const { status, body } = await server.post('/v1/completions', ASK);
    expect([status, body.error.type]).toEqual([503, 'ServiceUnavailableError']);
    leaving.abort();
    await first;
    await eventually('there is room', patience, async () => {
      const { status } = await server.post('/tokenize', { prompt: 'a' });
      return status === 200 || undefined;
    });
  });

  it('a pod that says nothing for longer than it may is 504, and no other is asked', async () => {
    const { server, doors } = await behind(hang, ['--request-timeout', '1']);
    const { status, body } = await server.post('/v1/completions', ASK);
    expect([status, body.error.type]).toEqual([504, 'GatewayTimeoutError']);
    expect(doors.map(completions).sort()).toEqual([0, 1]);
  });
});
