import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { goodAdapter } from '../../support/adapter-files.ts';
import { eventually } from '../../support/eventually.ts';
import { BASE_MARK, FakeVllm } from '../../support/fake-vllm/server.ts';
import { markOfSeed } from './marks.ts';
import { sidecar, type TestSidecar } from './start.ts';

let vllm: FakeVllm;
let server: TestSidecar;

beforeEach(async () => {
  vllm = await FakeVllm.start({ maxLoras: 2 });
  server = await sidecar(vllm.url);
});
afterEach(async () => {
  await server.close();
  await vllm.stop();
});

const ask = (model: string, more: object = {}) =>
  server.complete({ model, prompt: 'hello', max_tokens: 3, ...more });
const put = async (name: string, seed: number, step?: number) => {
  const response = await server.put(name, seed, { ...(step !== undefined && { step }) });
  expect(response.status).toBe(200);
  return ((await response.json()) as { revision: string }).revision;
};

describe('an answer', () => {
  it('is of the base under its name, as the engine gave it', async () => {
    const { status, body, headers } = await ask('parrot');
    expect([status, body.choices[0].text, body.model, body.lora]).toEqual([
      200,
      BASE_MARK.repeat(3),
      'parrot',
      null,
    ]);
    expect(headers.get('x-lora-revision')).toBeNull();
  });

  it('is of the revision that its name means, and says which', async () => {
    const revision = await put('sql', 1, 41);
    const { body, headers } = await ask('sql');
    expect(body).toMatchObject({
      model: 'sql',
      choices: [{ text: markOfSeed(1).repeat(3) }],
      lora: { name: 'sql', revision, step: 41, spans: [{ from: 0, revision, step: 41 }] },
      weight_version: revision,
      usage: { completion_tokens: 3 },
    });
    expect([headers.get('x-lora-revision'), headers.get('x-lora-step')]).toEqual([revision, '41']);
  });

  it('says the same in a stream, whose every chunk has the name that was asked for', async () => {
    const revision = await put('sql', 1);
    const { body } = await ask('sql', { stream: true });
    const events = body.split('\n\n').filter((text: string) => text.startsWith('data: {'));
    const chunks = events.map((text: string) => JSON.parse(text.slice(6)));
    expect(chunks.map(({ model }: { model: string }) => model)).toEqual(['sql', 'sql', 'sql']);
    expect(chunks.map(({ choices }: { choices: { text: string }[] }) => choices[0]?.text).join('')).toBe(
      markOfSeed(1).repeat(3),
    );
    expect(chunks.at(-1).lora).toMatchObject({ name: 'sql', revision, step: null });
    expect(body.endsWith('data: [DONE]\n\n')).toBe(true);
  });

  it('changes with the next push, and is never of another', async () => {
    await put('sql', 1);
    const running = ask('sql');
    await put('sql', 2);
    expect((await running).body.choices[0].text).toBe(markOfSeed(1).repeat(3));
    expect((await ask('sql')).body.choices[0].text).toBe(markOfSeed(2).repeat(3));
  });

  it('is of a pinned or expected revision, or none', async () => {
    const first = await put('sql', 1, 1);
    await put('sql', 2, 2);
    expect((await ask('sql@step-1')).body.lora.revision).toBe(first);
    expect((await ask(`sql@${first.slice(7, 15)}`)).body.choices[0].text).toBe(markOfSeed(1).repeat(3));
    expect((await ask('sql', { lora: { expect: { min_step: 2 } } })).body.lora.step).toBe(2);
    const late = await ask('sql', { lora: { expect: { min_step: 3 }, wait_ms: 10 } });
    expect([late.status, late.body.error.message]).toEqual([409, expect.stringContaining('min_step')]);
    expect((await ask('other')).status).toBe(404);
  });
});

describe('a request', () => {
  it('reaches the engine as it came but for what is ours', async () => {
    const revision = await put('sql', 1);
    await ask('sql', { seed: 7, lora: { wait_ms: 5 }, logit_bias: { 5: 1.0 }, mystery: { model: 'x' } });
    expect(vllm.asked.at(-1)).toEqual({
      model: `lorikeet-${revision.slice(7)}`,
      cache_salt: revision,
      prompt: 'hello',
      max_tokens: 3,
      seed: 7,
      logit_bias: { 5: 1 },
      mystery: { model: 'x' },
    });
    await ask('sql', { cache_salt: 'mine' });
    expect(vllm.asked.at(-1)?.cache_salt).toBe(`${revision} mine`);
  });

  it('for what the engine cannot do is refused by name', async () => {
    await put('sql', 1);
    for (const [field, value] of Object.entries({
      scale: 0.5,
      policy: 'latest',
      base_logprobs: true,
      score_under: ['parrot'],
    })) {
      const { status, body } = await ask('sql', { lora: { [field]: value } });
      expect([status, body.error.param]).toEqual([400, `lora.${field}`]);
    }
  });

  it('of any other route passes through; those that load adapters do not', async () => {
    const echoed = await fetch(`${server.serving}/echo`, {
      method: 'POST',
      body: 'bytes',
      headers: { 'content-type': 'text/plain' },
    });
    expect(await echoed.text()).toBe('bytes');
    const steering = [
      '/v1/load_lora_adapter',
      '/v1/unload_lora_adapter',
      '/collective_rpc',
      '/sleep',
      '/echo/../wake_up',
    ];
    for (const path of steering)
      expect((await fetch(server.serving + path, { method: 'POST', body: '{}' })).status).toBe(404);
    expect(vllm.changes).toEqual([]);
  });
});

