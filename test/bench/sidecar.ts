import { fork, spawnSync } from 'node:child_process';
import { once } from 'node:events';
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
 * `npm run bench -- sidecar`: a real vLLM on the processor, asked at once, through the sidecar, and through a proxy that
 * does nothing, in turn: first token and tokens per second; and a new revision from its bytes to its first token, beside
 * vLLM's own way by a folder.
 */
const ROUNDS = 16;
const STREAMS = 8;
const TOKENS = 64;
const PUSHES = 8;
const SINGLES = 150;
/** Requests, of which as many as streams at a time; a program in Node that has served some thousands has been compiled. */
const WARMING = 4000;
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

/** As it is printed. */
interface Compared {
  value: string;
  ratio: string;
}

/** Where, and for which model. */
type Asked = [url: string, model: string];

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

/** The engine alone, behind a proxy that does nothing, and behind the sidecar. */
interface Subjects {
  vllm: string;
  bare: string;
  server: ServerProcess;
  dir: string;
}

async function measure(subjects: Subjects): Promise<void> {
  const { vllm, bare, server, dir } = subjects;
  const [first, ...others] = await Promise.all(['sql', 'pirate', 'json'].map(fixtureAdapter));
  if (first === undefined) throw new Error('Expected adapters');
  const put = (files: AdapterFiles) =>
    putAdapter(`${server.admin}/v1/adapters/${ADAPTER}`, server.adminToken, files);
  await call(vllm, '/v1/load_lora_adapter', { lora_name: ALONE, lora_path: await saved(dir, ALONE, first) });
  await put(first);
  const asked: Asked[] = [
    [vllm, ALONE],
    [bare, ALONE],
    [server.serving, ADAPTER],
  ];
  for (const one of asked) await warm(one);
  await measureStreams(asked);
  for (const prompt of [SHORT, LONG]) await measureFirstTokens(asked, prompt);
  await measurePushes(subjects, put, [...others, first]);
}

async function startBareProxy(engine: string): Promise<{ url: string; stop(): void }> {
  const child = fork(resolve(import.meta.dirname, 'bare-proxy.ts'), [engine]);
  const [url] = (await once(child, 'message')) as [string];
  return { url, stop: () => child.disconnect() };
}

async function warm([url, model]: Asked): Promise<void> {
  for (let done = 0; done < WARMING; done += STREAMS) {
    await Promise.all(Array.from({ length: STREAMS }, () => oneToken(url, model)));
  }
}

async function measureStreams(asked: Asked[]): Promise<void> {
  const rounds: Round[][] = [];
  for (let index = 0; index < ROUNDS; index += 1) {
    const turn: Round[] = [];
    for (const [url, model] of asked) turn.push(await round(url, model));
    rounds.push(turn);
  }
  say(`${STREAMS} streams of ${TOKENS} tokens, ${ROUNDS} rounds in turn, medians`);
  compare(
    'tokens/s',
    'more',
    rounds.map((turn) => turn.map((one) => one.tokensPerSecond)),
  );
  compare(
    'first token, ms',
    'less',
    rounds.map((turn) => turn.map((one) => one.firstTokenMs)),
  );
}

async function measureFirstTokens(asked: Asked[], prompt: number[]): Promise<void> {
  const turns: number[][] = [];
  for (let index = 0; index < SINGLES; index += 1) {
    const turn: number[] = [];
    for (const [url, model] of asked) turn.push(await firstTokenAlone(url, model, prompt));
    turns.push(turn);
  }
  say(`one request at a time, a prompt of ${prompt.length} tokens, ${SINGLES} in turn, medians`);
  compare('first token, ms', 'less', turns);
}

/** Of each turn a value of each of the three; a ratio is of the same turn, and over 1 where it is better than alone. */
function compare(what: string, better: 'less' | 'more', turns: number[][]): void {
  const [alone, bare, through] = [0, 1, 2].map((which) => {
    const ratios = turns.map((turn) => (turn[which] ?? Number.NaN) / (turn[0] ?? Number.NaN));
    const ratio = better === 'more' ? median(ratios) : 1 / median(ratios);
    return {
      value: median(turns.map((turn) => turn[which] ?? Number.NaN)).toFixed(1),
      ratio: ratio.toFixed(3),
    };
  }) as [Compared, Compared, Compared];
  say(
    `  ${what}: ${alone.value} alone, ${bare.value} through a bare proxy (${bare.ratio}), ${through.value} through the sidecar: ${through.ratio}`,
  );
}

async function measurePushes(
  { vllm, server, dir }: Subjects,
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
  const bare = await startBareProxy(vllm.url);
  try {
    await measure({ vllm: vllm.url, bare: bare.url, server, dir });
  } finally {
    bare.stop();
    await server.stop();
  }
} finally {
  await vllm.kill();
  await rm(dir, { recursive: true, force: true });
}
