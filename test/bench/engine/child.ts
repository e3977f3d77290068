import { spawn } from 'node:child_process';
import { basename } from 'node:path';

/** Runs a script with `job` as JSON on stdin and takes the last line of its stdout; its memory goes with it. */
export async function runChild<T>(script: string, job: unknown, env: NodeJS.ProcessEnv = {}): Promise<T> {
  const child = spawn(process.execPath, [script], {
    stdio: ['pipe', 'pipe', 'inherit'],
    env: { ...process.env, ...env },
  });
  const stop = () => child.kill();
  process.once('exit', stop);
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => {
    output += chunk;
  });
  child.stdin.on('error', () => {});
  child.stdin.end(JSON.stringify(job));
  const code = await new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (exitCode, signal) => resolve(exitCode ?? signal));
  });
  process.off('exit', stop);
  if (code !== 0) throw new Error(`${basename(script)} ended with ${code}`);
  return JSON.parse(output.trimEnd().split('\n').at(-1) ?? '') as T;
}

export async function readJob<T>(): Promise<T> {
  const chunks: Buffer[] = [];
  for await (const chunk of process.stdin) chunks.push(chunk as Buffer);
  return JSON.parse(Buffer.concat(chunks).toString()) as T;
}
