import type { V1Container } from '@kubernetes/client-node';
import { type RunningProcess, startProcess } from '../process.ts';
import { type Place, perform } from './actions.ts';
import { environmentOf, expand, type Surroundings } from './environment.ts';
import { type Image, NotStartable, timestamp } from './manifest.ts';
import { pause, watchProbe } from './probe.ts';
import { rewriteMounts, TOKEN_MOUNT } from './volumes.ts';

export interface Terminated {
  exitCode: number;
  signal?: number;
  reason: string;
  message?: string;
  startedAt: string;
  finishedAt: string;
  containerID: string;
}

export type ContainerState =
  | { waiting: { reason: string; message?: string } }
  | { running: { startedAt: string } }
  | { terminated: Terminated };

export interface ContainerContext {
  container: V1Container;
  image: Image | undefined;
  restart: 'Always' | 'OnFailure' | 'Never';
  graceSeconds: number;
  surroundings: Surroundings;
  mounts: Map<string, string>;
  /** A private folder: HOME and TMPDIR of the process. */
  scratch: string;
  logFile: string;
  /** Writes a kubeconfig of the token that is mounted at `folder` and returns its path. */
  kubeconfigFor(folder: string): Promise<string>;
  backOff: { baseMs: number; maxMs: number };
  onChange(): void;
  log(line: string): void;
}

const RETRY_MS = 1_000;
const BACK_OFF_FORGOTTEN_MS = 600_000;
const SIGNAL_NUMBERS: Partial<Record<NodeJS.Signals, number>> = {
  SIGHUP: 1,
  SIGINT: 2,
  SIGABRT: 6,
  SIGKILL: 9,
  SIGSEGV: 11,
  SIGTERM: 15,
};

/** One container of a pod: its process, probes and restarts. */
export class Container {
  state: ContainerState = { waiting: { reason: 'ContainerCreating' } };
  lastState: { terminated?: Terminated } = {};
  restartCount = 0;
  ready = false;
  started = false;
  containerID = '';
  readonly #context: ContainerContext;
  readonly #stopping = new AbortController();
  #process: RunningProcess | null = null;
  #place: Place | null = null;
  #backOffMs = 0;

  constructor(context: ContainerContext) {
    this.#context = context;
  }

  get name(): string {
    return this.#context.container.name;
  }

  /** Runs it, again as the policy says, until it is finished for good; resolves with its last exit code. */
  async run(): Promise<number> {
    while (!this.#stopping.signal.aborted) {
      const startedMs = performance.now();
      const exitCode = await this.#runOnce();
      if (exitCode === null) {
        await pause(RETRY_MS, this.#stopping.signal);
        continue;
      }
      if (this.#stopping.signal.aborted || !this.#restartsAfter(exitCode)) return exitCode;
      await this.#waitBackOff(performance.now() - startedMs);
      this.restartCount += 1;
    }
    if (!('terminated' in this.state))
      this.#set({ terminated: this.#terminated(137, timestamp(), 'ContainerStatusUnknown') });
    return 137;
  }

  #restartsAfter(exitCode: number): boolean {
    const { restart } = this.#context;
    return restart === 'Always' || (restart === 'OnFailure' && exitCode !== 0);
  }

  /** The kubelet's: the first restart at once, then 10 s, doubled up to 5 min, forgotten after 10 min of running. */
  async #waitBackOff(ranMs: number): Promise<void> {
    const { baseMs, maxMs } = this.#context.backOff;
    if (ranMs > BACK_OFF_FORGOTTEN_MS) this.#backOffMs = 0;
    if (this.#backOffMs > 0) {
      const message = `back-off ${Math.round(this.#backOffMs / 1000)}s restarting failed container=${this.name}`;
      if ('terminated' in this.state) this.lastState = this.state;
      this.#set({ waiting: { reason: 'CrashLoopBackOff', message } });
      await pause(this.#backOffMs, this.#stopping.signal);
    }
    this.#backOffMs = Math.min(maxMs, this.#backOffMs === 0 ? baseMs : this.#backOffMs * 2);
  }

  /** Null where it could not be started. */
  async #runOnce(): Promise<number | null> {
    try {
      await this.#start();
    } catch (error) {
      if (!(error instanceof NotStartable)) throw error;
      this.#set({ waiting: { reason: error.reason, message: error.message } });
      return null;
    }
    const startedAt = timestamp();
    const probes = new AbortController();
    const probing = this.#probe(probes.signal);
    const exit = await (this.#process as RunningProcess).exited;
    probes.abort();
    await probing;
    this.#process = null;
    this.ready = false;
    this.started = false;
    const signal = exit.signal === null ? undefined : (SIGNAL_NUMBERS[exit.signal] ?? 0);
    const exitCode = exit.code ?? 128 + (signal ?? 0);
    const terminated = this.#terminated(exitCode, startedAt, exitCode === 0 ? 'Completed' : 'Error');
    this.#context.log(`container ${this.name} ended with ${exitCode}`);
    this.#set({ terminated: signal === undefined ? terminated : { ...terminated, signal } });
    return exitCode;
  }

  #terminated(exitCode: number, startedAt: string, reason: string): Terminated {
    return { exitCode, reason, startedAt, finishedAt: timestamp(), containerID: this.containerID };
  }

