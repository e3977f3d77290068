import { ApiError } from './api-error.ts';
import { backoffMs, type Clock, systemClock } from './clock.ts';

/**
 * What a handler says about its key. The queue is level-based: a key means "look at this object as it is now", never
 * "this happened". `done`: nothing to do until something changes. `again`: look again after `afterMs` at the latest.
 * A throw is the third outcome: look again after a delay that doubles with each throw in a row.
 */
export type Outcome = { kind: 'done' } | { kind: 'again'; afterMs: number };

export type Handler = (key: string, signal: AbortSignal) => Promise<Outcome>;

export interface HandlerFailure {
  key: string;
  error: unknown;
  /** Throws in a row, this one included. */
  failures: number;
  retryMs: number;
}

export interface WorkQueueOptions {
  /** Handlers that run at the same time, each for another key. */
  concurrency: number;
  baseDelayMs?: number;
  maxDelayMs?: number;
  clock?: Clock;
  random?: () => number;
  onFailure?: (failure: HandlerFailure) => void;
}

interface Timer {
  atMs: number;
  cancel: () => void;
}

/**
 * Keys waiting for a handler, first come first served. A key waits once, and runs once at a time.
 *
 *    add ───────────────▶ waiting ──▶ running ──▶ done
 *                           ▲  ▲         │  └─▶ throws, again ──▶ timer ──┐
 *    addAfter ──▶ timer ────┘  └─ added while running                      │
 *                              └──────────────────────────────────────────┘
 *
 * A key added while it runs is run once more after; a timer is dropped when its key starts to run, for the handler
 * then says anew when it wants to be called.
 */
export class WorkQueue {
  readonly #concurrency: number;
  readonly #baseDelayMs: number;
  readonly #maxDelayMs: number;
  readonly #clock: Clock;
  readonly #random: () => number;
  readonly #onFailure: (failure: HandlerFailure) => void;
  readonly #waiting = new Set<string>();
  readonly #running = new Set<string>();
  readonly #addedWhileRunning = new Set<string>();
  readonly #timers = new Map<string, Timer>();
  readonly #failures = new Map<string, number>();
  #wake: (() => void) | null = null;
  #started = false;
  #stopped = false;

  constructor(options: WorkQueueOptions) {
    this.#concurrency = options.concurrency;
    this.#baseDelayMs = options.baseDelayMs ?? 100;
    this.#maxDelayMs = options.maxDelayMs ?? 300_000;
    this.#clock = options.clock ?? systemClock;
    this.#random = options.random ?? Math.random;
    this.#onFailure = options.onFailure ?? (() => {});
  }

  /** Keys that wait for a handler. */
  get depth(): number {
    return this.#waiting.size;
  }

  add(key: string): void {
    if (this.#running.has(key)) this.#addedWhileRunning.add(key);
    else this.#waiting.add(key);
    this.#wake?.();
  }

  /** Of two delays for one key the earlier counts. */
  addAfter(key: string, delayMs: number): void {
    if (this.#stopped) return;
    if (delayMs <= 0) {
      this.add(key);
      return;
    }
    const atMs = this.#clock.monotonicMs() + delayMs;
    const earlier = this.#timers.get(key);
    if (earlier !== undefined && earlier.atMs <= atMs) return;
    earlier?.cancel();
    const cancel = this.#clock.after(delayMs, () => {
      this.#timers.delete(key);
      this.add(key);
    });
    this.#timers.set(key, { atMs, cancel });
  }

  /** Runs handlers until the signal aborts and the last of them has returned. May be called once. */
  async run(handler: Handler, signal: AbortSignal): Promise<void> {
    if (this.#started) throw new Error('Expected run to be called once per WorkQueue');
    this.#started = true;
    const wake = () => this.#wake?.();
    signal.addEventListener('abort', wake);
    const handling = new Set<Promise<void>>();
    while (!signal.aborted) {
      const key = this.#running.size < this.#concurrency ? this.#take() : null;
      if (key === null) {
        await this.#somethingNew();
        continue;
      }
      const handled = this.#handle(key, handler, signal).finally(() => handling.delete(handled));
      handling.add(handled);
    }
    signal.removeEventListener('abort', wake);
    this.#stopped = true;
    for (const timer of this.#timers.values()) timer.cancel();
    this.#timers.clear();
    await Promise.all(handling);
  }

  #take(): string | null {
    for (const key of this.#waiting) {
      this.#waiting.delete(key);
      this.#running.add(key);
      this.#timers.get(key)?.cancel();
      this.#timers.delete(key);
      return key;
    }
    return null;
  }

  #somethingNew(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#wake = () => {
      this.#wake = null;
      resolve();
    };
    return promise;
  }

  async #handle(key: string, handler: Handler, signal: AbortSignal): Promise<void> {
    let retryMs: number | null = null;
    try {
      const outcome = await handler(key, signal);
      this.#failures.delete(key);
      if (outcome.kind === 'again') retryMs = outcome.afterMs;
    } catch (error) {
      if (!signal.aborted) retryMs = this.#failed(key, error);
    }
    this.#running.delete(key);
    if (retryMs !== null) this.addAfter(key, retryMs);
    if (this.#addedWhileRunning.delete(key)) this.add(key);
    this.#wake?.();
  }

  #failed(key: string, error: unknown): number {
    const failures = (this.#failures.get(key) ?? 0) + 1;
    this.#failures.set(key, failures);
    const delay = { baseMs: this.#baseDelayMs, maxMs: this.#maxDelayMs, random: this.#random };
    const askedMs = error instanceof ApiError ? (error.retryAfterMs ?? 0) : 0;
    const retryMs = Math.max(backoffMs(failures, delay), askedMs);
    this.#onFailure({ key, error, failures, retryMs });
    return retryMs;
  }
}
