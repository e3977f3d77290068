import { createHash } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { type AdapterFiles, fixtureAdapter } from '../e2e/client.ts';
import { PARROT } from '../e2e/world.ts';
import { type ServerProcess, startServer } from '../support/server-process.ts';
import { putAdapter } from './put-adapter.ts';
import { adapter8B, writeBase8B } from './shape-8b.ts';

/**
 * Push to visible: from the first byte of a PUT to the reply that says that every later request gets the new
 * revision. Beside it the machine's limit for the same bytes in the same run: a loopback PUT to a server that only
 * takes and hashes them. Where streams run, what a push takes beyond one to an idle engine is told in engine steps too.
 */

const PUSHES = 20;

interface Figures {
  medianMs: number;
  maxMs: number;
}

function figures(ms: number[]): Figures {
  const sorted = ms.toSorted((a, b) => a - b);
  return { medianMs: sorted[Math.floor(sorted.length / 2)] ?? 0, maxMs: sorted.at(-1) ?? 0 };
}

async function time(work: () => Promise<unknown>): Promise<number> {
  const started = performance.now();
  await work();
  return performance.now() - started;
}

/** The least that any server must do: take the bytes and hash them. */
async function floor(revisions: AdapterFiles[], pushes: number): Promise<Figures> {
  const sink = createServer((request, response) => {
    const hash = createHash('sha256');
    request.on('data', (chunk: Buffer) => hash.update(chunk));
    request.on('end', () => response.end(hash.digest('hex')));
  });
  await new Promise<void>((done) => sink.listen(0, '127.0.0.1', done));
  const url = `http://127.0.0.1:${(sink.address() as AddressInfo).port}/`;
  const ms: number[] = [];
  for (let i = 0; i < pushes; i++) {
    ms.push(await time(() => putAdapter(url, 'none', revisions[i % revisions.length] as AdapterFiles)));
  }
  sink.closeAllConnections();
  await new Promise((done) => sink.close(done));
  return figures(ms);
}

async function measure(server: ServerProcess, revisions: AdapterFiles[], pushes: number): Promise<Figures> {
  const ms: number[] = [];
  for (let i = 0; i < pushes; i++) {
    // Another digest each time, so that nothing is a no-op: a key that has no effect changes.
    const { tensors, config } = revisions[i % revisions.length] as AdapterFiles;
    const changed = { ...JSON.parse(config.toString()), lora_dropout: (i + 1) / 1024 };
    const files = { tensors, config: Buffer.from(JSON.stringify(changed)) };
    ms.push(await time(() => putAdapter(`${server.admin}/v1/adapters/live`, server.adminToken, files)));
  }
  return figures(ms);
}

async function stepsDone(server: ServerProcess): Promise<number> {
  const metrics = await (await fetch(`${server.serving}/metrics`)).text();
  return Number(metrics.match(/^lorikeet_engine_steps_total (\d+)$/m)?.[1]);
}

/** Asks without end until the signal, so that pushes meet a busy engine. */
async function load(server: ServerProcess, model: string, signal: AbortSignal): Promise<void> {
  const body = { model, prompt: [0, 2, 438], max_tokens: 200, ignore_eos: true };
  while (!signal.aborted) {
    await fetch(`${server.serving}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
      signal,
    })
      .then((response) => response.text())
      .catch(() => {});
  }
}

async function bench(title: string, model: string, revisions: AdapterFiles[], pushes: number): Promise<void> {
  const bytes = revisions[0]?.tensors.length ?? 0;
  const limit = await floor(revisions, pushes);
  const server = await startServer(['--model', model, '--served-model-name', 'base', '--log-level', 'warn']);
  try {
    const idle = await measure(server, revisions, pushes);
    const stop = new AbortController();
    const running = [load(server, 'base', stop.signal), load(server, 'live', stop.signal)];
    const [startedMs, before] = [performance.now(), await stepsDone(server)];
    const busy = await measure(server, revisions, pushes);
    const stepMs = (performance.now() - startedMs) / ((await stepsDone(server)) - before);
    stop.abort();
    await Promise.all(running);
    const row = (name: string, { medianMs, maxMs }: Figures) =>
      console.log(
        `${title.padEnd(24)} ${(bytes / 1e6).toFixed(2).padStart(7)} MB  ${name.padEnd(22)} ` +
          `median ${medianMs.toFixed(1).padStart(8)} ms  max ${maxMs.toFixed(1).padStart(8)} ms  ` +
          `${(medianMs / limit.medianMs).toFixed(2).padStart(6)} × limit`,
      );
    row('limit (take and hash)', limit);
    row('push, idle', idle);
    row('push, 2 streams run', busy);
    const beyond = (busy.medianMs - idle.medianMs) / stepMs;
    console.log(
      `${' '.repeat(37)}${beyond.toFixed(2)} engine steps above idle (a step beside pushes: ${stepMs.toFixed(1)} ms)`,
    );
  } finally {
    await server.stop();
  }
}

console.log(`${cpus()[0]?.model}, ${cpus().length} processors, ${PUSHES} pushes each\n`);
await bench('parrot, pirate (r 16)', PARROT, [await fixtureAdapter('pirate')], PUSHES);
if (process.argv.includes('--8b')) {
  const dir = await mkdtemp(join(tmpdir(), 'lorikeet-8b-'));
  try {
    await writeBase8B(dir, PARROT);
    await bench('8B shape (r 16, bf16)', dir, [adapter8B('a'), adapter8B('b')], 6);
  } finally {
    await rm(dir, { recursive: true });
  }
}
