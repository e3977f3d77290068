import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type RunningProcess, startProcess } from '../../cluster/process.ts';
import { ROOT } from '../../e2e/world.ts';
import { eventually } from '../../support/eventually.ts';

const NODE = join(ROOT, 'node_modules/.bin/node');
const TICKS_PER_SECOND = 100;
const GRACE_MS = 60_000;

/** NODE_OPTIONS of the operator's image. */
export function imageOptions(): string {
  const file = readFileSync(join(ROOT, 'operator/Dockerfile'), 'utf8');
  const options = file.match(/^ENV NODE_OPTIONS="(.*)"$/m)?.[1];
  if (options === undefined) throw new Error('Expected NODE_OPTIONS in operator/Dockerfile');
  return options;
}

/** The operator as a process of its own, so that its processor time and memory are its alone. */
export class OperatorProcess {
  readonly #process: RunningProcess;
  readonly #metrics: string;

  private constructor(running: RunningProcess, metrics: string) {
    this.#process = running;
    this.#metrics = metrics;
  }

  static async start(dir: string, name: string, kubeconfig: string): Promise<OperatorProcess> {
    const logFile = join(dir, `${name}.log`);
    const flags = {
      'push-host': '127.0.0.1',
      'push-port': '0',
      'metrics-host': '127.0.0.1',
      'metrics-port': '0',
      // The lease of the one before it is taken at once.
      identity: 'bench',
      'spool-dir': join(dir, 'spool'),
      'allow-endpoint-cidr': '127.0.0.0/8',
      'log-level': 'warn',
    };
    const args = Object.entries(flags).flatMap(([flag, value]) => [`--${flag}`, value]);
    const running = await startProcess({
      command: NODE,
      args: [join(ROOT, 'operator/main.ts'), ...args],
      logFile,
      env: { ...process.env, NODE_OPTIONS: imageOptions(), KUBECONFIG: kubeconfig },
    });
    const metrics = await eventually('the operator listens', { timeoutMs: 60_000 }, () => {
      if (running.exit !== null) throw new Error(running.logTail());
      const line = readFileSync(logFile, 'utf8').match(/^\{"listening".*$/m)?.[0];
      return line === undefined ? undefined : (JSON.parse(line).listening.metrics as string);
    });
    return new OperatorProcess(running, metrics);
  }

  get cpuSeconds(): number {
    const fields = this.#read('stat').split(') ')[1]?.split(' ') ?? [];
    return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
  }

  get peakMiB(): number {
    return Number(this.#read('status').match(/^VmHWM:\s+(\d+) kB$/m)?.[1]) / 1024;
  }

  /** The sum of a metric over its labels. */
  async metric(name: string): Promise<number> {
    const text = await (await fetch(`${this.#metrics}/metrics`)).text();
    const values = [...text.matchAll(new RegExp(`^${name}(?:\\{.*\\})? (\\S+)$`, 'gm'))];
    return values.reduce((sum, [, value]) => sum + Number(value), 0);
  }

  async stop(): Promise<void> {
    await this.#process.stop(GRACE_MS);
  }

  #read(file: string): string {
    return readFileSync(`/proc/${this.#process.pid}/${file}`, 'utf8');
  }
}