describe('the models', () => {
  it('are the base and adapters by their names, never the names in the engine', async () => {
    const revision = await put('sql', 1, 5);
    const { data } = (await (await fetch(`${server.serving}/v1/models`)).json()) as { data: object[] };
    expect(data).toMatchObject([
      { id: 'parrot', parent: null, max_model_len: 1024 },
      { id: 'sql', parent: 'parrot', revision, step: 5 },
    ]);
  });
});

describe('the bridge', () => {
  it('is told what it asks of a pod', async () => {
    const revision = await put('sql', 1);
    const get = async (path: string) => (await fetch(server.serving + path)).json();
    expect(await get('/server_info?config_format=json')).toMatchObject({
      vllm_config: {
        model_config: { served_model_name: 'parrot', max_model_len: 1024 },
        lora_config: { max_loras: 2, max_lora_rank: 64 },
      },
    });
    expect(await get('/weight_info?model=sql')).toEqual({ weight_version: revision });
    expect((await fetch(`${server.serving}/reset_prefix_cache`, { method: 'POST' })).status).toBe(200);
  });
});

describe('metrics', () => {
  it("are the engine's and ours, with adapters by their served names", async () => {
    await put('sql', 1);
    await ask('sql');
    const text = await (await fetch(`${server.serving}/metrics`)).text();
    const info = text.split('\n').filter((line) => line.startsWith('vllm:lora_requests_info{'));
    expect(info).toEqual([expect.stringMatching(/max_lora="2",running_lora_adapters="sql"/)]);
    expect(text).toMatch(/^vllm:num_requests_running\{.*\} 0$/m);
    expect(text).toMatch(/^lorikeet_adapter_requests_total\{adapter="sql"\} 1$/m);
    expect(text).toMatch(/^lorikeet_adapter_generated_tokens_total\{adapter="sql"\} 3$/m);
    expect(text.match(/^# TYPE process_start_time_seconds /gm)).toHaveLength(1);
  });
});

describe('adapters in the engine', () => {
  it('are as many as it holds; one more takes the place of the least recently used', async () => {
    await put('a', 1);
    await put('b', 2);
    await put('c', 3);
    expect(vllm.adapters.size).toBe(2);
    for (const [name, seed] of [
      ['a', 1],
      ['b', 2],
      ['c', 3],
    ] as const) {
      expect((await ask(name)).body.choices[0].text).toBe(markOfSeed(seed).repeat(3));
      expect(vllm.adapters.size).toBeLessThanOrEqual(2);
    }
    expect((await server.state()).limits.slots).toBe(2);
  });

  it('lie in memory for as long as they are there, and go with their adapter', async () => {
    await put('sql', 1);
    const [folder = ''] = readdirSync(join(server.dir, 'adapters'));
    expect(existsSync(join(server.dir, 'adapters', folder, 'adapter_model.safetensors'))).toBe(true);
    expect((await server.adminCall('DELETE', '/lora/v1/adapters/sql')).status).toBe(200);
    expect([readdirSync(join(server.dir, 'adapters')), vllm.adapters.size]).toEqual([[], 0]);
  });

  it('stay until the last request under them has ended', async () => {
    await server.close();
    await vllm.stop();
    vllm = await FakeVllm.start({ tokenMs: 30 });
    server = await sidecar(vllm.url);
    await put('sql', 1);
    const running = ask('sql', { max_tokens: 20 });
    await eventually('it runs', { timeoutMs: 2_000, everyMs: 5 }, () => vllm.running > 0 || undefined);
    const removed = await server.adminCall('DELETE', '/lora/v1/adapters/sql');
    expect([removed.status, await removed.json()]).toEqual([202, expect.objectContaining({ leases: 1 })]);
    expect(vllm.adapters.size).toBe(1);
    expect((await running).body.choices[0].text).toBe(markOfSeed(1).repeat(20));
    await eventually(
      'it is gone',
      { timeoutMs: 2_000, everyMs: 5 },
      () => vllm.adapters.size === 0 || undefined,
    );
  });

  it('are let go by a client that leaves amid its answer, and so is the engine', async () => {
    await server.close();
    await vllm.stop();
    vllm = await FakeVllm.start({ tokenMs: 30 });
    server = await sidecar(vllm.url);
    await put('sql', 1);
    for (const stream of [true, false]) {
      const leaving = new AbortController();
      const asked = fetch(`${server.serving}/v1/completions`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ model: 'sql', prompt: 'x', max_tokens: 1_000, stream }),
        signal: leaving.signal,
      });
      const ended = asked.then((response) => response.text()).catch(() => 'left');
      await eventually('it runs', { timeoutMs: 2_000, everyMs: 5 }, () => vllm.running > 0 || undefined);
      leaving.abort();
      expect(await ended).toBe('left');
      await eventually('nobody runs', { timeoutMs: 2_000, everyMs: 5 }, async () => {
        const [adapter] = (await server.state()).adapters;
        return (vllm.running === 0 && adapter?.revisions[0]?.leases === 0) || undefined;
      });
    }
  });

  it('that the engine would serve wrong, or refuses, are refused with its words', async () => {
    const patterned = goodAdapter(1, { alpha_pattern: { v_proj: 4 } });
    const scaled = await server.put('sql', 1, { files: patterned });
    expect([scaled.status, await scaled.json()]).toEqual([
      422,
      { error: expect.objectContaining({ code: 'unsupported_adapter_feature', field: 'alpha_pattern' }) },
    ]);
    const digest = await put('other', 2);
    await server.adminCall('DELETE', '/lora/v1/adapters/other');
    vllm.refuses.set(`lorikeet-${digest.slice(7)}`, 'no such module');
    const refused = await server.put('other', 2);
    expect([refused.status, await refused.json()]).toEqual([
      422,
      { error: expect.objectContaining({ message: 'The engine refuses it: no such module' }) },
    ]);
  });
});
