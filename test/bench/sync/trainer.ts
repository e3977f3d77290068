import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import type { AdapterFiles } from '../../e2e/client.ts';
import type { Answer } from './figures.ts';

const ROOT = resolve(import.meta.dirname, '../../..');

export type Call =
  | { do: 'hash' }
  | { do: 'put'; url: string }
  | { do: 'push'; url: string; token: string; namespace?: string }
  | { do: 'save_and_load'; url: string; folder: string };

/** A Python process that holds an adapter in memory, as a trainer does. */
export interface Trainer {
  ask(call: Call): Promise<Answer>;
  stop(): Promise<void>;
}

export async function startTrainer(dir: string, { tensors, config }: AdapterFiles): Promise<Trainer> {
  const files = [join(dir, 'tensors'), join(dir, 'config')] as const;
  await writeFile(files[0], tensors);
  await writeFile(files[1], config);
  const { lines, child } = start('python3', [join(import.meta.dirname, 'trainer.py'), ...files]);
  return {
    ask: async (call) => {
      child.stdin?.write(`${JSON.stringify(call)}\n`);
      return JSON.parse(await lines()) as Answer;
    },
    stop: async () => {
      child.stdin?.end();
      if (child.exitCode === null) await once(child, 'exit');
    },
  };
}

/** What takes bytes and does nothing with them. */
export async function startSink(): Promise<{ url: string; stop(): Promise<void> }> {
  const { lines, child } = start(process.execPath, [join(import.meta.dirname, 'sink.ts')]);
  return {
    url: await lines(),
    stop: async () => {
      child.kill();
      await once(child, 'exit');
    },
  };
}

/** `lines` answers with the next one. */
function start(command: string, args: string[]): { child: ChildProcess; lines: () => Promise<string> } {
  const child = spawn(command, args, {
    stdio: ['pipe', 'pipe', 'inherit'],
    env: {
      ...process.env,
      PYTHONPATH: join(ROOT, 'server/clients/python'),
      PYTHONDONTWRITEBYTECODE: '1',
    },
  });
  process.once('exit', () => child.kill('SIGKILL'));
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    child,
    lines: async () => {
      const { value, done } = await lines.next();
      if (done) throw new Error(`${command} ended.`);
      return value;
    },
  };
}
