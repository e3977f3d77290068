import { createHash } from 'node:crypto';
import { connect } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import {
  ActivateReply,
  ErrorReply,
  PodState,
  PutAdapterReply,
  RemoveReply,
  StageReply,
} from '../../../server/contract/adapter-api.ts';
import {
  CONFIG,
  f32,
  factorName,
  goodAdapter,
  packSafetensors,
  withMetadata,
} from '../../support/adapter-files.ts';
import { type AdminBench, adminBench, TOKEN, upload } from './admin.ts';
import { ADAPTER_BYTES, MAX_ADAPTER_BYTES, put, stage } from './bench.ts';

const open: AdminBench[] = [];
async function admin(options?: Parameters<typeof adminBench>[0]): Promise<AdminBench> {
  const made = await adminBench(options);
  open.push(made);
  return made;
}
afterEach(async () => {
  for (const { app } of open.splice(0)) {
    app.server.closeAllConnections();
    await app.close();
  }
});

const AUTHORIZED = `Host: x\r\nAuthorization: Bearer ${TOKEN}\r\n`;
const json = (value: unknown) => ({
  body: JSON.stringify(value),
  headers: { 'content-type': 'application/json' },
});

describe('staging', () => {
  it('takes a body and says what it holds', async () => {
    const { call, registry } = await admin();
    const reply = await call('POST', '/lora/v1/adapters/sql/revisions', upload(1, { 'x-lora-step': '7' }));
    expect(reply.status).toBe(200);
    const staged = StageReply.parse(reply.body);
    expect(staged).toMatchObject({ name: 'sql', step: 7, bytes: ADAPTER_BYTES, existed: false });
    expect(staged.report).toMatchObject({
      modules: 8,
      targetModules: ['q_proj', 'v_proj'],
      layers: [0, 1, 2, 3],
      rank: 8,
    });
    expect(registry.models()).toEqual([]);
  });

  it('knows a revision by its digest, and then needs no body', async () => {
    const { call, engine } = await admin();
    const { body } = await call('POST', '/lora/v1/adapters/a/revisions', upload(1));
    const again = await call('PUT', `/lora/v1/adapters/b/revisions/${body.revision}`, {
      headers: { 'x-lora-step': '3' },
    });
    expect(StageReply.parse(again.body)).toMatchObject({
      name: 'b',
      revision: body.revision,
      step: 3,
      existed: true,
    });
    expect(engine.packed).toHaveLength(1);
  });

  it('takes the config from the metadata, and a body in chunks', async () => {
    const { call } = await admin();
    const { tensors } = goodAdapter(1);
    const file = withMetadata(tensors, { adapter_config: JSON.stringify(CONFIG) });
    const chunks = (async function* () {
      for (let at = 0; at < file.length; at += 1000) yield file.subarray(at, at + 1000);
    })();
    const reply = await call('POST', '/lora/v1/adapters/a/revisions', {
      body: chunks,
      duplex: 'half',
    });
    expect(reply).toMatchObject({ status: 200, body: { bytes: file.length } });
  });

  it('refuses bytes of another digest than the path, and keeps nothing', async () => {
    const { call, registry } = await admin();
    const digest = `sha256:${'a'.repeat(64)}`;
    const reply = await call('PUT', `/lora/v1/adapters/a/revisions/${digest}`, upload(1));
    expect(reply).toMatchObject({
      status: 400,
      body: { error: { code: 'digest_mismatch', expected: digest } },
    });
    expect(registry.state()).toMatchObject({ adapters: [], used: { hostBytes: 0 } });
  });

  it('verifies Content-Digest', async () => {
    const { call } = await admin();
    const sum = createHash('sha256').update(goodAdapter(1).tensors).digest('base64');
    const path = '/lora/v1/adapters/a/revisions';
    expect((await call('POST', path, upload(1, { 'content-digest': `sha-256=:${sum}:` }))).status).toBe(200);
    expect(
      (await call('POST', path, upload(2, { 'content-digest': `sha-256=:${sum}:` }))).body.error.code,
    ).toBe('digest_mismatch');
    expect((await call('POST', path, upload(2, { 'content-digest': 'md5=:AAAA:' }))).body.error.code).toBe(
      'malformed_request',
    );
  });

  it('gives the bytes and the config back, so that another pod can have them', async () => {
    const [one, two] = [await admin(), await admin()];
    const digest = await put(one.registry, 'sql', 1, 5);
    const path = `/lora/v1/adapters/sql/revisions/${digest}`;
    const response = await fetch(one.url + path, { headers: { authorization: `Bearer ${TOKEN}` } });
    const bytes = Buffer.from(await response.arrayBuffer());
    expect(bytes.equals(goodAdapter(1).tensors)).toBe(true);
    const headers = {
      'content-type': 'application/octet-stream',
      'x-lora-config': response.headers.get('x-lora-config') ?? '',
      'x-lora-step': response.headers.get('x-lora-step') ?? '',
    };
    expect(await two.call('PUT', path, { body: bytes, headers })).toMatchObject({
      status: 200,
      body: { revision: digest, step: 5 },
    });
  });
});

