import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type ParrotServer, startParrot } from '../../support/parrot-server.ts';
import { BASE, PIRATE, SQL, trlCompletion } from '../vllm/trl.ts';
import { bridge, type TestBridge } from './start.ts';

const OK = 200;

let pods: ParrotServer[];
let server: TestBridge;
let prompt: number[];
beforeAll(async () => {
  pods = await Promise.all([startParrot(['--vllm-api']), startParrot(['--vllm-api'])]);
  server = await bridge({
    push: pods.map(({ admin }) => admin),
    serving: pods.map(({ serving }) => serving),
  });
  const messages = [{ role: 'user', content: 'Show me hotels sorted by status.' }];
  prompt = (await server.post('/tokenize', { messages })).body.tokens;
});
afterAll(async () => {
  await server.close();
  await Promise.all(pods.map((pod) => pod.close()));
});

const text = async (ids: number[]) => (await server.post('/detokenize', { tokens: ids })).body.prompt;
const revisionOn = async (pod: ParrotServer, name: string) =>
  (await pod.get(`/v1/models/${name}`)).body.revision;

describe("TRL's AsyncGRPOTrainer", () => {
  const complete = (model: string) => server.post('/v1/completions', trlCompletion(model, prompt));
  const sync = async (version: number, fixture: string) => {
    const name = `trl-policy-v${version}`;
    const paused = await server.post('/pause?mode=keep', '');
    const body = { lora_name: name, lora_path: server.save(name, fixture), load_inplace: false };
    const loaded = await server.post('/v1/load_lora_adapter', body);
    const resumed = await server.post('/resume', '');
    await server.post('/v1/unload_lora_adapter', { lora_name: `trl-policy-v${version - 2}` });
    return { name, loaded, statuses: [paused.status, loaded.status, resumed.status] };
  };

  it('finds what it asks of a server at the start', async () => {
    expect((await server.get('/health/')).status).toBe(OK);
    const { vllm_config: config } = (await server.get('/server_info?config_format=json')).body;
    expect(config).toMatchObject({
      lora_config: { max_lora_rank: 64, max_loras: 6 },
      parallel_config: { data_parallel_size: 1 },
      model_config: { dtype: expect.stringMatching(/^torch\.(?:bfloat16|float32)$/) },
    });
    expect((await server.get('/v1/models')).body.data).toMatchObject([
      { id: 'parrot', parent: null, max_model_len: 2048 },
    ]);
  });

  it('samples each version under its name from any pod, and no more those that it unloaded', async () => {
    expect(await text((await complete('parrot')).body.choices[0].token_ids)).toContain(BASE);
    for (const [version, fixture, says] of [
      [1, 'pirate', PIRATE],
      [2, 'sql', SQL],
      [3, 'json', 'hotels'],
    ] as const) {
      const { name, loaded, statuses } = await sync(version, fixture);
      expect(statuses).toEqual([OK, OK, OK]);
      expect(loaded.body).toBe(`Success: LoRA adapter '${name}' added successfully.`);
      const { body, headers } = await complete(name);
      expect(await text(body.choices[0].token_ids)).toContain(says);
      expect(body.choices[0].logprobs.token_logprobs).toHaveLength(body.choices[0].token_ids.length);
      expect([headers.get('x-lora-step'), body.lora.name]).toEqual([String(version), 'trl-policy']);
      expect(new Set(await Promise.all(pods.map((pod) => revisionOn(pod, 'trl-policy'))))).toEqual(
        new Set([headers.get('x-lora-revision')]),
      );
    }
    const earlier = await complete('trl-policy-v2');
    expect(await text(earlier.body.choices[0].token_ids)).toContain(SQL);
    expect((await complete('trl-policy-v1')).status).toBe(404);
    const listed = (await server.get('/v1/models')).body.data as { id: string; step?: number }[];
    expect(listed.map(({ id, step }) => [id, step])).toEqual([
      ['parrot', undefined],
      ['trl-policy-v2', 2],
      ['trl-policy-v3', 3],
    ]);
  });

  it('is logged sync by sync, with what each part took', () => {
    expect(server.logged('synced')[0]).toMatchObject({
      name: 'trl-policy-v1',
      adapter: 'trl-policy',
      revision: expect.stringMatching(/^sha256:/),
      step: 1,
      bytes: 660520,
      pods: 2,
      readMs: expect.any(Number),
      pushMs: expect.any(Number),
      swapMs: expect.any(Number),
      skewMs: expect.any(Number),
    });
  });
});

