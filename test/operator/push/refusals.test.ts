import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { refusalOf } from '../../../operator/push/refusal.ts';
import { LorikeetError } from '../../../server/contract/errors.ts';
import { goodAdapter, packSafetensors, wideTensors } from '../../support/adapter-files.ts';
import { FakePod } from '../../support/pod/fake-pod.ts';
import { refusal } from '../../support/pod/fault.ts';
import { bigAdapter, configHeader } from './adapters.ts';
import { TOKENS } from './fake-reviews.ts';
import { put, type Rig, startRig, until } from './harness.ts';
import { PATH, RawClient } from './raw-client.ts';

let rig: Rig;
let connections: { bytesRead: number }[];
beforeEach(async () => {
  rig = await startRig();
  connections = [];
  rig.app.server.on('connection', (socket) => connections.push(socket));
});
afterEach(() => rig.close());

const files = goodAdapter();
const config = configHeader(files.config);

describe('tensors that do not fit', () => {
  it('are refused by their header while the client still sends', async () => {
    const tensors = packSafetensors(wideTensors());
    const client = new RawClient(rig.port);
    rig.publisher.maxRank = 16;
    const { config } = goodAdapter(7, { r: 64, target_modules: ['q_proj'] });
    client.head({ 'content-length': tensors.length, 'x-lora-config': configHeader(config) });
    client.send(tensors.subarray(0, 8192));
    const reply = await client.reply();
    expect([reply?.status, reply?.body.error]).toMatchObject([
      422,
      { code: 'rank_too_large', expected: 16, actual: 64 },
    ]);
    expect(rig.publisher.pods.flatMap(({ uploads }) => uploads)).toEqual([]);
    expect(connections[0]?.bytesRead).toBeLessThan(16 * 1024);
  });

  it.each([
    [
      'a pickle',
      Buffer.concat([Buffer.from('\x80\x04\x95', 'latin1'), Buffer.alloc(100)]),
      400,
      'malformed_safetensors',
    ],
    ['a header of 100 MB', Buffer.from([0, 0, 0, 6, 0, 0, 0, 0, 0x7b]), 400, 'malformed_safetensors'],
    ['eight bytes', Buffer.alloc(8), 400, 'malformed_safetensors'],
    ['seven bytes', Buffer.alloc(7), 400, 'malformed_safetensors'],
  ])('are refused: %s', async (_, tensors, status, code) => {
    const reply = await put(rig, { tensors, config: files.config });
    expect([reply.status, reply.body.error.code]).toEqual([status, code]);
  });

  it('leave the connection open for the next push when they were read to the end', async () => {
    const client = new RawClient(rig.port);
    rig.publisher.pods = [new FakePod({ name: 'pod-a', fault: refusal('non_finite') })];
    const send = () => {
      client.head({ 'content-length': files.tensors.length, 'x-lora-config': config });
      client.send(files.tensors);
    };
    send();
    expect((await client.reply())?.status).toBe(422);
    rig.publisher.pods = [new FakePod({ name: 'pod-a' })];
    send();
    expect((await client.reply())?.status).toBe(200);
    expect(connections).toHaveLength(1);
    client.close();
  });
});

it('a push whose time ran out before it was accepted: 504, and it says that nothing has changed', () => {
  const refusal = refusalOf(new DOMException('too late', 'TimeoutError'));
  expect([refusal.status, refusal.code, refusal.message]).toEqual([
    504,
    'timeout',
    'It was not accepted in time: nothing has changed; try again',
  ]);
});

