import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { z } from 'zod';

const ROOT = resolve(import.meta.dirname, '../..');
const Listening = z.object({ listening: z.object({ serving: z.string(), admin: z.string() }) });

export interface ServerProcess {
  serving: string;
  admin: string;
  adminToken: string;
  process: ChildProcess;
  /** SIGTERM; resolves with the exit code. */
  stop(): Promise<number | null>;
}

/** One server as a user starts it, on free ports; resolves when it prints that it listens. */
export async function startServer(
  args: string[],
  environment: Record<string, string> = {},
): Promise<ServerProcess> {
  const node = join(ROOT, 'node_modules/.bin/node');
  const dir = await mkdtemp(join(tmpdir(), 'lorikeet-server-'));
  const adminToken = randomBytes(16).toString('hex');
  const tokenFile = join(dir, 'admin-token');
  await writeFile(tokenFile, adminToken, { mode: 0o600 });
  const own = ['--port', '0', '--admin-port', '0', '--admin-token-file', tokenFile];
  const child = spawn(node, ['server/main.ts', ...own, ...args], {
    cwd: ROOT,
    env: { ...process.env, ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const exited = new Promise<number | null>((done) => child.once('exit', done));
  process.once('exit', () => child.kill('SIGKILL'));
  let log = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    log = (log + text).slice(-100_000);
  });
  const lines = createInterface({ input: child.stdout });
  const first = await Promise.race([
    new Promise<string>((done) => lines.once('line', done)),
    exited.then((code) => {
      throw new Error(`the server ended with ${code}:\n${log}`);
    }),
  ]);
  const { serving, admin } = Listening.parse(JSON.parse(first)).listening;
  return {
    serving,
    admin,
    adminToken,
    process: child,
    stop: async () => {
      child.kill('SIGTERM');
      const code = await exited;
      await rm(dir, { recursive: true, force: true });
      return code;
    },
  };
}
