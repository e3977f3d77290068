import { appendFileSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type ParrotServer, startParrot } from '../../support/parrot-server.ts';
import { type Door, door, type Meddle } from './doors.ts';
import { bridge, type TestBridge } from './start.ts';

const closing: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const each of closing.splice(0).reverse()) await each.close();
});
const open = async (...args: Parameters<typeof bridge>): Promise<TestBridge> => {
  const opened = await bridge(...args);
  closing.push(opened);
  return opened;
};

let pods: [ParrotServer, ParrotServer];
beforeAll(async () => {
  pods = await Promise.all([startParrot(['--vllm-api']), startParrot(['--vllm-api'])]);
});
afterAll(() => Promise.all(pods.map((pod) => pod.close())));

/** Closed after the test. */
async function between({ serving }: ParrotServer, meddle?: Meddle): Promise<Door> {
  const opened = await door(serving, meddle);
  closing.push(opened);
  return opened;
}

const ASK = { model: 'policy-v1', prompt: 'Show me hotels', max_tokens: 4, temperature: 0 };
const loadOf = (server: TestBridge, name: string, fixture: string) =>
  server.post('/v1/load_lora_adapter', { lora_name: name, lora_path: server.save(name, fixture) });

describe('a pod that answers with another revision', () => {
  const lies: [name: string, revision: string | null][] = [
    ['says so', `sha256:${'b'.repeat(64)}`],
    ['says nothing of its revision', null],
  ];
  it.each(
    lies.flatMap(([name, revision]) => [true, false].map((stream) => [name, stream, revision] as const)),
  )('and %s: 502, and no token (stream: %s)', async (_name, stream, revision) => {
    const liar = await between(pods[0], async ({ url }, response, pass) => {
      if (url !== '/v1/completions') return pass();
      response.writeHead(200, {
        'content-type': stream ? 'text/event-stream' : 'application/json',
        ...(revision === null ? {} : { 'x-lora-revision': revision }),
      });
      response.end('stolen tokens');
    });
    const server = await open({ push: [pods[0].admin], serving: [liar.url] });
    expect((await loadOf(server, 'policy-v1', 'sql')).status).toBe(200);
    const { status, body } = await server.post('/v1/completions', { ...ASK, stream });
    expect([status, body.error.type, body.error.code]).toEqual([502, 'BadGatewayError', 502]);
    expect(JSON.stringify(body)).not.toContain('stolen');
    expect(server.logged('a pod answered with another revision')).toHaveLength(1);
  });

  it('for the base is refused as well', async () => {
    const liar = await between(pods[0], async ({ url }, response, pass) => {
      if (url === '/v1/completions') response.setHeader('x-lora-revision', `sha256:${'b'.repeat(64)}`);
      return pass();
    });
    const server = await open({ push: [pods[0].admin], serving: [liar.url] });
    expect((await server.post('/v1/completions', { ...ASK, model: 'parrot' })).status).toBe(502);
  });
});

