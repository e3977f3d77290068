import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
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
import { type AdminBench, TOKEN, upload, useAdmin } from './admin.ts';
import { ADAPTER_BYTES, put, stage } from './bench.ts';

const admin = useAdmin();
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
    expect(registry.lookup.models()).toEqual([]);
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
    ['an unknown way', { revision: `sha256:${'0'.repeat(64)}`, inFlight: 'Wait' }, 'malformed_request'],
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
  it.each(['org/Llama-3.1-8B-sql', 'base:sql', `a${':'.repeat(126)}b`])(
    'takes a name as clients write models: %s',
    async (name) => {
      const { call, registry } = await admin();
      const path = `/v1/adapters/${encodeURIComponent(name)}`;
      const reply = await call('PUT', path, upload(1));
      expect(reply.body).toMatchObject({ name });
      expect(registry.lookup.resolve(name)).toEqual({ kind: 'adapter', name });
      expect((await call('DELETE', path.replace('/v1', '/lora/v1'))).status).toBe(200);
    },
  );

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
