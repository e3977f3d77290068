import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { freePort } from '../../cluster/free-port.ts';
import { eventually } from '../../support/eventually.ts';
import { markOfSeed } from './marks.ts';
import { sidecar, type TestSidecar } from './start.ts';

const MAIN = resolve(import.meta.dirname, '../../support/fake-vllm/main.ts');
const SOON = { timeoutMs: 15_000, everyMs: 20 };

let port: number;
let engine: ChildProcess;
let server: TestSidecar;

async function startEngine(): Promise<ChildProcess> {
  const child = spawn(process.execPath, [MAIN, '--port', String(port), '--token-ms', '5'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(createInterface({ input: child.stdout }), 'line');
  return child;
}

async function killEngine(): Promise<void> {
  const ended = once(engine, 'exit');
  engine.kill('SIGKILL');
  await ended;
}

beforeEach(async () => {
  port = await freePort();
  engine = await startEngine();
  server = await sidecar(`http://127.0.0.1:${port}`);
});
afterEach(async () => {
  await server.close();
  await killEngine();
});

const ask = (model: string, tokens = 3) =>
  server.complete({ model, prompt: 'hello', max_tokens: tokens, stream: false });
const readyStatus = async () => (await fetch(`${server.serving}/ready`)).status;
const directly = (path: string, body: object) =>
  fetch(`http://127.0.0.1:${port}${path}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });

describe('an engine that is killed', () => {
  it('makes the pod unready and silent, and has its adapters again before it is ready', async () => {
    await server.put('sql', 1);
    await server.put('chat', 2);
    const watching = await server.adminCall('GET', '/lora/v1/watch');
    await killEngine();
    await eventually('it is unready', SOON, async () => (await readyStatus()) === 503 || undefined);
    const state = await server.adminCall('GET', '/lora/v1/state');
    expect([state.status, await state.json()]).toEqual([
      503,
      { error: expect.objectContaining({ code: 'engine_away' }) },
    ]);
    await expect(watching.text()).rejects.toThrow();
    expect((await ask('sql')).status).toBe(503);
    expect((await fetch(`${server.serving}/health`)).status).toBe(200);

    engine = await startEngine();
    await eventually('it is ready', SOON, async () => (await readyStatus()) === 200 || undefined);
    for (const [name, seed] of [
      ['sql', 1],
      ['chat', 2],
    ] as const) {
      expect((await ask(name)).body.choices[0].text).toBe(markOfSeed(seed).repeat(3));
    }
  });

  it('ends streams with an error, and answers that come at once with 503', async () => {
    await server.put('sql', 1);
    const whole = ask('sql', 2_000);
    const streamed = await fetch(`${server.serving}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ model: 'sql', prompt: 'x', max_tokens: 2_000, stream: true }),
    });
    await killEngine();
    expect((await whole).status).toBe(503);
    const events = (await streamed.text()).trimEnd().split('\n\n');
    expect(events.at(-1)).toBe('data: [DONE]');
    expect(JSON.parse(events.at(-2)?.slice(6) ?? '')).toMatchObject({ error: { code: 503 } });
    engine = await startEngine();
    await eventually('leases are gone', SOON, async () => {
      const { adapters } = (await server.state()) ?? {};
      return adapters?.[0]?.revisions[0]?.leases === 0 || undefined;
    });
  });
});

describe('an adapter that somebody else unloads', () => {
  it('is given back with the first request for it, which gets its answer', async () => {
    const { revision } = (await (await server.put('sql', 1)).json()) as { revision: string };
    await directly('/v1/unload_lora_adapter', { lora_name: `lorikeet-${revision.slice(7)}` });
    expect((await ask('sql')).body.choices[0].text).toBe(markOfSeed(1).repeat(3));
  });
});

describe('a sidecar that is started anew', () => {
  it('takes out of the engine what the one before left there', async () => {
    await server.put('sql', 1);
    await server.close();
    server = await sidecar(`http://127.0.0.1:${port}`);
    const { data } = (await (await fetch(`http://127.0.0.1:${port}/v1/models`)).json()) as { data: object[] };
    expect(data).toHaveLength(1);
    expect((await ask('sql')).status).toBe(404);
  });
});

describe('2,000 requests while twelve revisions are pushed', () => {
  it('are each answered by the revision that the answer names', async () => {
    const marks = new Map<string, string>();
    const push = async (seed: number) => {
      const response = await server.put('policy', seed, { step: seed });
      expect(response.status).toBe(200);
      marks.set(((await response.json()) as { revision: string }).revision, markOfSeed(seed));
    };
    await push(1);
    let left = 2_000;
    const wrong: unknown[] = [];
    const served = new Set<string>();
    const client = async () => {
      while (left > 0) {
        left -= 1;
        const { status, headers, body } = await ask('policy', 1);
        const revision = headers.get('x-lora-revision') ?? '';
        served.add(revision);
        // A push is answered a moment after it is visible.
        const isRight = () => marks.get(revision) === body.choices?.[0]?.text;
        if (status !== 200) wrong.push([status, body]);
        else
          await eventually('the push is answered', SOON, () => isRight() || undefined).catch((e) =>
            wrong.push([revision, body, e]),
          );
      }
    };
    const clients = Promise.all(Array.from({ length: 16 }, client));
    for (let seed = 2; seed <= 12; seed += 1) await push(seed);
    await clients;
    expect(wrong).toEqual([]);
    expect(served.size).toBeGreaterThan(5);
  }, 120_000);
});