  async #start(): Promise<void> {
    const { container, image, surroundings, mounts, logFile } = this.#context;
    if (image === undefined)
      throw new NotStartable('ErrImagePull', `this node has no image "${container.image}"`);
    const given = await environmentOf(container, surroundings);
    for (const [name, value] of Object.entries(given)) given[name] = rewriteMounts(value, mounts);
    const environment = { ...(await this.#environmentOfImage(image)), ...given };
    // Mounts first: a variable's value has its mounts rewritten already.
    // A pod's loopback is its own.
    const own = (text: string) => text.replaceAll('127.0.0.1', surroundings.podIP);
    const rewrite = (text: string) => own(expand(rewriteMounts(text, mounts), given));
    // What the image brings is of this machine: a mount at /tmp must not hide a checkout there.
    const [command = '', ...args] = [
      ...(container.command?.map(rewrite) ?? image.entrypoint),
      ...(container.args?.map(rewrite) ?? (container.command ? [] : (image.cmd ?? []))),
    ];
    const cwd =
      container.workingDir === undefined ? image.cwd : (mounts.get(container.workingDir) ?? image.cwd);
    this.#place = { container, podIP: surroundings.podIP, cwd, environment, rewrite };
    this.#process = await startProcess({ command, args, env: environment, cwd, logFile });
    if (this.#stopping.signal.aborted) this.#process.kill('SIGKILL');
    if ('terminated' in this.state) this.lastState = this.state;
    this.containerID = `process://${this.#process.pid}-${this.restartCount}`;
    this.started = container.startupProbe === undefined;
    this.ready = this.started && container.readinessProbe === undefined;
    this.#set({ running: { startedAt: timestamp() } });
  }

  /** Nothing of ours but what an image has: PATH, a home, a place for temporary files. */
  async #environmentOfImage(image: Image): Promise<Record<string, string>> {
    const { surroundings, mounts, scratch } = this.#context;
    const environment: Record<string, string> = {
      PATH: process.env.PATH ?? '/usr/bin:/bin',
      HOME: scratch,
      TMPDIR: mounts.get('/tmp') ?? scratch,
      HOSTNAME: surroundings.pod.metadata.name,
      ...image.env,
    };
    const token = mounts.get(TOKEN_MOUNT);
    if (token !== undefined) environment.KUBECONFIG = await this.#context.kubeconfigFor(token);
    return environment;
  }

  async #probe(signal: AbortSignal): Promise<void> {
    const { startupProbe, readinessProbe, livenessProbe } = this.#context.container;
    const place = this.#place as Place;
    if (startupProbe && !(await this.#startedUp(signal))) return;
    const watches = [];
    if (readinessProbe) {
      const onVerdict = (healthy: boolean, message: string) => {
        if (!healthy) this.#context.log(`container ${this.name} is not ready: ${message}`);
        this.ready = healthy;
        this.#context.onChange();
      };
      watches.push(watchProbe({ probe: readinessProbe, place, onVerdict }, signal));
    }
    if (livenessProbe) {
      const onVerdict = (healthy: boolean, message: string) => {
        if (!healthy) this.#failed('liveness', message, livenessProbe.terminationGracePeriodSeconds);
      };
      watches.push(watchProbe({ probe: livenessProbe, place, onVerdict }, signal));
    }
    await Promise.all(watches);
  }

  async #startedUp(signal: AbortSignal): Promise<boolean> {
    const probe = this.#context.container.startupProbe ?? {};
    const settled = new AbortController();
    let healthy = false;
    const onVerdict = (verdict: boolean, message: string) => {
      healthy = verdict;
      if (!verdict) this.#failed('startup', message, probe.terminationGracePeriodSeconds);
      settled.abort();
    };
    await watchProbe(
      { probe, place: this.#place as Place, onVerdict },
      AbortSignal.any([signal, settled.signal]),
    );
    if (!healthy) return false;
    this.started = true;
    this.ready = this.#context.container.readinessProbe === undefined;
    this.#context.onChange();
    return true;
  }

  #failed(probe: string, message: string, graceSeconds = this.#context.graceSeconds): void {
    this.#context.log(`container ${this.name} failed its ${probe} probe, will be restarted: ${message}`);
    void this.#end(graceSeconds);
  }

  /** For good: hook, SIGTERM, grace, SIGKILL. */
  async stop(graceSeconds: number): Promise<void> {
    this.#stopping.abort();
    await this.#end(graceSeconds);
  }

  /** The preStop hook uses up the grace, too. */
  async #end(graceSeconds: number): Promise<void> {
    const process = this.#process;
    if (process === null) return;
    const deadlineMs = performance.now() + graceSeconds * 1_000;
    const hook = this.#context.container.lifecycle?.preStop;
    if (hook && graceSeconds > 0 && this.#place) {
      await Promise.race([
        process.exited,
        perform(hook, this.#place, graceSeconds * 1_000).catch((error: unknown) =>
          this.#context.log(`preStop hook of ${this.name} failed: ${error}`),
        ),
      ]);
    }
    await process.stop(Math.max(0, deadlineMs - performance.now()));
  }

  /** A signal to the container's processes, from outside. */
  signal(signal: NodeJS.Signals): void {
    if (this.#process === null) throw new Error(`container ${this.name} does not run`);
    this.#process.kill(signal);
  }

  #set(state: ContainerState): void {
    this.state = state;
    this.#context.onChange();
  }
}