describe('a request that is not a push', () => {
  const big = 999_999_999_999;
  const cases: [string, Record<string, string | number>, string, number, string][] = [
    ['larger than allowed', { 'content-length': big }, '', 413, 'body_too_large'],
    ['without length', {}, '', 411, 'length_required'],
    ['compressed', { 'content-length': 10, 'content-encoding': 'gzip' }, '', 415, 'unsupported_encoding'],
    [
      'compressed as identity',
      { 'content-length': 10, 'content-encoding': 'identity' },
      '',
      415,
      'unsupported_encoding',
    ],
    ['compressed on the way', { 'transfer-encoding': 'gzip, chunked' }, '', 415, 'unsupported_encoding'],
    ['JSON', { 'content-length': 10, 'content-type': 'application/json' }, '', 415, 'unsupported_media_type'],
    [
      'a form',
      { 'content-length': 10, 'content-type': 'application/x-www-form-urlencoded' },
      '',
      415,
      'unsupported_media_type',
    ],
    [
      'with parameters',
      { 'content-length': 10, 'content-type': 'application/octet-stream; x=1' },
      '',
      415,
      'unsupported_media_type',
    ],
    [
      'in upper case',
      { 'content-length': 10, 'content-type': 'Application/Octet-Stream' },
      '',
      415,
      'unsupported_media_type',
    ],
    [
      'with junk after a tab',
      { 'content-length': 10, 'content-type': 'application/octet-stream\tx' },
      '',
      415,
      'unsupported_media_type',
    ],
    ['of no type', { 'content-length': 10, 'content-type': '/' }, '', 415, 'unsupported_media_type'],
    [
      'with a step that is no number',
      { 'content-length': 10, 'x-lora-step': '-1' },
      '',
      400,
      'malformed_request',
    ],
    [
      'with a step beyond 2^53',
      { 'content-length': 10, 'x-lora-step': '9007199254740993' },
      '',
      400,
      'malformed_request',
    ],
    [
      'with If-Match without quotes',
      { 'content-length': 10, 'if-match': 'sha256:00' },
      '',
      400,
      'malformed_request',
    ],
    [
      'with two digests in If-Match',
      { 'content-length': 10, 'if-match': '"a", "b"' },
      '',
      400,
      'malformed_request',
    ],
    [
      'with an unknown waiver',
      { 'content-length': 10, 'x-lora-allow': 'everything' },
      '',
      400,
      'malformed_request',
    ],
    [
      'with a digest of another kind',
      { 'content-length': 10, 'content-digest': 'md5=:AAAA:' },
      '',
      400,
      'malformed_request',
    ],
    ['that waits for something else', { 'content-length': 10 }, '?wait=loaded', 400, 'malformed_request'],
    [
      'that waits for two things',
      { 'content-length': 10 },
      '?wait=staged&wait=active',
      400,
      'malformed_request',
    ],
    ['that waits too long', { 'content-length': 10 }, '?timeout=1h', 400, 'malformed_request'],
    ['that waits not at all', { 'content-length': 10 }, '?timeout=0s', 400, 'malformed_request'],
  ];

  it.each(cases)('is refused before its body is read: %s', async (_, headers, query, status, code) => {
    const client = new RawClient(rig.port);
    client.head({ ...headers, expect: '100-continue' }, { path: `${PATH}${query}` });
    const reply = await client.reply();
    expect([reply?.status, reply?.body.error.code]).toEqual([status, code]);
    client.close();
  });

  it.each([
    [
      'a content type twice',
      'content-type: application/octet-stream\r\ncontent-type: application/json\r\ncontent-length: 10\r\n',
      415,
    ],
    ['length and chunks', 'content-length: 10\r\ntransfer-encoding: chunked\r\n', 400],
    ['two lengths', 'content-length: 10\r\ncontent-length: 11\r\n', 400],
    ['a negative length', 'content-length: -1\r\n', 400],
    ['a header of 40 KB', `x-pad: ${'x'.repeat(40_000)}\r\ncontent-length: 10\r\n`, 431],
    ['bytes that are no header', 'not a header\r\n', 400],
  ])('is refused: %s', async (_, lines, status) => {
    const client = new RawClient(rig.port);
    client.send(`PUT ${PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${TOKENS.trainer}\r\n${lines}\r\n`);
    const reply = await client.reply();
    expect(reply?.status).toBe(status);
    expect(typeof reply?.body.error.code).toBe('string');
    client.close();
  });

  it('is cut off when its chunks carry 30 KB of extensions', async () => {
    const client = new RawClient(rig.port);
    client.head({ 'transfer-encoding': 'chunked', 'x-lora-config': config });
    client.send(`8;${'x'.repeat(30_000)}\r\n`);
    await client.ended();
    await until(() => rig.inFlight[0] === 0);
    expect(rig.publisher.pods.flatMap(({ uploads }) => uploads)).toEqual([]);
  });

  it('is capped when it is chunked', async () => {
    rig.publisher.maxBytes = 200_000;
    const { tensors, config } = bigAdapter();
    const client = new RawClient(rig.port);
    client.head({ 'transfer-encoding': 'chunked', 'x-lora-config': configHeader(config) });
    client.send(`${tensors.length.toString(16)}\r\n`);
    client.send(tensors);
    expect((await client.reply())?.body.error.code).toBe('body_too_large');
    expect(rig.publisher.pods.flatMap(({ staged }) => staged)).toEqual([]);
    client.close();
  });

  it('is not found where there is no such route', async () => {
    for (const [method, path] of [
      ['GET', '/'],
      ['POST', PATH],
      ['DELETE', PATH],
      ['PATCH', PATH],
      ['PUT', `${PATH}/`],
    ] as const) {
      const client = new RawClient(rig.port);
      client.head({ 'content-length': 0 }, { method, path });
      expect((await client.reply())?.status).toBe(404);
      client.close();
    }
  });

  it('about an adapter that takes no push hears the publisher', async () => {
    for (const [code, status] of [
      ['not_push_source', 409],
      ['no_pods', 503],
      ['adapter_deleting', 409],
      ['not_leader', 503],
    ] as const) {
      rig.publisher.error = new LorikeetError(code, 'no');
      const client = new RawClient(rig.port);
      client.head({ 'content-length': 10, expect: '100-continue' });
      const reply = await client.reply();
      expect([reply?.status, reply?.body.error.code]).toEqual([status, code]);
      expect(reply?.headers['retry-after']).toBe(status === 503 ? '1' : undefined);
      client.close();
    }
  });
});