describe('a version', () => {
  const held = async (pod: ParrotServer, name: string): Promise<string> =>
    (await pod.get(`/v1/models/${name}`)).body.revision;
  const remove = (pod: ParrotServer, name: string, revision: string) =>
    fetch(`${pod.admin}/lora/v1/adapters/${name}/revisions/${revision}`, {
      method: 'DELETE',
      headers: { authorization: `Bearer ${pod.token}` },
    });

  it('that no pod has any more is 409, and no token; one that another pod has is answered', async () => {
    const server = await open({
      push: pods.map(({ admin }) => admin),
      serving: pods.map(({ serving }) => serving),
    });
    expect((await loadOf(server, 'policy-v1', 'sql')).body).toMatch(/^Success/);
    const revision = await held(pods[0], 'policy');
    expect((await loadOf(server, 'policy-v2', 'pirate')).body).toMatch(/^Success/);
    const ask = () => server.post('/v1/completions', ASK);

    expect((await remove(pods[0], 'policy', revision)).status).toBe(200);
    const left = await Promise.all(Array.from({ length: 4 }, ask));
    expect(left.map(({ status, headers }) => [status, headers.get('x-lora-revision')])).toEqual(
      Array(4).fill([200, revision]),
    );

    expect((await remove(pods[1], 'policy', revision)).status).toBe(200);
    const { status, body } = await ask();
    expect([status, body.error.type, body.choices]).toEqual([409, 'ConflictError', undefined]);
    expect(body.error.message).toContain(`"policy-v1" was loaded as revision ${revision} of step 1`);
    expect((await server.post('/v1/completions', { ...ASK, model: 'policy-v2' })).status).toBe(200);
  });

  it('is asked for under no other name than it was loaded', async () => {
    const server = await open({ push: [pods[0].admin], serving: [pods[0].serving] });
    await loadOf(server, 'policy-v1', 'sql');
    for (const model of [
      'policy',
      'policy-v2',
      'policy@step-1',
      `policy@${(await held(pods[0], 'policy')).slice(7, 17)}`,
    ])
      expect((await server.post('/v1/completions', { ...ASK, model })).status).toBe(404);
  });

  it.each<[string, (server: TestBridge, expected: string) => Promise<{ status: number }>]>([
    ['in a header', (server, expected) => server.post('/v1/completions', ASK, { 'x-lora-expect': expected })],
    [
      'in the body',
      (server, expected) => {
        const [key = '', value = ''] = expected.split('=');
        const expect = { [key]: key === 'min_step' ? Number(value) : value };
        return server.post('/v1/completions', { ...ASK, lora: { expect, wait_ms: 10, scale: 1 } });
      },
    ],
  ])('that the client expects otherwise, %s, is 409', async (_name, ask) => {
    const server = await open({ push: [pods[0].admin], serving: [pods[0].serving] });
    await loadOf(server, 'policy-v1', 'sql');
    const digits = (await held(pods[0], 'policy')).slice(7, 17);
    const statusOf = async (expected: string) => (await ask(server, expected)).status;
    expect([await statusOf(`revision=${digits}`), await statusOf('min_step=1')]).toEqual([200, 200]);
    expect([await statusOf('revision=bbbbbb'), await statusOf('min_step=2')]).toEqual([409, 409]);
    expect(await statusOf('revision=nonsense')).toBe(400);
  });
});

describe('a load', () => {
  it('that does not reach every pod in time is 504 with the names of those that lag, and loads nothing', async () => {
    const server = await open({ push: [pods[0].admin], serving: pods.map(({ serving }) => serving) }, [
      '--sync-timeout',
      '1',
    ]);
    const { status, body } = await loadOf(server, 'lagging-v1', 'sql');
    expect([status, body.error.type]).toEqual([504, 'GatewayTimeoutError']);
    expect(body.error.message).toContain(pods[1].serving);
    expect(body.error.message).not.toContain(pods[0].serving);
    expect(server.logged('not loaded')).toMatchObject([{ name: 'lagging-v1', reason: body.error.message }]);
    expect((await server.post('/v1/completions', { ...ASK, model: 'lagging-v1' })).status).toBe(404);
  });

  it('is current in no pod where one refuses it, however late', async () => {
    const staged = Promise.withResolvers<void>();
    const small = await startParrot(['--vllm-api', '--max-rank', '4']);
    const [willing, refusing] = await Promise.all([
      door(pods[0].admin, async (_request, _response, pass) => {
        await pass();
        staged.resolve();
      }),
      door(small.admin, async (_request, _response, pass) => {
        await staged.promise;
        await pass();
      }),
    ]);
    closing.push(small, willing, refusing);
    const server = await open({
      push: [willing.url, refusing.url],
      serving: [pods[0].serving, small.serving],
    });
    const { status, body } = await loadOf(server, 'refused-v1', 'sql');
    expect([status, body.error.message]).toEqual([400, expect.stringMatching(/rank/)]);
    expect(willing.asked).toHaveLength(1);
    expect((await pods[0].get('/v1/models/refused')).status).toBe(404);
  });

  it.each<[string, (server: TestBridge) => object, RegExp]>([
    ['outside --lora-root', () => ({ lora_name: 'x', lora_path: '/etc' }), /below --lora-root/],
    [
      'of pickled tensors',
      () => ({ lora_name: 'x', lora_path: 'a/adapter_model.bin' }),
      /pickled tensors are not read/,
    ],
    ['without a name', () => ({ lora_path: 'x' }), /^Both 'lora_name'/],
    ['of a name that none can have', () => ({ lora_name: 'a b-v1', lora_path: 'x' }), /Expected a name of/],
    [
      'of a name that is loaded',
      (server) => ({ lora_name: 'twice-v1', lora_path: server.save('twice-v1', 'sql') }),
      /already been loaded/,
    ],
  ])('%s is refused', async (_name, bodyOf, says) => {
    const server = await open({ push: [pods[0].admin], serving: [pods[0].serving] });
    await loadOf(server, 'twice-v1', 'sql');
    const { status, body } = await server.post('/v1/load_lora_adapter', bodyOf(server));
    expect([status, body.error.message]).toEqual([400, expect.stringMatching(says)]);
  });

  it.each<[string, (path: string) => void]>([
    ['not whole yet', (file) => truncateSync(file, 600_000)],
    ['longer than its header says', (file) => appendFileSync(file, 'more')],
    ['empty', (file) => truncateSync(file, 0)],
  ])('of a file that is %s reaches no pod', async (_name, spoil) => {
    const server = await open({ push: ['http://127.0.0.1:1'], serving: [pods[0].serving] });
    spoil(join(server.save('torn-v1', 'sql'), 'adapter_model.safetensors'));
    const { status } = await server.post('/v1/load_lora_adapter', {
      lora_name: 'torn-v1',
      lora_path: 'torn-v1',
    });
    expect(status).toBe(400);
  });

  it('goes on where a pod is gone, and is 502 where all are', async () => {
    const gone = 'http://127.0.0.1:1';
    const server = await open({ push: [gone, pods[0].admin], serving: [gone, pods[0].serving] });
    expect((await loadOf(server, 'lonely-v1', 'sql')).status).toBe(200);
    expect((await server.post('/v1/completions', { ...ASK, model: 'lonely-v1' })).status).toBe(200);
    const nobody = await open({ push: [gone], serving: [pods[0].serving] });
    expect((await loadOf(nobody, 'lonely-v1', 'sql')).status).toBe(502);
  });

  it('with a token that the pods do not take is 502', async () => {
    const door = await between(pods[0], (_request, response) => {
      response.writeHead(401, { 'content-type': 'application/json' });
      response.end(JSON.stringify({ error: { code: 'unauthenticated', message: 'no' } }));
    });
    const server = await open({ push: [door.url], serving: [pods[0].serving] });
    const { status, body } = await loadOf(server, 'x-v1', 'sql');
    expect([status, body.error.type]).toEqual([502, 'BadGatewayError']);
  });
});