describe('activating and removing', () => {
  it('switches, and says from what and when', async () => {
    const { call, registry } = await admin();
    const [a, b] = [await put(registry, 'sql', 1), await stage(registry, 'sql', 2)];
    const reply = await call(
      'POST',
      '/lora/v1/adapters/sql/activate',
      json({ revision: b, expectCurrent: a }),
    );
    expect(ActivateReply.parse(reply.body)).toMatchObject({ revision: b, previous: a, epoch: 2 });
    const late = await call(
      'POST',
      '/lora/v1/adapters/sql/activate',
      json({ revision: a, expectCurrent: a }),
    );
    expect(late).toMatchObject({
      status: 412,
      body: { error: { code: 'precondition_failed', expected: a, actual: b } },
    });
  });

  it.each([
    ['no JSON', '{', 'malformed_request'],
    ['an unknown way', { revision: `sha256:${'0'.repeat(64)}`, inFlight: 'Migrate' }, 'malformed_request'],
    ['a short digest', { revision: 'sha256:00' }, 'malformed_request'],
    ['equal keys', `{"revision": "a", "revision": "b"}`, 'malformed_request'],
    ['an unknown revision', { revision: `sha256:${'0'.repeat(64)}` }, 'revision_not_found'],
    ['a body of 100 KB', `"${'x'.repeat(100_000)}"`, 'body_too_large'],
  ])('refuses to activate with %s', async (_what, value, code) => {
    const { call, registry } = await admin();
    await put(registry, 'sql', 1);
    const body = typeof value === 'string' ? value : JSON.stringify(value);
    const reply = await call('POST', '/lora/v1/adapters/sql/activate', { ...json({}), body });
    expect(ErrorReply.parse(reply.body).error.code).toBe(code);
  });

  it('answers 202 to a removal while sequences run, then 200', async () => {
    const { call, engine, registry } = await admin();
    const digest = await put(registry, 'sql', 1);
    engine.lease(digest);
    const first = await call('DELETE', '/lora/v1/adapters/sql');
    expect(first.status).toBe(202);
    expect(RemoveReply.parse(first.body)).toEqual({ name: 'sql', removed: [digest], leases: 1 });
    engine.endLease(digest);
    expect((await call('DELETE', '/lora/v1/adapters/sql')).status).toBe(200);
    expect((await call('GET', '/lora/v1/state')).body.adapters).toEqual([]);
  });

  it('orders operators by their fences', async () => {
    const { call, registry } = await admin();
    const digest = await stage(registry, 'sql', 1);
    const activate = (fence: string) =>
      call('POST', '/lora/v1/adapters/sql/activate', {
        body: JSON.stringify({ revision: digest }),
        headers: { 'content-type': 'application/json', 'x-lora-fence': fence },
      });
    expect((await activate('7.1')).status).toBe(200);
    expect((await activate('6.9')).body.error).toMatchObject({
      code: 'stale_fence',
      expected: '7.0',
      actual: '6.9',
    });
    for (const [method, path] of [
      ['DELETE', '/lora/v1/adapters/sql'],
      ['POST', '/lora/v1/seeded'],
      ['POST', '/lora/v1/adapters/sql/revisions'],
    ] as const) {
      expect((await call(method, path, { headers: { 'x-lora-fence': '6.9' } })).status).toBe(409);
    }
    expect((await activate('7')).body.error.code).toBe('malformed_request');
    expect(registry.state().adapters[0]?.fence).toEqual({ term: 7, sequence: 1 });
  });

  it('is seeded when it is told so', async () => {
    const { call } = await admin();
    expect(PodState.parse((await call('GET', '/lora/v1/state')).body).seeded).toBe(false);
    expect((await call('POST', '/lora/v1/seeded')).status).toBe(204);
    expect((await call('GET', '/lora/v1/state')).body.seeded).toBe(true);
  });
});

