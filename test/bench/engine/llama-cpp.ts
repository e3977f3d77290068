import { spawn } from 'node:child_process';
import { mkdir, writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join, resolve } from 'node:path';
import type { ModelDescriptor } from '../../../native/types.ts';
import { benchCache, makeOnce, say } from './cache.ts';
import type { Case, Effort } from './cases.ts';
import { runChild } from './child.ts';
import { ensureGguf } from './gguf.ts';
import type { Peer } from './peer.ts';
import type { Shape } from './shape.ts';
import type { TurnResult } from './trace.ts';

const VERSION = '3.22.1';

/** It may neither build nor download anything: what is measured is the binary of the registry. */
const OFFLINE = { NODE_LLAMA_CPP_SKIP_DOWNLOAD: 'true', NODE_LLAMA_CPP_GPU: 'false' };

export interface LlamaCppJob {
  /** Entry file of node-llama-cpp. */
  module: string;
  gguf: string;
  vocab: number;
  threads: number;
  cases: Case[];
  effort: Effort;
}

/** llama.cpp as node-llama-cpp ships it. It has one set of adapters per context, so it runs the base cases only. */
export async function llamaCpp(
  shape: Shape,
  model: ModelDescriptor,
  cases: Case[],
  effort: Effort,
): Promise<Peer> {
  const peer: Peer = {
    name: 'llama.cpp',
    unavailable: null,
    turn: () => Promise.reject(new Error('llama.cpp is not there')),
    close: async () => {},
  };
  try {
    const module = join(await install(), 'node_modules/node-llama-cpp/dist/index.js');
    const gguf = await ensureGguf(shape, model);
    const job: LlamaCppJob = {
      module,
      gguf,
      vocab: shape.vocab,
      threads: availableParallelism(),
      cases: cases.filter(({ resident }) => !resident),
      effort,
    };
    peer.turn = () => runChild<TurnResult>(resolve(import.meta.dirname, 'llama-cpp-turn.ts'), job, OFFLINE);
  } catch (error) {
    peer.unavailable = (error as Error).message;
  }
  return peer;
}

function install(): Promise<string> {
  return makeOnce(join(benchCache(), `node-llama-cpp-${VERSION}`), async (partial) => {
    if (process.platform !== 'linux') throw new Error(`no CPU binary is known for ${process.platform}`);
    say(`installing node-llama-cpp ${VERSION}`);
    await mkdir(partial, { recursive: true });
    // Its binaries are optional dependencies, most of them for GPUs; only the one for this processor is taken.
    const dependencies = {
      'node-llama-cpp': VERSION,
      [`@node-llama-cpp/linux-${process.arch}`]: VERSION,
    };
    await writeFile(join(partial, 'package.json'), JSON.stringify({ private: true, dependencies }));
    await npm([
      'install',
      '--prefix',
      partial,
      '--omit=optional',
      '--ignore-scripts',
      '--no-audit',
      '--no-fund',
    ]);
  });
}

async function npm(args: string[]): Promise<void> {
  const child = spawn('npm', args, {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { ...process.env, ...OFFLINE },
  });
  let tail = '';
  child.stderr.on('data', (chunk: Buffer) => {
    tail = (tail + chunk).slice(-500);
  });
  const code = await new Promise((done, fail) => {
    child.once('error', fail);
    child.once('close', done);
  });
  if (code === 0) return;
  say(tail.trim());
  throw new Error(`npm install node-llama-cpp@${VERSION} ended with ${code}`);
}
