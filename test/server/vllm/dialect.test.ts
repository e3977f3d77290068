import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Registry } from '../../../server/adapters/registry.ts';
import { ByteBudget } from '../../../server/openai/byte-budget.ts';
import { Gate } from '../../../server/openai/gate.ts';
import type { Serving } from '../../../server/openai/serving.ts';
import { buildServingApp } from '../../../server/openai/serving-app.ts';
import { speakVllm } from '../../../server/vllm/dialect.ts';
import { eventually } from '../../support/eventually.ts';
import { PARROT, type ParrotServer, startParrot } from '../../support/parrot-server.ts';
import { bench } from '../adapters/bench.ts';

const CHANGING = [
  '/v1/load_lora_adapter',
  '/load_lora_adapter',
  '/skyrl/v1/load_lora_adapter',
  '/v1/unload_lora_adapter',
];

let server: ParrotServer;
beforeAll(async () => {
  server = await startParrot([
    '--vllm-api',
    '--lora-root',
    `${PARROT}/adapters`,
    '--adapter',
    `sql=${PARROT}/adapters/sql`,
  ]);
});
afterAll(() => server.close());

const load = (body: object) => server.post('/v1/load_lora_adapter', body);

describe('a load', () => {
  it.each<[name: string, body: object, type: string, says: RegExp]>([
    ['without a name', { lora_path: 'sql' }, 'InvalidUserInput', /^Both 'lora_name' and 'lora_path' must/],
    ['without a path', { lora_name: 'x' }, 'InvalidUserInput', /^Both 'lora_name' and 'lora_path' must/],
    ['of a name that is there', { lora_name: 'sql', lora_path: 'sql' }, 'InvalidUserInput', /already been/],
    [
      'of a name that would pin a revision',
      { lora_name: 'a@123456', lora_path: 'sql' },
      'InvalidUserInput',
      /Expected a name of/,
    ],
    ['of a path that is a number', { lora_name: 'x', lora_path: 7 }, 'BadRequestError', /^lora_path: /],
  ])('%s is refused', async (_name, body, type, says) => {
    const { status, body: answered } = await load(body);
    expect([status, answered.error.type, answered.error.code]).toEqual([400, type, 400]);
    expect(answered.error.message).toMatch(says);
  });
});

describe('an unload', () => {
  it('of what is not there is 404, as in vLLM', async () => {
    const { status, body } = await server.post('/v1/unload_lora_adapter', { lora_name: 'nobody' });
    expect(status).toBe(404);
    expect(body.error).toEqual({
      message: "The lora adapter 'nobody' cannot be found.",
      type: 'NotFoundError',
      param: null,
      code: 404,
    });
  });

  it('without a name is refused', async () => {
    const { status, body } = await server.post('/v1/unload_lora_adapter', {});
    expect([status, body.error.type]).toEqual([400, 'InvalidUserInput']);
  });

  it('takes the adapter away, and says so in text', async () => {
    await load({ lora_name: 'gone', lora_path: 'json' });
    const { status, headers, body } = await server.post('/v1/unload_lora_adapter', { lora_name: 'gone' });
    expect([status, body]).toEqual([200, "Success: LoRA adapter 'gone' removed successfully."]);
    expect(headers.get('content-type')).toBe('text/plain; charset=utf-8');
    expect((await server.get('/v1/models/gone')).status).toBe(404);
  });
});

describe('a pause', () => {
  it('answers at once, and holds nothing', async () => {
    expect((await server.post('/pause?mode=keep', '')).body).toEqual({ status: 'paused' });
    expect((await server.get('/is_paused')).body).toEqual({ is_paused: true });
    const { status } = await server.post('/v1/completions', { model: 'parrot', prompt: 'Hi', max_tokens: 1 });
    expect(status).toBe(200);
    expect((await server.post('/resume', '')).body).toEqual({ status: 'resumed' });
    expect((await server.get('/is_paused')).body).toEqual({ is_paused: false });
  });

  /** Runs until it is cancelled, as far as this test is concerned. */
  const LONG = {
    model: 'parrot',
    prompt: [5, 6, 7],
    max_tokens: 1500,
    ignore_eos: true,
    return_token_ids: true,
  };
  const metric = async (name: string) =>
    Number(new RegExp(`^${name}{[^}]*} (\\d+)$`, 'm').exec((await server.get('/metrics')).body)?.[1]);
  const running = async () => metric('vllm:num_requests_running');
  const untilRunning = (count: number) =>
    eventually(
      `${count} requests run`,
      { timeoutMs: 10_000, everyMs: 5 },
      async () => (await running()) === count || undefined,
    );

  it('with mode=wait answers once nothing runs, and holds what comes until it is over', async () => {
    const left = new AbortController();
    const long = server.post('/v1/completions', LONG, left.signal).catch(() => 'left');
    await untilRunning(1);
    const paused = server.post('/pause?mode=wait', '');
    const early = await Promise.race([paused, server.get('/is_paused')]);
    expect(early.body).toEqual({ is_paused: true });
    left.abort();
    expect([await long, (await paused).body]).toEqual(['left', { status: 'paused' }]);
    let isAnswered = false;
    const held = server.post('/v1/completions', { ...LONG, max_tokens: 1 }).finally(() => {
      isAnswered = true;
    });
    expect((await server.post('/tokenize', { prompt: 'Hi' })).status).toBe(200);
    expect([isAnswered, await running()]).toEqual([false, 0]);
    await server.post('/resume', '');
    expect((await held).status).toBe(200);
  });

  it('with mode=abort ends what runs with the tokens that it has', async () => {
    const long = server.post('/v1/completions', { ...LONG, n: 2, lora: { base_logprobs: true } });
    await untilRunning(2);
    expect((await server.post('/pause?mode=abort', '')).body).toEqual({ status: 'paused' });
    expect(await running()).toBe(0);
    await server.post('/resume', '');
    const { choices } = (await long).body;
    for (const { finish_reason, token_ids, lora } of choices) {
      expect([finish_reason, lora]).toEqual(['abort', undefined]);
      expect(token_ids.length).toBeLessThan(LONG.max_tokens);
    }
  });

  it('that holds refuses more requests than may wait', async () => {
    const gate = new Gate(1);
    gate.close();
    const left = new AbortController();
    const first = gate.enter(left.signal);
    await expect(gate.enter(left.signal)).rejects.toMatchObject({ status: 503 });
    left.abort('left');
    await expect(first).rejects.toBe('left');
  });

  it.each(['mode=never', 'mode=keep&mode=abort'])('with %s is refused', async (query) => {
    expect((await server.post(`/pause?${query}`, '')).status).toBe(400);
    expect((await server.get('/is_paused')).body).toEqual({ is_paused: false });
  });
});

