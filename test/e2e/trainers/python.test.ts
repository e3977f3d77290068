import { readFile } from 'node:fs/promises';
import { expect, it } from 'vitest';
import { eventually } from '../../support/eventually.ts';
import { runPython } from './python.ts';

/** Any program will do. */
const run = (script: string, stdin = '', timeoutMs = 20_000) => {
  const lines: string[] = [];
  const ended = runPython({
    python: process.execPath,
    args: ['-e', script],
    stdin,
    timeoutMs,
    onLine: (line) => void lines.push(line),
  });
  return { lines, ended };
};

it('passes on what is given and what is said, to the last line', async () => {
  const { lines, ended } = run('process.stdin.pipe(process.stdout)', 'one\ntwo');
  await ended;
  expect(lines).toEqual(['one', 'two']);
});

it('fails with what the program said', async () => {
  await expect(run('console.error("no such model"); process.exit(3)').ended).rejects.toThrow(
    /ended with 3:\nno such model/,
  );
});

/** Tells its worker's id; the worker holds the output open. */
const withWorker = (then: string) => `
  const worker = require('node:child_process').spawn('sleep', ['60'], { stdio: 'inherit' });
  console.log(worker.pid);
  ${then}`;
/** What is killed stays a zombie until somebody asks after it. */
const isGone = (pid: string | undefined) =>
  eventually('the worker is gone', { timeoutMs: 20_000 }, async () => {
    const state = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => ') X');
    return /\) [XZ]/.test(state) || undefined;
  });

it('ends the workers of a program that has ended', async () => {
  const { lines, ended } = run(withWorker('worker.unref(); process.exit(0);'));
  await ended;
  expect(await isGone(lines[0])).toBe(true);
});

it('ends a program that takes too long, with its workers', async () => {
  const { lines, ended } = run(withWorker(''), '', 1_000);
  await expect(ended).rejects.toThrow(/ended with SIGKILL/);
  if (lines[0] !== undefined) expect(await isGone(lines[0])).toBe(true);
});
