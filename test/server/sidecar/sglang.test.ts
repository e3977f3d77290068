import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { goodAdapter } from '../../support/adapter-files.ts';
import { FakeSglang } from '../../support/fake-sglang.ts';
import { BASE_MARK } from '../../support/fake-vllm/server.ts';
import { markOfSeed } from './marks.ts';
import { sidecar, type TestSidecar } from './start.ts';

let engine: FakeSglang;
let server: TestSidecar;

beforeEach(async () => {
  engine = await FakeSglang.start();
  server = await sidecar(engine.url, [], 'sglang');
});
afterEach(async () => {
  await server.close();
  await engine.stop();
});

const ask = (model: string, more: object = {}) =>
  server.complete({ model, prompt: 'x', max_tokens: 2, ...more });

describe('before an SGLang', () => {
  it('an adapter is asked for by its path, and the answer has the name that was asked for', async () => {
    const { revision } = (await (await server.put('sql', 1)).json()) as { revision: string };
    const { body } = await ask('sql');
    expect(body).toMatchObject({
      model: 'sql',
      choices: [{ text: markOfSeed(1).repeat(2) }],
      lora: { revision },
    });
    expect(engine.asked.at(-1)).toMatchObject({
      model: 'parrot',
      lora_path: `lorikeet-${revision.slice(7)}`,
    });
  });

  it("is asked for an adapter in SGLang's own ways too, and by nobody past its name", async () => {
    const { revision } = (await (await server.put('sql', 1)).json()) as { revision: string };
    for (const more of [{ lora_path: 'sql' }, { model: 'parrot:sql' }]) {
      const { body } = await ask('parrot', more);
      expect(body).toMatchObject({ model: 'parrot', lora: { revision }, ...('model' in more && more) });
      expect(body.choices[0].text).toBe(markOfSeed(1).repeat(2));
    }
    const named = `lorikeet-${revision.slice(7)}`;
    for (const more of [{ lora_path: named }, { model: `parrot:${named}` }, { model: 'nobody' }])
      expect((await ask('parrot', more)).status).toBe(404);
    expect((await ask('parrot', { lora_path: ['sql', null] })).status).toBe(400);
    expect((await ask('parrot', { lora_path: null })).body.choices[0].text).toBe(BASE_MARK.repeat(2));
  });

  it.each([false, true])('its own /generate says which revision made it, streamed: %s', async (stream) => {
    const { revision } = (await (await server.put('sql', 1)).json()) as { revision: string };
    const answer = await fetch(`${server.serving}/generate`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ text: 'x', lora_path: 'sql', sampling_params: { max_new_tokens: 2 }, stream }),
    });
    const [said = ''] = (await answer.text()).replace('data: ', '').split('\n\n');
    const weight_versions = [{ version: revision, start: 0, end: 2 }];
    expect(JSON.parse(said)).toMatchObject({
      text: markOfSeed(1).repeat(2),
      meta_info: { weight_version: revision, weight_versions },
    });
  });

  it('an adapter that it has lost is loaded again by the request for it', async () => {
    await server.put('sql', 1);
    engine.adapters.clear();
    expect((await ask('sql')).body.choices[0].text).toBe(markOfSeed(1).repeat(2));
  });

  it('a stream says which revision made it', async () => {
    const { revision } = (await (await server.put('sql', 1)).json()) as { revision: string };
    const streamed = await fetch(`${server.serving}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ model: 'sql', prompt: 'x', max_tokens: 2, stream: true }),
    });
    const events = (await streamed.text()).trimEnd().split('\n\n');
    expect(JSON.parse(events.at(-2)?.slice('data: '.length) ?? '')).toMatchObject({
      model: 'sql',
      lora: { revision },
    });
  });

  it('one that does not list its adapters is refused by name', async () => {
    const old = await FakeSglang.start({ isOld: true });
    const before = await sidecar(old.url, [], 'sglang');
    const refused = await before.put('sql', 1);
    expect([refused.status, await refused.text()]).toEqual([
      422,
      expect.stringContaining('SGLang 0.5 or later'),
    ]);
    await before.close();
    await old.stop();
  });

  it('a swap, the room for two, and a removal are as before a vLLM', async () => {
    for (const seed of [1, 2, 3]) {
      expect((await server.put('sql', seed)).status).toBe(200);
      expect((await ask('sql')).body.choices[0].text).toBe(markOfSeed(seed).repeat(2));
    }
    expect(engine.adapters.size).toBe(2);
    await server.adminCall('DELETE', '/lora/v1/adapters/sql');
    expect(engine.adapters.size).toBe(0);
  });

  it('rsLoRA, which it does not read, is said in its words', async () => {
    const files = goodAdapter(1, { use_rslora: true });
    const { r, lora_alpha } = JSON.parse(files.config.toString());
    expect((await server.put('sql', 1, { files })).status).toBe(200);
    const [{ path } = { path: '' }] = engine.adapters.values();
    const written = JSON.parse(await readFile(join(path, 'adapter_config.json'), 'utf8'));
    expect(written).toMatchObject({ r, use_rslora: false, lora_alpha: lora_alpha * Math.sqrt(r) });
  });

  it('scales of modules that differ are refused', async () => {
    const files = goodAdapter(1, { rank_pattern: {}, alpha_pattern: { q_proj: 4 } });
    const refused = await server.put('sql', 1, { files });
    expect([refused.status, ((await refused.json()) as { error: object }).error]).toEqual([
      422,
      expect.objectContaining({ field: 'alpha_pattern' }),
    ]);
  });
});
