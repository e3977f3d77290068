import { spawnSync } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type AdapterFiles, fixtureAdapter } from '../e2e/client.ts';
import { startVllm } from '../e2e/vllm/engine.ts';
import { PARROT } from '../e2e/world.ts';
import { type ServerProcess, startServer } from '../support/server-process.ts';
import { readProcessor } from './engine/processor.ts';
import { putAdapter } from './put-adapter.ts';
import { streamCompletion } from './stream-completion.ts';

/**
 * `npm run bench -- sidecar`: a real vLLM on the processor, asked at once and through the sidecar in turn: first token and
 * tokens per second; and a new revision from its bytes to its first token, beside vLLM's own way by a folder.
 */
const ROUNDS = 8;
const STREAMS = 8;
const TOKENS = 64;
const PUSHES = 8;
const SINGLES = 150;
/** A program that has served some hundred requests has been compiled. */
const WARMING = 300;
/** Between two requests of which each is to find all processes at rest. */
const PAUSE_MS = 20;
const [SHORT, LONG] = [32, 512].map((length) =>
  Array.from({ length }, (_, index) => 100 + (index % 400)),
) as [number[], number[]];
const SETUP = resolve(import.meta.dirname, '../support/setup.mjs');
const ADAPTER = 'live';
const ALONE = 'alone';