describe('PUT /v1/adapters/{name}', () => {
  it('stages and activates in one call', async () => {
    const { call, engine } = await admin();
    const reply = await call('PUT', '/v1/adapters/sql', upload(1, { 'x-lora-step': '1' }));
    const body = PutAdapterReply.parse(reply.body);
    expect(body).toMatchObject({ name: 'sql', step: 1, previous: null, epoch: 1 });
    expect(engine.current.get('sql')).toBe(body.revision);
  });

  it('takes no step that is not newer, and no swap from another revision', async () => {
    const { call } = await admin();
    const first = (await call('PUT', '/v1/adapters/sql', upload(1, { 'x-lora-step': '4' }))).body.revision;
    const put = (seed: number, headers: Record<string, string>) =>
      call('PUT', '/v1/adapters/sql', upload(seed, headers));
    expect(await put(2, { 'x-lora-step': '4' })).toMatchObject({
      status: 409,
      body: { error: { code: 'step_not_newer' } },
    });
    expect((await put(1, { 'x-lora-step': '4' })).status).toBe(200);
    const second = await put(2, { 'x-lora-step': '5', 'if-match': `"${first}"` });
    expect(second).toMatchObject({ status: 200, body: { previous: first } });
    expect((await put(2, { 'if-match': `"${first}"` })).status).toBe(200);
    expect((await put(3, { 'if-match': `"${first}"` })).status).toBe(412);
    expect((await put(3, { 'if-match': '*' })).status).toBe(200);
    expect((await call('PUT', '/v1/adapters/new', upload(3, { 'if-match': '*' }))).status).toBe(412);
    expect((await put(3, { 'if-match': first })).body.error.code).toBe('malformed_request');
  });

  it('serves a training’s first step, whose B is zero, only when asked to', async () => {
    const { call } = await admin();
    const tensors = packSafetensors(
      new Map(
        [0, 1, 2, 3].flatMap((layer) => [
          [factorName(layer, 'q_proj', 'A'), f32([8, 256], () => 0.1)] as const,
          [factorName(layer, 'q_proj', 'B'), f32([256, 8], () => 0)] as const,
        ]),
      ),
    );
    const config = Buffer.from(JSON.stringify({ ...CONFIG, target_modules: ['q_proj'] })).toString(
      'base64url',
    );
    const put = (headers: Record<string, string>) =>
      call('PUT', '/v1/adapters/rl', { body: tensors, headers: { 'x-lora-config': config, ...headers } });
    expect((await put({})).body.error.message).toContain('x-lora-allow: zero_effect');
    expect((await put({ 'x-lora-allow': 'zero_effect' })).status).toBe(200);
    expect((await put({ 'x-lora-allow': 'everything' })).body.error.code).toBe('malformed_request');
  });
});