it('slashes at the end are taken', async () => {
  const statuses = await Promise.all(
    ['/health/', '/get_world_size/', '/v1/models/'].map(async (path) => (await server.get(path)).status),
  );
  expect(statuses).toEqual([200, 200, 200]);
});

it('the configuration is a text where JSON is not asked for', async () => {
  expect((await server.get('/server_info')).body).toEqual({ vllm_config: expect.any(String) });
});

it('weights are named by their digests', async () => {
  const { revision } = (await server.get('/v1/models/sql')).body;
  expect((await server.get('/weight_info?model=sql')).body).toEqual({ weight_version: revision });
  const base = (await server.get('/weight_info')).body.weight_version;
  expect(base).toMatch(/^sha256:/);
  expect(base).not.toBe(revision);
  expect((await server.get('/weight_info?model=nobody')).status).toBe(404);
});

describe('who may load', () => {
  const guarded = (token: string | null) => {
    const serving = { budget: new ByteBudget(1 << 20), metrics: { requestDone: () => {} } };
    const app = buildServingApp({ ...serving, log: { debug: () => {} } } as unknown as Serving);
    speakVllm(app, {
      serving: {} as Serving,
      registry: bench().registry as Registry,
      engine: { dtype: 'float32', slots: 1, maxRank: 1 },
      resetPrefixCache: () => undefined,
      isIdle: () => true,
      root: null,
      token: token === null ? null : () => token,
    });
    return (url: string, headers: Record<string, string>) =>
      app.inject({ method: 'POST', url, headers, payload: '{' });
  };
  const JSON_BODY = { 'content-type': 'application/json' };

  it.each(CHANGING)('is decided before the body of %s is read', async (url) => {
    const post = guarded('right');
    const statusOf = async (headers: object) => (await post(url, { ...JSON_BODY, ...headers })).statusCode;
    expect(await statusOf({})).toBe(401);
    expect(await statusOf({ authorization: 'Bearer wrong' })).toBe(401);
    // The body, which is no JSON, is read only now.
    expect(await statusOf({ authorization: 'Bearer right' })).toBe(400);
  });

  it.each(CHANGING)('is anybody on this machine, but for pages in a browser: %s', async (url) => {
    const post = guarded(null);
    expect((await post(url, JSON_BODY)).statusCode).toBe(400);
    expect((await post(url, { ...JSON_BODY, origin: 'http://ui.example' })).statusCode).toBe(401);
  });
});

it('nothing is loaded without --lora-root', async () => {
  const rootless = await startParrot(['--vllm-api']);
  const { status, body } = await rootless.post('/load_lora_adapter', { lora_name: 'x', lora_path: 'sql' });
  await rootless.close();
  expect([status, body.error.message]).toEqual([404, 'Loading needs --lora-root.']);
});

describe('without --vllm-api', () => {
  let plain: ParrotServer;
  beforeAll(async () => {
    plain = await startParrot();
  });
  afterAll(() => plain.close());

  it.each([...CHANGING, '/pause', '/resume', '/reset_prefix_cache', '/inference/v1/generate'])(
    'there is no POST %s',
    async (path) => {
      const { status, body } = await plain.post(path, { lora_name: 'x', lora_path: 'sql' });
      expect([status, body.error.message]).toEqual([404, `There is no POST ${path} here.`]);
    },
  );

  it.each(['/server_info', '/is_paused', '/get_world_size', '/weight_info', '/openapi.json', '/liveness'])(
    'there is no GET %s',
    async (path) => {
      expect((await plain.get(path)).status).toBe(404);
    },
  );
});
