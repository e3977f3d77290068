import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { eventually } from '../../support/eventually.ts';
import { PARROT, type ParrotServer, startParrot } from '../../support/parrot-server.ts';
import { type ServerProcess, startServer } from '../../support/server-process.ts';
import { bridge, type TestBridge } from './start.ts';

const SLOW = ['--vllm-api', '--backend', 'reference'];
const TOKENS = 60;
/** That it runs when it is killed, of eight. */
const RUNNING = 3;

let survivor: ParrotServer;
let victim: ServerProcess;
let server: TestBridge;
beforeAll(async () => {
  [survivor, victim] = await Promise.all([
    startParrot(SLOW),
    startServer(['--model', PARROT, '--threads', '2', ...SLOW]),
  ]);
  // Its token is another; so the same revision comes to it by another way.
  const source = join(PARROT, 'adapters/pirate');
  await fetch(`${victim.admin}/v1/adapters/policy`, {
    method: 'PUT',
    headers: {
      authorization: `Bearer ${victim.adminToken}`,
      'x-lora-config': readFileSync(join(source, 'adapter_config.json')).toString('base64url'),
    },
    body: readFileSync(join(source, 'adapter_model.safetensors')),
  });
  server = await bridge({ push: [survivor.admin], serving: [survivor.serving, victim.serving] });
});
afterAll(async () => {
  await server.close();
  victim.process.kill('SIGKILL');
  await victim.stop();
  await survivor.close();
});

const ask = (index: number, stream: boolean) => ({
  model: 'policy-v1',
  prompt: `${index}`,
  max_tokens: TOKENS,
  ignore_eos: true,
  temperature: 0,
  stream,
});

/** How a stream ended: whole, or cut off. */
async function streamed(index: number): Promise<'whole' | 'cut' | 'short'> {
  const response = await fetch(`${server.url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(ask(index, true)),
  });
  const text = await response.text().catch(() => null);
  if (text === null) return 'cut';
  return text.endsWith('data: [DONE]\n\n') ? 'whole' : 'short';
}

it('a pod that is killed cuts its streams, visibly; what had no byte yet is answered by another pod', async () => {
  const lora_path = server.save('policy-v1', 'pirate');
  expect((await server.post('/v1/load_lora_adapter', { lora_name: 'policy-v1', lora_path })).status).toBe(
    200,
  );
  const streams = Promise.all([0, 1, 2, 3].map(streamed));
  const wholes = Promise.all([4, 5, 6, 7].map((index) => server.post('/v1/completions', ask(index, false))));
  await eventually('the pod runs some of both', { timeoutMs: 20_000, everyMs: 10 }, async () => {
    const metrics = await (await fetch(`${victim.serving}/metrics`)).text();
    return Number(/^vllm:num_requests_running\{.*\} (\d+)$/m.exec(metrics)?.[1]) >= RUNNING || undefined;
  });
  victim.process.kill('SIGKILL');

  const answered = await wholes;
  expect(answered.map(({ status, body }) => [status, body.usage?.completion_tokens])).toEqual(
    Array(4).fill([200, TOKENS]),
  );
  expect(new Set(answered.map(({ headers }) => headers.get('x-lora-revision'))).size).toBe(1);
  const ends = await streams;
  expect(ends).not.toContain('short');
  const cut = ends.filter((end) => end === 'cut').length;
  const retried = server.logged('a pod gave no answer').length;
  expect(cut + retried).toBeGreaterThanOrEqual(RUNNING);
  expect((await server.get('/health')).body).toEqual({ status: 'ok', pods: 1 });
});