describe('who may call', () => {
  const ROUTES = [
    ['GET', '/lora/v1/state'],
    ['GET', '/lora/v1/watch'],
    ['POST', '/lora/v1/seeded'],
    ['PUT', '/v1/adapters/sql'],
    ['DELETE', '/lora/v1/adapters/sql'],
    ['POST', '/lora/v1/adapters/sql/activate'],
    ['POST', '/lora/v1/adapters/sql/revisions'],
    ['PUT', `/lora/v1/adapters/sql/revisions/sha256:${'0'.repeat(64)}`],
    ['GET', `/lora/v1/adapters/sql/revisions/sha256:${'0'.repeat(64)}`],
    ['DELETE', `/lora/v1/adapters/sql/revisions/sha256:${'0'.repeat(64)}`],
    ['PATCH', '/lora/v1/state'],
    ['GET', '/'],
    ['GET', '/healthz/../lora/v1/state'],
    ['GET', '/healthz%2f'],
  ];

  it.each(ROUTES)('nobody without the token: %s %s', async (method, path) => {
    const { url } = await admin();
    for (const authorization of [
      '',
      'Bearer',
      'Bearer wrong',
      `Basic ${TOKEN}`,
      `Bearer ${TOKEN}x`,
      `Bearer ${'x'.repeat(9000)}`,
    ]) {
      const response = await fetch(url + path, { method, headers: authorization ? { authorization } : {} });
      expect([response.status, (await response.json()) as unknown]).toMatchObject([
        401,
        { error: { code: 'unauthenticated' } },
      ]);
    }
  });

  it('anybody for the health of the process', async () => {
    const { url } = await admin();
    expect((await fetch(`${url}/healthz`)).status).toBe(200);
  });

  it('is decided before a byte of the body is read', async () => {
    const { raw } = await admin();
    const reply = await raw(
      'PUT /v1/adapters/a HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n',
      /unauthenticated/,
    );
    expect(reply).toMatch(/^HTTP\/1.1 401/);
  });
});

describe('a client that asks before it sends', () => {
  const { tensors, config } = goodAdapter(1);
  const head = (authorization: string) =>
    `PUT /v1/adapters/a HTTP/1.1\r\nHost: x\r\nAuthorization: ${authorization}\r\nExpect: 100-continue\r\n` +
    `X-Lora-Config: ${config.toString('base64url')}\r\nContent-Length: ${tensors.length}\r\n\r\n`;

  it('is invited when its body will be read', async () => {
    const { raw } = await admin();
    expect(await raw(head(`Bearer ${TOKEN}`), /100 Continue/)).toMatch(/^HTTP\/1.1 100/);
    const whole = Buffer.concat([Buffer.from(head(`Bearer ${TOKEN}`)), tensors]);
    expect(await raw(whole, /visibleAtStep/)).toMatch(/100 Continue.*HTTP\/1.1 200/s);
  });

  it('is spared the sending of a body that is refused', async () => {
    const { raw } = await admin();
    expect(await raw(head('Bearer wrong'), /\}\}/)).toMatch(/^HTTP\/1.1 401/);
  });
});

describe('what is not read to its end', () => {
  it('is refused by its length alone', async () => {
    const { raw } = await admin();
    const head = `PUT /v1/adapters/a HTTP/1.1\r\n${AUTHORIZED}Content-Length: 999999999999\r\n\r\n`;
    expect(await raw(head, /\}\}/)).toMatch(/^HTTP\/1.1 413.*body_too_large/s);
  });

  it('is refused for a wrong rank after its header', async () => {
    const { raw, registry } = await admin();
    const tensors = packSafetensors(
      new Map(
        [0, 1, 2, 3].flatMap((layer) => [
          [factorName(layer, 'q_proj', 'A'), f32([4, 256], () => 1)] as const,
          [factorName(layer, 'q_proj', 'B'), f32([256, 4], () => 1)] as const,
        ]),
      ),
    );
    const config = Buffer.from(JSON.stringify({ ...CONFIG, target_modules: ['q_proj'] })).toString(
      'base64url',
    );
    const head = `PUT /v1/adapters/a HTTP/1.1\r\n${AUTHORIZED}X-Lora-Config: ${config}\r\nContent-Length: ${tensors.length}\r\n\r\n`;
    const reply = await raw(Buffer.concat([Buffer.from(head), tensors.subarray(0, 4096)]), /\}\}/);
    expect(reply).toMatch(/^HTTP\/1.1 422.*rank_mismatch/s);
    expect(registry.tier.usedBytes).toBe(0);
  });

  it('is refused where its length and its header disagree', async () => {
    const { call } = await admin();
    const body = Buffer.concat([goodAdapter(1).tensors, Buffer.alloc(5)]);
    expect((await call('PUT', '/v1/adapters/a', { ...upload(1), body })).body.error).toMatchObject({
      code: 'malformed_safetensors',
      expected: ADAPTER_BYTES,
      actual: ADAPTER_BYTES + 5,
    });
  });

  it('gives its room back when the client goes', async () => {
    const { port, registry } = await admin();
    const { tensors, config } = goodAdapter(1);
    const socket = connect(port, '127.0.0.1');
    socket.write(
      `PUT /v1/adapters/a HTTP/1.1\r\n${AUTHORIZED}X-Lora-Config: ${config.toString('base64url')}\r\nContent-Length: ${tensors.length}\r\n\r\n`,
    );
    socket.write(tensors.subarray(0, 50_000));
    await expect.poll(() => registry.tier.usedBytes).toBe(ADAPTER_BYTES);
    socket.destroy();
    await expect.poll(() => registry.tier.usedBytes).toBe(0);
    expect(registry.state().adapters).toEqual([]);
  });

  it('leaves the connection usable for the next call', async () => {
    const { raw } = await admin();
    const body = 'x'.repeat(70_000);
    const first = `PUT /v1/adapters/a HTTP/1.1\r\n${AUTHORIZED}Content-Length: ${body.length}\r\n\r\n${body}`;
    const second = `GET /lora/v1/state HTTP/1.1\r\n${AUTHORIZED}\r\n`;
    expect(await raw(first + second, /bootId/)).toMatch(
      /^HTTP\/1.1 400.*malformed_safetensors.*HTTP\/1.1 200.*bootId/s,
    );
  });
});

