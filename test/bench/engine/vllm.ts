import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { freePort } from '../../cluster/free-port.ts';
import { streamCompletion } from '../stream-completion.ts';
import { ADAPTERS, adapterName, ensurePeftFolders } from './adapters.ts';
import { benchCache, say } from './cache.ts';
import { adapterOf, type Case, type Effort } from './cases.ts';
import type { Peer } from './peer.ts';
import type { Shape } from './shape.ts';
import { type Generate, measureCase, type TurnResult } from './trace.ts';

const READY_TIMEOUT_MS = 15 * 60_000;
const STOP_TIMEOUT_MS = 20_000;
const BASE = 'base';

/** vLLM for the CPU, where VLLM names its command. It starts once, and is frozen while others have their turn. */
export async function vllm(
  command: string,
  model: { shape: Shape; dir: string },
  cases: Case[],
  effort: Effort,
): Promise<Peer> {
  const peer: Peer = {
    name: 'vLLM',
    unavailable: null,
    turn: () => Promise.reject(new Error('vLLM is not there')),
    close: async () => {},
  };
  const adapters = await ensurePeftFolders(model.shape);
  const port = await freePort();
  const server = start(command, serveArgs(model.dir, adapters, port));
  const signal = (name: NodeJS.Signals) => signalGroup(server, name);
  peer.close = () => stop(server);
  try {
    say('starting vLLM');
    await waitUntilReady(server, port);
    signal('SIGSTOP');
  } catch (error) {
    peer.unavailable = (error as Error).message;
  }
  peer.turn = async () => {
    signal('SIGCONT');
    try {
      return await takeTurn(`http://127.0.0.1:${port}`, model.shape, cases, effort);
    } finally {
      signal('SIGSTOP');
    }
  };
  return peer;
}

function serveArgs(dir: string, adapters: string[], port: number): string[] {
  return [
    'serve',
    dir,
    ...['--served-model-name', BASE, '--host', '127.0.0.1', '--port', String(port)],
    ...[
      '--dtype',
      'bfloat16',
      '--max-model-len',
      '1024',
      '--max-num-seqs',
      '32',
      '--no-enable-prefix-caching',
    ],
    ...['--enable-lora', '--max-loras', String(ADAPTERS), '--max-lora-rank', '16'],
    ...['--lora-modules', ...adapters.map((path, index) => `${adapterName(index)}=${path}`)],
  ];
}

/** In a process group of its own, so that its workers are stopped and continued with it. */
function start(command: string, args: string[]): ChildProcess {
  const log = openSync(join(benchCache(), 'vllm.log'), 'w');
  const env = {
    VLLM_CPU_KVCACHE_SPACE: '1',
    HF_HUB_OFFLINE: '1',
    VLLM_NO_USAGE_STATS: '1',
    ...process.env,
  };
  const server = spawn(command, args, { detached: true, stdio: ['ignore', log, log], env });
  closeSync(log);
  server.once('error', () => {});
  process.once('exit', () => signalGroup(server, 'SIGKILL'));
  return server;
}

async function waitUntilReady(server: ChildProcess, port: number): Promise<void> {
  for (const deadline = Date.now() + READY_TIMEOUT_MS; Date.now() < deadline; await sleep(500)) {
    if (server.pid === undefined || server.exitCode !== null) break;
    const health = await fetch(`http://127.0.0.1:${port}/health`).catch(() => null);
    if (health?.ok) return;
  }
  say(`vLLM's log is ${join(benchCache(), 'vllm.log')}`);
  throw new Error('vLLM did not become ready');
}

function signalGroup(server: ChildProcess, signal: NodeJS.Signals): void {
  if (server.pid === undefined || server.exitCode !== null || server.signalCode !== null) return;
  process.kill(-server.pid, signal);
}

async function stop(server: ChildProcess): Promise<void> {
  const ended = new Promise<void>((done) => server.once('exit', () => done()));
  signalGroup(server, 'SIGCONT');
  signalGroup(server, 'SIGTERM');
  const killed = setTimeout(() => signalGroup(server, 'SIGKILL'), STOP_TIMEOUT_MS);
  if (server.pid !== undefined && server.exitCode === null && server.signalCode === null) await ended;
  clearTimeout(killed);
}

async function takeTurn(url: string, shape: Shape, cases: Case[], effort: Effort): Promise<TurnResult> {
  const result: TurnResult = { about: null, rates: {}, firstTokens: [], load: null };
  const generate: Generate = (prompts, maxTokens, item) =>
    Promise.all(
      prompts.map((prompt, sequence) => {
        const adapter = adapterOf(item, sequence);
        return streamCompletion(url, {
          model: adapter === null ? BASE : adapterName(adapter),
          prompt,
          max_tokens: maxTokens,
        });
      }),
    );
  for (const item of cases) {
    const { rate } = await measureCase(item, effort, shape.vocab, generate);
    result.rates[item.name] = rate;
  }
  return result;
}
