import { resolve } from 'node:path';
import { afterEach, expect, it, vi } from 'vitest';
import { PARROT } from '../../support/parrot-server.ts';
import { startServer } from '../../support/server-process.ts';

const SIMT = resolve(import.meta.dirname, '../../../build/simt/liblorikeet_simt.so');

afterEach(() => vi.unstubAllEnvs());

// More than 1 s: a server process, some tokens on the emulated device, and the time that probes have.
it('a server whose device fails is unready at once and ends with a code', { timeout: 60_000 }, async () => {
  vi.stubEnv('LORIKEET_CUDA_LIBRARY', SIMT);
  // After loading, amid the first answer.
  vi.stubEnv('LORIKEET_SIMT_FAILS_AFTER', '2000');
  const server = await startServer(['--model', PARROT, '--backend', 'cuda', '--ready-when', 'serving']);
  const exited = new Promise<number | null>((done) => server.process.once('exit', done));
  expect((await fetch(`${server.serving}/ready`)).status).toBe(200);
  const answer = await fetch(`${server.serving}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model: 'parrot', prompt: [11, 22, 33], max_tokens: 1000, ignore_eos: true }),
  });
  expect(answer.status).toBe(500);
  expect(await answer.json()).toMatchObject({ error: { message: 'The engine failed.' } });
  const ready = await fetch(`${server.serving}/ready`);
  expect(ready.status).toBe(503);
  expect(await ready.text()).toContain('engine_failed');
  expect(await exited).toBe(1);
});