describe('requests that are wrong in themselves', () => {
  it.each([
    ['another content type', { 'content-type': 'text/plain' }, 415, 'unsupported_media_type'],
    ['upper case', { 'content-type': 'Application/Octet-Stream' }, 415, 'unsupported_media_type'],
    ['parameters', { 'content-type': 'application/octet-stream; charset=x' }, 415, 'unsupported_media_type'],
    [
      'what curl -d sends',
      { 'content-type': 'application/x-www-form-urlencoded' },
      415,
      'unsupported_media_type',
    ],
    ['compression', { 'content-encoding': 'gzip' }, 415, 'unsupported_encoding'],
    ['a step with a sign', { 'x-lora-step': '-1' }, 400, 'malformed_request'],
    ['a step as 1e3', { 'x-lora-step': '1e3' }, 400, 'malformed_request'],
    ['a config that is no base64url', { 'x-lora-config': '{}' }, 400, 'malformed_config'],
  ])('are refused: %s', async (_what, headers, status, code) => {
    const { call, registry } = await admin();
    const reply = await call('PUT', '/v1/adapters/a', upload(1, headers));
    expect(reply).toMatchObject({ status, body: { error: { code } } });
    expect(registry.state().adapters).toEqual([]);
  });

  it.each([
    ['/v1/adapters/..%2f..%2fetc%2fpasswd', 'invalid_name'],
    ['/v1/adapters/UPPER', 'invalid_name'],
    ['/v1/adapters/a%00b', 'invalid_name'],
    ['/v1/adapters/a%0d%0ax', 'invalid_name'],
    ['/v1/adapters/__proto__', 'invalid_name'],
    [`/v1/adapters/${'a'.repeat(129)}`, 'invalid_name'],
    ['/v1/adapters/parrot', 'invalid_name'],
    ['/v1/adapters/%ff', 'malformed_request'],
  ])('are refused: PUT %s', async (path, code) => {
    const { call } = await admin();
    const reply = await call('PUT', path, upload(1));
    expect(reply).toMatchObject({ status: 400, body: { error: { code } } });
    expect(`${reply.body.error.message}${reply.body.error.actual}`).toMatch(/^[\x20-\x7e]+$/);
  });

  it('are refused: a digest that is none', async () => {
    const { call } = await admin();
    expect((await call('GET', '/lora/v1/adapters/a/revisions/latest')).body.error.code).toBe(
      'malformed_request',
    );
    expect((await call('GET', `/lora/v1/adapters/a/revisions/sha256:${'0'.repeat(64)}`)).status).toBe(404);
  });

  it('are answered 404 and 405 in the same shape', async () => {
    const { call } = await admin();
    expect(await call('GET', '/v2/nothing')).toMatchObject({
      status: 404,
      body: { error: { code: 'route_not_found' } },
    });
    const reply = await call('PATCH', '/lora/v1/adapters/a');
    expect(reply).toMatchObject({
      status: 405,
      body: { error: { code: 'method_not_allowed', expected: ['DELETE'] } },
    });
    expect(reply.headers.get('allow')).toBe('DELETE');
  });

  it.each([
    ['no length', `PUT /v1/adapters/a HTTP/1.1\r\n${AUTHORIZED}\r\n`, /^HTTP\/1.1 411.*length_required/s],
    [
      'two lengths',
      `PUT /v1/adapters/a HTTP/1.1\r\n${AUTHORIZED}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n`,
      /^HTTP\/1.1 400.*malformed_request/s,
    ],
    ['no HTTP', 'hello\r\n\r\n', /^HTTP\/1.1 400.*malformed_request/s],
    [
      '40 KB of headers',
      `GET / HTTP/1.1\r\n${AUTHORIZED}X: ${'x'.repeat(40_000)}\r\n\r\n`,
      /^HTTP\/1.1 431.*header_too_large/s,
    ],
    [
      'a body that ends early',
      `PUT /v1/adapters/a HTTP/1.1\r\n${AUTHORIZED}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n`,
      /^HTTP\/1.1 400.*malformed_safetensors/s,
    ],
  ])('are refused in JSON: %s', async (_what, request, expected) => {
    const { raw } = await admin();
    expect(await raw(request, /\}\}/)).toMatch(expected);
  });

  it('never hold more of a chunked body than the limit', async () => {
    const { raw, registry } = await admin({ room: 1000 });
    const tensors = packSafetensors(
      new Map([[factorName(0, 'q_proj', 'A'), f32([8, MAX_ADAPTER_BYTES / 32 + 256], () => 0)]]),
    );
    const head = `PUT /v1/adapters/a HTTP/1.1\r\n${AUTHORIZED}Transfer-Encoding: chunked\r\n\r\n${tensors.length.toString(16)}\r\n`;
    const reply = await raw(Buffer.concat([Buffer.from(head), tensors]), /\}\}/);
    expect(reply).toMatch(/^HTTP\/1.1 413.*body_too_large/s);
    expect(registry.tier.usedBytes).toBe(0);
  });
});

