import { spawn } from 'node:child_process';
import { freePort } from '../../cluster/free-port.ts';
import { eventually } from '../../support/eventually.ts';

export const START_MS = 240_000;

export interface RealEngine {
  url: string;
  /** SIGKILL, with the processes that it started. */
  kill(): Promise<void>;
}

/** A server of another project on a port of its own; resolves when it answers. */
export async function startEngine(
  [command = '', ...args]: string[],
  environment: Record<string, string>,
): Promise<RealEngine> {
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const child = spawn(command, [...args, '--host', '127.0.0.1', '--port', String(port)], {
    detached: true,
    stdio: ['ignore', 'ignore', 'inherit'],
    env: { ...process.env, ...environment },
  });
  const ended = new Promise<void>((done) => child.once('exit', () => done()));
  const kill = async () => {
    if (child.pid !== undefined && child.exitCode === null) process.kill(-child.pid, 'SIGKILL');
    await ended;
  };
  process.once('exit', () => void kill());
  await eventually('the engine answers', { timeoutMs: START_MS, everyMs: 500 }, async () => {
    if (child.exitCode !== null) throw new Error(`the engine ended with ${child.exitCode}`);
    return (await fetch(`${url}/health`).catch(() => null))?.ok || undefined;
  });
  return { url, kill };
}