interface Round {
  firstTokenMs: number;
  tokensPerSecond: number;
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

/** The middle one; of an even number the lower. */
function median(values: number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[(sorted.length - 1) >> 1] ?? Number.NaN;
}

async function round(url: string, model: string): Promise<Round> {
  const traces = await Promise.all(
    Array.from({ length: STREAMS }, (_, stream) =>
      streamCompletion(url, { model, prompt: [...SHORT, 200 + stream], max_tokens: TOKENS }),
    ),
  );
  const begin = Math.min(...traces.map(({ submittedMs }) => submittedMs));
  const end = Math.max(...traces.map(({ timesMs }) => timesMs.at(-1) ?? 0));
  return {
    firstTokenMs: median(traces.map(({ submittedMs, timesMs }) => (timesMs[0] ?? 0) - submittedMs)),
    tokensPerSecond: (STREAMS * TOKENS * 1000) / (end - begin),
  };
}

/** Of requests that come one after the other, each after a pause. */
async function firstTokenAlone(url: string, model: string, prompt: number[]): Promise<number> {
  await delay(PAUSE_MS);
  const { submittedMs, timesMs } = await oneToken(url, model, prompt);
  return (timesMs[0] ?? Number.NaN) - submittedMs;
}

async function saved(dir: string, name: string, { tensors, config }: AdapterFiles): Promise<string> {
  const folder = await mkdtemp(join(dir, `${name}-`));
  await writeFile(join(folder, 'adapter_model.safetensors'), tensors);
  await writeFile(join(folder, 'adapter_config.json'), config);
  return folder;
}

async function call(url: string, path: string, body: object): Promise<void> {
  const response = await fetch(url + path, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`${path}: ${response.status} ${text}`);
}

const oneToken = (url: string, model: string, prompt: number[] = SHORT) =>
  streamCompletion(url, { model, prompt, max_tokens: 1 });

async function measure(vllm: string, server: ServerProcess, dir: string): Promise<void> {
  const [first, ...others] = await Promise.all(['sql', 'pirate', 'json'].map(fixtureAdapter));
  if (first === undefined) throw new Error('Expected adapters');
  const put = (files: AdapterFiles) =>
    putAdapter(`${server.admin}/v1/adapters/${ADAPTER}`, server.adminToken, files);
  await call(vllm, '/v1/load_lora_adapter', { lora_name: ALONE, lora_path: await saved(dir, ALONE, first) });
  await put(first);
  const rounds: { alone: Round; through: Round }[] = [];
  for (let index = 0; index <= ROUNDS; index += 1) {
    const alone = await round(vllm, ALONE);
    const through = await round(server.serving, ADAPTER);
    // The first warms both up.
    if (index > 0) rounds.push({ alone, through });
  }
  const of = (which: 'alone' | 'through', what: keyof Round) => median(rounds.map((one) => one[which][what]));
  const ratio = (what: keyof Round) =>
    median(rounds.map(({ alone, through }) => through[what] / alone[what]));
  say(`${STREAMS} streams of ${TOKENS} tokens, ${ROUNDS} rounds in turn, medians`);
  say(
    `  tokens/s     ${of('alone', 'tokensPerSecond').toFixed(1)} alone, ${of('through', 'tokensPerSecond').toFixed(1)} through: ${ratio('tokensPerSecond').toFixed(3)}`,
  );
  say(
    `  first token  ${of('alone', 'firstTokenMs').toFixed(1)} ms alone, ${of('through', 'firstTokenMs').toFixed(1)} ms through: ${(1 / ratio('firstTokenMs')).toFixed(3)} as fast`,
  );
  for (let index = 0; index < WARMING; index += 1) await oneToken(server.serving, ADAPTER);
  for (const prompt of [SHORT, LONG]) await measureFirstTokens(vllm, server, prompt);
  await measurePushes({ vllm, server, dir }, put, [...others, first]);
}

async function measureFirstTokens(vllm: string, server: ServerProcess, prompt: number[]): Promise<void> {
  const alone: number[] = [];
  const through: number[] = [];
  for (let index = 0; index < SINGLES; index += 1) {
    alone.push(await firstTokenAlone(vllm, ALONE, prompt));
    through.push(await firstTokenAlone(server.serving, ADAPTER, prompt));
  }
  const [theirs, ours] = [median(alone), median(through)];
  say(
    `first token of one request at a time, a prompt of ${prompt.length} tokens, ${SINGLES} in turn, medians\n` +
      `  ${theirs.toFixed(1)} ms alone, ${ours.toFixed(1)} ms through: ${(theirs / ours).toFixed(3)} as fast`,
  );
}

async function measurePushes(
  { vllm, server, dir }: { vllm: string; server: ServerProcess; dir: string },
  put: (files: AdapterFiles) => Promise<void>,
  contents: AdapterFiles[],
): Promise<void> {
  const byFolder: number[] = [];
  const pushed: number[] = [];
  for (let index = 0; index < PUSHES; index += 1) {
    const files = contents[index % contents.length] as AdapterFiles;
    let beganMs = performance.now();
    const name = `${ALONE}-${index}`;
    await call(vllm, '/v1/load_lora_adapter', { lora_name: name, lora_path: await saved(dir, name, files) });
    await oneToken(vllm, name);
    byFolder.push(performance.now() - beganMs);
    await call(vllm, '/v1/unload_lora_adapter', { lora_name: name });
    beganMs = performance.now();
    await put(files);
    await oneToken(server.serving, ADAPTER);
    pushed.push(performance.now() - beganMs);
  }
  const [theirs, ours] = [median(byFolder), median(pushed)];
  say(`a revision of ${contents[0]?.tensors.length} bytes, to its first token, ${PUSHES} in turn, medians`);
  say(
    `  ${theirs.toFixed(1)} ms by vLLM's own folder, ${ours.toFixed(1)} ms pushed: ${(ours / theirs).toFixed(2)} x`,
  );
}

if (spawnSync(process.execPath, [SETUP, 'vllm'], { stdio: 'inherit' }).status !== 0) process.exit(1);
const { model, signature, processors } = readProcessor();
say(`${model} (${signature}), ${processors} CPUs, one of which vLLM computes on`);
const dir = await mkdtemp('/dev/shm/lorikeet-bench-').catch(() => mkdtemp(join(tmpdir(), 'lorikeet-bench-')));
const vllm = await startVllm(
  ['--enable-lora', '--max-loras=4', '--max-cpu-loras=6', '--max-lora-rank=16'],
  // The others are for what would not compete with a GPU: its server, the sidecar and the client.
  { VLLM_CPU_OMP_THREADS_BIND: '0' },
);
try {
  const attached = ['--engine', 'vllm', '--engine-url', vllm.url, '--engine-dir', join(dir, 'adapters')];
  const flags = ['--model', PARROT, '--slots', '4', '--max-rank', '16', '--log-level', 'warn'];
  const server = await startServer([...attached, ...flags]);
  try {
    await measure(vllm.url, server, dir);
  } finally {
    await server.stop();
  }
} finally {
  await vllm.kill();
  await rm(dir, { recursive: true, force: true });
}