describe('watching', () => {
  async function watch({ url }: AdminBench) {
    const abort = new AbortController();
    const response = await fetch(`${url}/lora/v1/watch`, {
      headers: { authorization: `Bearer ${TOKEN}` },
      signal: abort.signal,
    });
    const reader = (response.body as ReadableStream<Uint8Array>)
      .pipeThrough(new TextDecoderStream())
      .getReader();
    let rest = '';
    /** Throws where the server has ended the stream. */
    const next = async (): Promise<PodState> => {
      for (;;) {
        const end = rest.indexOf('\n\n');
        if (end < 0) {
          const { value, done } = await reader.read();
          if (done) throw new Error('The watch has ended');
          rest += value;
          continue;
        }
        const event = rest.slice(0, end);
        rest = rest.slice(end + 2);
        if (event.startsWith('data: ')) return PodState.parse(JSON.parse(event.slice(6)));
      }
    };
    return { next, response, abort };
  }

  it('tells the state at once and after each change', async () => {
    const made = await admin();
    const { next, response } = await watch(made);
    expect(response.headers.get('content-type')).toBe('text/event-stream');
    expect((await next()).adapters).toEqual([]);
    const digest = await put(made.registry, 'sql', 1);
    let state = await next();
    while (state.adapters[0]?.current !== digest) state = await next();
    await made.registry.remove('sql', null, null);
    while (state.adapters.length > 0) state = await next();
    expect(state.epoch).toBe(2);
  });

  it('is left without a trace', async () => {
    const made = await admin();
    const { next, abort } = await watch(made);
    await next();
    expect(made.registry.subscribers).toBe(1);
    abort.abort();
    await expect.poll(() => made.registry.subscribers).toBe(0);
  });

  it('is bounded in number', async () => {
    const made = await admin();
    for (let i = 0; i < 64; i++) await watch(made);
    const reply = await made.call('GET', '/lora/v1/watch');
    expect(reply).toMatchObject({ status: 429, body: { error: { code: 'too_many_requests' } } });
  });

  it('ends when the server closes', async () => {
    const made = await admin();
    const { next } = await watch(made);
    await next();
    await made.app.close();
    await expect(next()).rejects.toThrow('The watch has ended');
    expect(made.registry.subscribers).toBe(0);
  });
});
