import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { freePort } from '../../cluster/free-port.ts';
import { eventually } from '../../support/eventually.ts';
import { toolPath } from '../../support/tools.ts';
import { PARROT } from '../world.ts';

export const START_MS = 240_000;

/** What it wants besides: of the small model on few processors, float32 as the golden answers are. */
export const ARGS = ['--dtype=float32', '--max-model-len=1024', '--max-num-seqs=32'];
export const ENVIRONMENT = {
  VLLM_CPU_KVCACHE_SPACE: '1',
  VLLM_NO_USAGE_STATS: '1',
  HF_HUB_OFFLINE: '1',
  VLLM_ALLOW_RUNTIME_LORA_UPDATING: 'True',
  // The paths of its sockets are short; a pod's folder here is long.
  VLLM_RPC_BASE_PATH: '/var/tmp',
};

/** `vllm serve`. */
export function entrypoint(): string[] {
  return [join(toolPath('vllm'), 'bin/python'), '-m', 'vllm.entrypoints.cli.main', 'serve'];
}

export interface RealVllm {
  url: string;
  /** SIGKILL, with the processes that it started. */
  kill(): Promise<void>;
}

/** One on a port of its own; resolves when it answers. */
export async function startVllm(args: string[], environment: Record<string, string> = {}): Promise<RealVllm> {
  const own = await freePort();
  const url = `http://127.0.0.1:${own}`;
  const [command = '', ...entry] = entrypoint();
  const model = [PARROT, '--served-model-name', 'parrot', '--host', '127.0.0.1', '--port', String(own)];
  const child = spawn(command, [...entry, ...model, ...ARGS, ...args], {
    detached: true,
    stdio: ['ignore', 'ignore', 'inherit'],
    env: { ...process.env, ...ENVIRONMENT, VLLM_LOGGING_LEVEL: 'ERROR', ...environment },
  });
  const ended = new Promise<void>((done) => child.once('exit', () => done()));
  const kill = async () => {
    if (child.pid !== undefined && child.exitCode === null) process.kill(-child.pid, 'SIGKILL');
    await ended;
  };
  process.once('exit', () => void kill());
  await eventually('vLLM answers', { timeoutMs: START_MS, everyMs: 500 }, async () => {
    if (child.exitCode !== null) throw new Error(`vLLM ended with ${child.exitCode}`);
    return (await fetch(`${url}/health`).catch(() => null))?.ok || undefined;
  });
  return { url, kill };
}