describe('a pod that fails before its answer', () => {
  it.each<[string, Meddle]>([
    ['cuts the connection', (request) => request.socket.destroy()],
    ['is shutting down', (_request, response) => void response.writeHead(503).end('{}')],
    ['failed', (_request, response) => void response.writeHead(500).end('{}')],
  ])('and %s: another one answers', async (_name, fault) => {
    const ailing = await between(pods[0], (request, response, pass) =>
      request.url === '/v1/completions' ? fault(request, response, pass) : pass(),
    );
    const server = await open({ push: [pods[0].admin], serving: [ailing.url, pods[1].serving] });
    const asks = Array.from({ length: 12 }, (_, index) =>
      server.post('/v1/completions', { model: 'parrot', prompt: `${index}`, max_tokens: 2 }),
    );
    expect((await Promise.all(asks)).map(({ status }) => status)).toEqual(Array(12).fill(200));
    expect(ailing.asked).toContain('/v1/completions');
  });

  it('and is the only one: its own refusal is passed on', async () => {
    const ailing = await between(pods[0], (request, response, pass) => {
      if (request.url !== '/v1/completions') return pass();
      response.writeHead(503, { 'retry-after': '7', 'content-type': 'application/json' });
      response.end('{"error":{"message":"full"}}');
    });
    const server = await open({ push: [pods[0].admin], serving: [ailing.url] });
    const { status, headers, body } = await server.post('/v1/completions', { ...ASK, model: 'parrot' });
    expect([status, headers.get('retry-after'), body]).toEqual([503, '7', { error: { message: 'full' } }]);
  });

  it('is asked no more before it is ready, and the bridge is not when none is', async () => {
    const pod = await door(pods[0].serving);
    const server = await open({ push: [pods[0].admin], serving: [pod.url] });
    expect((await server.get('/health')).body).toEqual({ status: 'ok', pods: 1 });
    const ask = async () => (await server.post('/v1/completions', { ...ASK, model: 'parrot' })).status;
    expect(await ask()).toBe(200);
    await pod.close();
    expect(await ask()).toBe(503);
    expect((await server.get('/health')).status).toBe(503);
  });
});
