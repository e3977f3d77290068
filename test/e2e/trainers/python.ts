import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

const STDERR_CHARS_MAX = 20_000;

export interface PythonRun {
  python: string;
  args: string[];
  cwd?: string;
  /** All of it. */
  stdin?: string;
  timeoutMs: number;
  onLine: (line: string) => void;
}

/** Runs a Python program with its children to its end; throws with what it said where that is no good one. */
export async function runPython({
  python,
  args,
  cwd,
  stdin = '',
  timeoutMs,
  onLine,
}: PythonRun): Promise<void> {
  const child = spawn(python, args, { cwd, stdio: 'pipe', detached: true });
  const killAll = () => kill(child.pid);
  process.once('exit', killAll);
  const timer = setTimeout(killAll, timeoutMs);
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said = (said + text).slice(-STDERR_CHARS_MAX);
  });
  const lines = createInterface({ input: child.stdout }).on('line', onLine);
  const read = new Promise((done) => lines.once('close', done));
  child.stdin.on('error', () => {}).end(stdin);
  try {
    const ended = await new Promise<number | string | null>((done, fail) => {
      child.once('error', fail);
      child.once('exit', (code, signal) => done(signal ?? code));
    });
    // A worker that is left would hold the output open.
    killAll();
    await read;
    if (ended !== 0) throw new Error(`${args[0]} ended with ${ended}:\n${said}`);
  } finally {
    clearTimeout(timer);
    process.off('exit', killAll);
    killAll();
  }
}

/** A whole process group; the trainer starts workers. */
function kill(pid: number | undefined): void {
  try {
    if (pid !== undefined) process.kill(-pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
