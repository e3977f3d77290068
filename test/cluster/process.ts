import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, existsSync, openSync, readFileSync } from 'node:fs';

export interface ProcessOptions {
  command: string;
  args: string[];
  /** Both streams are appended to it. */
  logFile: string;
  env?: NodeJS.ProcessEnv;
  cwd?: string;
}

export interface Exit {
  code: number | null;
  signal: NodeJS.Signals | null;
}

export interface RunningProcess {
  readonly pid: number;
  /** Null while it runs. */
  readonly exit: Exit | null;
  readonly exited: Promise<Exit>;
  kill(signal: NodeJS.Signals): void;
  /** SIGTERM, then SIGKILL once the grace is over, at once where there is none; resolves when the process is gone. */
  stop(graceMs: number): Promise<Exit>;
  /** The end of what it wrote. */
  logTail(): string;
}

/** Processes that the end of this one must take along: one exit handler for all of them. */
const running = new Set<Child>();
process.once('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

const SETPRIV = '/usr/bin/setpriv';
const LOG_TAIL_CHARS = 4_000;

/**
 * Starts a process that leads a group of its own and never outlives this one: where setpriv is installed the kernel kills it
 * when we are gone, whatever ended us; elsewhere an exit handler does, which SIGKILL would not run.
 */
export async function startProcess(options: ProcessOptions): Promise<RunningProcess> {
  const log = openSync(options.logFile, 'a');
  const hasSetpriv = existsSync(SETPRIV);
  const command = hasSetpriv ? SETPRIV : options.command;
  const args = hasSetpriv ? ['--pdeathsig', 'KILL', options.command, ...options.args] : options.args;
  const child = spawn(command, args, {
    detached: true,
    stdio: ['ignore', log, log],
    env: options.env ?? process.env,
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
  });
  closeSync(log);
  await new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve);
    child.once('error', reject);
  });
  return new Child(child, options.logFile);
}

class Child implements RunningProcess {
  exit: Exit | null = null;
  readonly pid: number;
  readonly exited: Promise<Exit>;
  readonly #logFile: string;

  constructor(child: ChildProcess, logFile: string) {
    if (child.pid === undefined) throw new Error('a spawned process has no pid');
    this.pid = child.pid;
    this.#logFile = logFile;
    running.add(this);
    this.exited = new Promise((resolve) => {
      child.once('exit', (code, signal) => {
        running.delete(this);
        // What the process had started itself goes with it, as in a container.
        this.kill('SIGKILL');
        this.exit = { code, signal };
        resolve(this.exit);
      });
    });
  }

  kill(signal: NodeJS.Signals): void {
    if (this.exit !== null) return;
    try {
      process.kill(-this.pid, signal);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
    }
  }

  async stop(graceMs: number): Promise<Exit> {
    this.kill(graceMs > 0 ? 'SIGTERM' : 'SIGKILL');
    const timer = setTimeout(() => this.kill('SIGKILL'), graceMs);
    const exit = await this.exited;
    clearTimeout(timer);
    return exit;
  }

  logTail(): string {
    return readFileSync(this.#logFile, 'utf8').slice(-LOG_TAIL_CHARS);
  }
}