describe('prime-rl', () => {
  it("loads each version under the base's own name, at once", async () => {
    expect((await server.get('/liveness')).status).toBe(OK);
    const said: string[] = [];
    for (const [step, fixture] of [
      ['step_1', 'pirate'],
      ['step_2', 'sql'],
    ] as const) {
      expect((await server.post('/pause?mode=keep&clear_cache=false', '')).status).toBe(OK);
      const body = { lora_name: 'parrot', lora_path: server.save(`broadcasts/${step}`, fixture) };
      const loaded = await server.post('/load_lora_adapter', body);
      expect([loaded.status, loaded.body]).toEqual([OK, { status: 'ok' }]);
      expect((await server.post('/resume', '')).status).toBe(OK);
      const answered = await server.post('/inference/v1/generate', {
        model: 'parrot',
        token_ids: prompt,
        cache_salt: step,
        sampling_params: { max_tokens: 40, temperature: 0, logprobs: 0 },
      });
      said.push(await text(answered.body.choices[0].token_ids));
      expect(answered.headers.get('x-lora-step')).toBe(step.slice(-1));
    }
    expect(said).toEqual([expect.stringContaining(PIRATE), expect.stringContaining(SQL)]);
    const { data } = (await server.get('/v1/models')).body;
    expect(data.filter(({ id }: { id: string }) => id === 'parrot')).toMatchObject([
      { parent: 'parrot', step: 2, revision: expect.any(String) },
    ]);
    expect((await server.post('/v1/unload_lora_adapter', { lora_name: 'parrot' })).status).toBe(OK);
    const { body } = await server.post('/v1/completions', {
      prompt,
      temperature: 0,
      max_tokens: 40,
      model: 'parrot',
    });
    expect([body.choices[0].text, body.lora]).toEqual([expect.stringContaining(BASE), null]);
  });
});

describe('SkyRL', () => {
  it('loads, samples and unloads', async () => {
    expect((await server.get('/get_world_size')).body).toEqual({ world_size: 1 });
    const load = async (fixture: string) => {
      const body = { lora_name: 'skyrl-lora', lora_path: server.save(`skyrl/${fixture}`, fixture) };
      return (await server.post('/skyrl/v1/load_lora_adapter', body)).body;
    };
    const loaded = { status: 'ok', lora_name: 'skyrl-lora' };
    const [first, second] = [await load('pirate'), await load('sql')];
    expect([first, second]).toEqual([
      { ...loaded, lora_int_id: expect.any(Number) },
      { ...loaded, lora_int_id: first.lora_int_id + 1 },
    ]);
    expect((await server.post('/reset_prefix_cache', '')).status).toBe(OK);
    const { body } = await server.post(
      '/inference/v1/generate',
      {
        model: 'skyrl-lora',
        token_ids: prompt,
        sampling_params: { max_tokens: 40, temperature: 0, logprobs: 1, seed: 3 },
      },
      { 'x-session-id': 'a' },
    );
    expect(await text(body.choices[0].token_ids)).toContain(SQL);
    expect(body.choices[0].finish_reason).toBe('stop');
    expect((await server.post('/v1/unload_lora_adapter', { lora_name: 'skyrl-lora' })).status).toBe(OK);
    const left = await Promise.all(pods.map((pod) => pod.get('/v1/models/skyrl-lora')));
    expect(left.map(({ status }) => status)).toEqual([404, 404]);
  });
});

it('a pause that holds lets nothing through until it is over', async () => {
  expect((await server.post('/pause?mode=wait', '')).status).toBe(OK);
  let isAnswered = false;
  const held = server.post('/v1/completions', { model: 'parrot', prompt, max_tokens: 1 }).finally(() => {
    isAnswered = true;
  });
  expect((await server.post('/tokenize', { prompt: 'Hi' })).status).toBe(OK);
  expect(isAnswered).toBe(false);
  await server.post('/resume', '');
  expect((await held).status).toBe(OK);
});

it('a reset of the prefix cache is one on every pod', async () => {
  const asked = { model: 'parrot', prompt: prompt.map((id) => id + 1), max_tokens: 1 };
  const cached = async (pod: ParrotServer) =>
    (await pod.post('/v1/completions', asked)).body.usage.prompt_tokens_details.cached_tokens;
  const onAll = async () => [await cached(pods[0] as ParrotServer), await cached(pods[1] as ParrotServer)];
  await onAll();
  const warm = await onAll();
  expect((await server.post('/reset_prefix_cache', '')).status).toBe(OK);
  expect([warm, await onAll()]).toEqual([
    [16, 16],
    [0, 0],
  ]);
});

describe('axolotl', () => {
  it('looks at the paths, and loads in place', async () => {
    const { paths } = (await server.get('/openapi.json')).body;
    expect(paths).toHaveProperty('/v1/load_lora_adapter');
    expect(paths).not.toHaveProperty('/metrics');
    const load = (fixture: string) =>
      server.post('/v1/load_lora_adapter', {
        lora_name: 'axolotl',
        lora_path: server.save('axolotl', fixture),
        load_inplace: true,
      });
    expect([(await load('pirate')).status, (await load('sql')).status]).toEqual([OK, OK]);
    const { body } = await server.post('/v1/completions', {
      model: 'axolotl',
      prompt,
      temperature: 0,
      max_tokens: 40,
    });
    expect(body.choices[0].text).toContain(SQL);
  });
});

it('a chat is streamed to its end', async () => {
  const response = await fetch(`${server.url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      model: 'parrot',
      messages: [{ role: 'user', content: 'Show me hotels sorted by status.' }],
      stream: true,
      temperature: 0,
    }),
  });
  expect(response.headers.get('content-type')).toContain('text/event-stream');
  expect(await response.text()).toMatch(/data: \[DONE\]\n\n$/);
});

it('weights are named by their digests', async () => {
  const { body } = await server.get('/v1/models/axolotl');
  expect((await server.get('/weight_info?model=axolotl')).body).toEqual({ weight_version: body.revision });
  expect((await server.get('/weight_info')).body.weight_version).toMatch(/^sha256:/);
  expect((await server.get('/weight_info?model=nobody')).status).toBe(404);
});
