import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type ServerProcess, startServer } from '../../support/server-process.ts';
import { goldenCases } from '../golden.ts';
import { PARROT } from '../world.ts';
import { type RealEngine, START_MS } from './real-engine.ts';

const ADAPTERS = join(PARROT, 'adapters');
export const RANK_MAX = 64;
export const SLOTS = 4;

interface Attached {
  kind: 'vllm' | 'sglang';
  /** With RANK_MAX and SLOTS. */
  start(): Promise<RealEngine>;
  /** Fields for which adapters are refused, by their names; the others are served. */
  refused: Record<string, string>;
  /** Token ids of the greedy answer. */
  greedy(url: string, model: string, prompt: number[], tokens: number): Promise<number[]>;
}

/** What the engine serves of the fixtures' adapters it serves as PEFT does, token for token; the rest is refused by name. */
export function serveEveryAdapter({ kind, start, refused, greedy }: Attached): void {
  let engine: RealEngine;
  let server: ServerProcess;
  let dir: string;

  beforeAll(async () => {
    [engine, dir] = await Promise.all([start(), mkdtemp(join(tmpdir(), 'lorikeet-adapters-'))]);
    const attached = ['--engine', kind, '--engine-url', engine.url, '--engine-dir', join(dir, 'adapters')];
    const limits = ['--slots', String(SLOTS), '--max-rank', String(RANK_MAX)];
    server = await startServer(['--model', PARROT, ...attached, ...limits, '--log-level', 'error']);
  }, START_MS);
  afterAll(async () => {
    await server?.stop();
    await engine?.kill();
    await rm(dir, { recursive: true, force: true });
  });

  async function put(name: string): Promise<{ status: number; field: unknown }> {
    const [tensors, config] = await Promise.all(
      ['adapter_model.safetensors', 'adapter_config.json'].map((file) =>
        readFile(join(ADAPTERS, name, file)),
      ),
    );
    const response = await fetch(`${server.admin}/v1/adapters/${name}`, {
      method: 'PUT',
      headers: {
        authorization: `Bearer ${server.adminToken}`,
        'content-type': 'application/octet-stream',
        'x-lora-config': config?.toString('base64url') ?? '',
      },
      body: new Uint8Array(tensors ?? []),
    });
    const body = (await response.json()) as { error?: { field?: unknown } };
    return { status: response.status, field: body.error?.field };
  }

  describe('of the adapters of the fixtures', async () => {
    const names = await readdir(ADAPTERS);

    it.each(names.filter((name) => refused[name] === undefined))(
      '%s is served as PEFT does',
      async (name) => {
        expect((await put(name)).status).toBe(200);
        for (const { prompt, sure } of await goldenCases(name)) {
          if (sure.length === 0) continue;
          expect(await greedy(server.serving, name, prompt, sure.length)).toEqual(sure);
        }
      },
    );

    it.each(Object.entries(refused))('%s is refused for its %s', async (name, field) => {
      expect(await put(name)).toEqual({ status: 422, field });
    });
  });
}
