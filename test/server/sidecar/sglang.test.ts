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

  it('nobody reaches an adapter past its name', async () => {
    const { revision } = (await (await server.put('sql', 1)).json()) as { revision: string };
    const { body } = await ask('parrot', { lora_path: `lorikeet-${revision.slice(7)}` });
    expect(body.choices[0].text).toBe(BASE_MARK.repeat(2));
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

  it('scales of modules that differ are refused', async () => {
    const files = goodAdapter(1, { rank_pattern: {}, alpha_pattern: { q_proj: 4 } });
    const refused = await server.put('sql', 1, { files });
    expect([refused.status, ((await refused.json()) as { error: object }).error]).toEqual([
      422,
      expect.objectContaining({ field: 'alpha_pattern' }),
    ]);
  });
});
