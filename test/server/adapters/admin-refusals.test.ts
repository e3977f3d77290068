import { once } from 'node:events';
import { connect } from 'node:net';
import { describe, expect, it } from 'vitest';
import { CONFIG, f32, factorName, goodAdapter, packSafetensors } from '../../support/adapter-files.ts';
import { TOKEN, upload, useAdmin } from './admin.ts';
import { ADAPTER_BYTES, HELD_BYTES, MAX_ADAPTER_BYTES } from './bench.ts';

const admin = useAdmin();
const AUTHORIZED = `Host: x\r\nAuthorization: Bearer ${TOKEN}\r\n`;

describe('who may call', () => {
  const ROUTES = [
    ['GET', '/lora/v1/state'],
    ['GET', '/lora/v1/watch'],
    ['POST', '/lora/v1/seeded'],
    ['PUT', '/v1/adapters/sql'],
    ['DELETE', '/lora/v1/adapters/sql'],
    ['POST', '/lora/v1/adapters/sql/activate'],
    ['POST', '/lora/v1/adapters/sql/rollback'],
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

  it('has room beside 300 connections that say nothing', async () => {
    const { port, call } = await admin();
    const silent = Array.from({ length: 300 }, () => connect(port, '127.0.0.1').on('error', () => {}));
    await Promise.all(silent.map((socket) => Promise.race([once(socket, 'connect'), once(socket, 'close')])));
    expect((await call('GET', '/lora/v1/state')).status).toBe(200);
    for (const socket of silent) socket.destroy();
  });

  it('is not cut off while it is served, however long that takes', async () => {
    const { app } = await admin();
    expect([app.server.timeout, app.server.keepAliveTimeout]).toEqual([0, 60_000]);
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

  it('is refused for a length that its header contradicts, before its data', async () => {
    const { raw } = await admin();
    const { tensors, config } = goodAdapter(1);
    const head = `PUT /v1/adapters/a HTTP/1.1\r\n${AUTHORIZED}X-Lora-Config: ${config.toString('base64url')}\r\nContent-Length: ${tensors.length + 1}\r\n\r\n`;
    const reply = await raw(Buffer.concat([Buffer.from(head), tensors.subarray(0, 4096)]), /\}\}/);
    expect(reply).toMatch(/^HTTP\/1.1 400.*trailing bytes/s);
  });

  it('gives its room back when the client goes', async () => {
    const { port, registry } = await admin();
    const { tensors, config } = goodAdapter(1);
    const socket = connect(port, '127.0.0.1');
    socket.write(
      `PUT /v1/adapters/a HTTP/1.1\r\n${AUTHORIZED}X-Lora-Config: ${config.toString('base64url')}\r\nContent-Length: ${tensors.length}\r\n\r\n`,
    );
    socket.write(tensors.subarray(0, 50_000));
    await expect.poll(() => registry.tier.usedBytes).toBe(HELD_BYTES);
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
    ['/v1/adapters/org%2F', 'invalid_name'],
    ['/v1/adapters/org%2F%2Fsql', 'invalid_name'],
    ['/v1/adapters/org%2F..%2Fsql', 'invalid_name'],
    ['/v1/adapters/sql@step-1', 'invalid_name'],
    ['/v1/adapters/a%00b', 'invalid_name'],
    ['/v1/adapters/a%0d%0ax', 'invalid_name'],
    ['/v1/adapters/__proto__', 'invalid_name'],
    [`/v1/adapters/${'a'.repeat(257)}`, 'invalid_name'],
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

describe('an operator that another one has taken over from', () => {
  it.each([
    ['POST', '/lora/v1/adapters/sql/revisions'],
    ['PUT', '/v1/adapters/sql'],
  ])('brings nothing more, though its bytes were under way: %s %s', async (method, path) => {
    const { call, registry } = await admin();
    const { body, headers } = upload(1, { 'x-lora-fence': '3.1' });
    const taken = Promise.withResolvers<void>();
    const slowly = async function* () {
      yield body.subarray(0, -100);
      await taken.promise;
      yield body.subarray(-100);
    };
    const bringing = call(method, path, { headers, body: slowly(), duplex: 'half' });
    await expect.poll(() => registry.tier.usedBytes).toBeGreaterThan(0);
    registry.requireFence({ term: 4, sequence: 0 });
    taken.resolve();
    expect(await bringing).toMatchObject({ status: 409, body: { error: { code: 'stale_fence' } } });
    expect([registry.state().adapters, registry.tier.usedBytes]).toEqual([[], 0]);
  });
});
