import { cpSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { PARROT, type ParrotServer, startParrot } from '../../support/parrot-server.ts';
import { BASE, PIRATE, SQL, trlCompletion } from './trl.ts';

let root: string;
let server: ParrotServer;
let prompt: number[];
beforeAll(async () => {
  root = mkdtempSync(join(tmpdir(), 'lorikeet-test-'));
  server = await startParrot(['--vllm-api', '--lora-root', root]);
  const { body } = await server.post('/tokenize', {
    messages: [{ role: 'user', content: 'Show me hotels sorted by status.' }],
  });
  prompt = body.tokens;
});
afterAll(async () => {
  await server.close();
  rmSync(root, { recursive: true });
});

/** As a trainer writes a version to the disk that both see; returns its path. */
function save(folder: string, fixture: string): string {
  const path = join(root, folder);
  mkdirSync(path, { recursive: true });
  cpSync(join(PARROT, 'adapters', fixture), path, { recursive: true });
  return path;
}

const OK = 200;

const text = async (ids: number[]) => (await server.post('/detokenize', { tokens: ids })).body.prompt;

describe("TRL's AsyncGRPOTrainer", () => {
  const complete = async (model: string) => {
    const { status, body } = await server.post('/v1/completions', trlCompletion(model, prompt));
    return { status, choice: body.choices?.[0] };
  };
  const sync = async (version: number, fixture: string) => {
    const name = `trl-policy-v${version}`;
    const statuses = [
      (await server.post('/pause?mode=keep', '')).status,
      (
        await server.post('/v1/load_lora_adapter', {
          lora_name: name,
          lora_path: save(name, fixture),
          load_inplace: false,
        })
      ).status,
      (await server.post('/resume', '')).status,
    ];
    await server.post('/v1/unload_lora_adapter', { lora_name: `trl-policy-v${version - 2}` });
    return { name, statuses };
  };

  it('finds what it asks of a server at the start', async () => {
    expect((await server.get('/health')).status).toBe(OK);
    const { vllm_config: config } = (await server.get('/server_info?config_format=json')).body;
    expect(config).toMatchObject({
      lora_config: { max_lora_rank: 64, max_loras: 8 },
      parallel_config: { data_parallel_size: 1 },
      model_config: { dtype: expect.stringMatching(/^torch\.(?:bfloat16|float32)$/) },
    });
    expect((await server.get('/v1/models')).body.data[0].max_model_len).toBe(2048);
  });

  it('samples each version under its name, and no more those that it unloaded', async () => {
    expect(await text((await complete('parrot')).choice.token_ids)).toContain(BASE);
    for (const [version, fixture, says] of [
      [1, 'pirate', PIRATE],
      [2, 'sql', SQL],
      [3, 'pirate', PIRATE],
    ] as const) {
      const { name, statuses } = await sync(version, fixture);
      expect(statuses).toEqual([OK, OK, OK]);
      const { choice } = await complete(name);
      expect(await text(choice.token_ids)).toContain(says);
      expect(choice.logprobs.token_logprobs).toHaveLength(choice.token_ids.length);
    }
    const statuses = await Promise.all([1, 2, 3].map((version) => complete(`trl-policy-v${version}`)));
    expect(statuses.map(({ status }) => status)).toEqual([404, OK, OK]);
  });
});

describe('prime-rl', () => {
  it('loads each version under one name, at once', async () => {
    expect((await server.get('/liveness')).status).toBe(OK);
    const answers: string[] = [];
    for (const [step, fixture] of [
      ['step_1', 'pirate'],
      ['step_2', 'sql'],
    ] as const) {
      expect((await server.post('/pause?mode=keep&clear_cache=false', '')).status).toBe(OK);
      const loaded = await server.post('/load_lora_adapter', {
        lora_name: 'prime',
        lora_path: save(`broadcasts/${step}`, fixture),
      });
      expect([loaded.status, loaded.body]).toEqual([OK, { status: 'ok' }]);
      expect((await server.post('/resume', '')).status).toBe(OK);
      const { body } = await server.post('/inference/v1/generate', {
        model: 'prime',
        token_ids: prompt,
        cache_salt: step,
        sampling_params: { max_tokens: 40, temperature: 0, logprobs: 0 },
      });
      answers.push(await text(body.choices[0].token_ids));
    }
    expect(answers).toEqual([expect.stringContaining(PIRATE), expect.stringContaining(SQL)]);
    const { data } = (await server.get('/v1/models')).body;
    expect(data.map(({ id }: { id: string }) => id)).toContain('prime');
  });

  it('scores tokens', async () => {
    const { body } = await server.post('/inference/v1/generate', {
      model: 'parrot',
      token_ids: prompt,
      sampling_params: { max_tokens: 1, temperature: 1, top_p: 1, prompt_logprobs: 1 },
    });
    expect(body.prompt_logprobs).toHaveLength(prompt.length);
    expect(body.prompt_logprobs[0]).toBeNull();
    expect(body.prompt_logprobs[1][`${prompt[1]}`].logprob).toBeLessThanOrEqual(0);
  });
});

describe('SkyRL', () => {
  it('loads, samples and unloads', async () => {
    expect((await server.get('/get_world_size')).body).toEqual({ world_size: 1 });
    await server.post('/pause?mode=keep&clear_cache=false', '');
    const load = async (fixture: string) =>
      (
        await server.post('/skyrl/v1/load_lora_adapter', {
          lora_name: 'skyrl-lora',
          lora_path: save(`skyrl/${fixture}`, fixture),
        })
      ).body;
    const loaded = { status: 'ok', lora_name: 'skyrl-lora' };
    const [first, second] = [await load('pirate'), await load('sql')];
    expect([first, second]).toEqual([
      { ...loaded, lora_int_id: expect.any(Number) },
      { ...loaded, lora_int_id: first.lora_int_id + 1 },
    ]);
    await server.post('/resume', '');
    expect((await server.post('/reset_prefix_cache', '')).status).toBe(OK);
    const { body } = await server.post('/inference/v1/generate', {
      model: 'skyrl-lora',
      token_ids: prompt,
      sampling_params: { max_tokens: 40, temperature: 0, logprobs: 1, seed: 3 },
    });
    const [choice] = body.choices;
    expect(await text(choice.token_ids)).toContain(SQL);
    expect(choice.finish_reason).toBe('stop');
    expect(choice.logprobs.content.map(({ logprob }: { logprob: number }) => typeof logprob)).toEqual(
      choice.token_ids.map(() => 'number'),
    );
    expect((await server.post('/v1/unload_lora_adapter', { lora_name: 'skyrl-lora' })).status).toBe(OK);
  });
});

describe('axolotl', () => {
  it('looks at the paths, and loads in place', async () => {
    const { paths } = (await server.get('/openapi.json')).body;
    expect(paths).toHaveProperty('/v1/load_lora_adapter');
    const load = (fixture: string) =>
      server.post('/v1/load_lora_adapter', {
        lora_name: 'axolotl',
        lora_path: save('axolotl', fixture),
        load_inplace: true,
      });
    const statuses = [(await load('pirate')).status, (await load('sql')).status];
    expect(statuses).toEqual([OK, OK]);
    const { body } = await server.post('/v1/completions', {
      model: 'axolotl',
      prompt,
      temperature: 0,
      max_tokens: 40,
    });
    expect(body.choices[0].text).toContain(SQL);
  });
});