describe('a slow client', () => {
  it('that does not finish its head is cut off', async () => {
    const slow = await startRig({ headersMs: 200 });
    const client = new RawClient(slow.port);
    client.send(`PUT ${PATH} HTTP/1.1\r\nhost: x\r\n`);
    expect((await client.reply())?.status).toBe(408);
    await client.ended();
    await slow.close();
  });

  it('that says nothing at all is cut off', async () => {
    const slow = await startRig({ headersMs: 200 });
    const client = new RawClient(slow.port);
    await client.ended();
    await slow.close();
  });

  it('that sends nothing more is cut off, and nothing stays', async () => {
    const client = new RawClient(rig.port);
    client.head({ 'content-length': files.tensors.length, 'x-lora-config': config });
    client.send(files.tensors.subarray(0, 90_000));
    const reply = await client.reply();
    expect([reply?.status, reply?.body.error.code]).toEqual([408, 'request_timeout']);
    expect([rig.inFlight, rig.spool.usedBytes]).toEqual([[0, 0], 0]);
  });

  it('that drips a byte at a time is cut off too', async () => {
    const client = new RawClient(rig.port);
    client.head({ 'content-length': files.tensors.length, 'x-lora-config': config });
    const drip = setInterval(() => client.send(Buffer.from([1])), 50);
    const reply = await client.reply();
    clearInterval(drip);
    expect(reply?.status).toBeGreaterThanOrEqual(400);
    const dripping = new RawClient(rig.port);
    dripping.head({ 'content-length': files.tensors.length, 'x-lora-config': config });
    dripping.send(files.tensors.subarray(0, 4096));
    const startedAt = performance.now();
    const more = setInterval(() => dripping.send(files.tensors.subarray(4096, 4097)), 50);
    expect((await dripping.reply())?.status).toBe(408);
    clearInterval(more);
    expect(performance.now() - startedAt).toBeLessThan(4_000);
  });

  it('has the more time the more it brings', async () => {
    const patient = await startRig({
      body: { windowMs: 400, windowBytesMin: 1_024, waitMs: 200, bytesPerMsMin: 100 },
    });
    const client = new RawClient(patient.port);
    client.head({ 'content-length': files.tensors.length, 'x-lora-config': config });
    for (let at = 0; at < files.tensors.length; at += 20_000) {
      client.send(files.tensors.subarray(at, at + 20_000));
      await new Promise((resolve) => setTimeout(resolve, 80));
    }
    expect((await client.reply())?.status).toBe(200);
    client.close();
    await patient.close();
  });

  it('is not blamed for slow pods', async () => {
    rig.publisher.pods = [new FakePod({ name: 'pod-a', fault: { kind: 'slow', msPerBlock: 30 } })];
    expect((await put(rig, bigAdapter())).status).toBe(200);
  });
});

it('a push beyond the quota of its namespace is refused unread, and told when to come again', async () => {
  const detail = { field: 'tenancy.quota.pushesPerMinute', retryAfterSeconds: 17 };
  rig.publisher.quotaError = new LorikeetError('quota_exceeded', 'Two a minute', detail);
  const client = new RawClient(rig.port);
  client.head({ 'content-length': files.tensors.length, 'x-lora-config': config, expect: '100-continue' });
  const reply = await client.reply();
  expect([reply?.status, reply?.headers['retry-after'], reply?.body.error]).toMatchObject([
    429,
    '17',
    { code: 'quota_exceeded' },
  ]);
  expect(rig.publisher.pods.flatMap(({ uploads }) => uploads)).toEqual([]);
});
