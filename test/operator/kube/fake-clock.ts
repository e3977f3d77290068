import type { Clock } from '../../../operator/kube/clock.ts';

interface Timer {
  atMs: number;
  callback: () => void;
}

/** Stands still until a test moves it. */
export class FakeClock implements Clock {
  #nowMs = 1_000;
  readonly #timers = new Set<Timer>();
  readonly #startedAt = Date.UTC(2026, 5, 1);
  /** Added to `date()` only: somebody set the clock of the machine. */
  wallSkewMs = 0;

  get timers(): number {
    return this.#timers.size;
  }

  monotonicMs(): number {
    return this.#nowMs;
  }

  date(): Date {
    return new Date(this.#startedAt + this.#nowMs + this.wallSkewMs);
  }

  after(delayMs: number, callback: () => void): () => void {
    const timer = { atMs: this.#nowMs + delayMs, callback };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }

  /** Moves on, and lets what each timer wakes run (and reach a server on the loopback) before the next. */
  async advance(byMs: number): Promise<void> {
    const untilMs = this.#nowMs + byMs;
    await settle();
    for (let next = this.#next(untilMs); next !== undefined; next = this.#next(untilMs)) {
      this.#nowMs = Math.max(this.#nowMs, next.atMs);
      this.#timers.delete(next);
      next.callback();
      await settle();
    }
    this.#nowMs = untilMs;
    await settle();
  }

  /** Moves on without a timer firing: the process was stopped, or its event loop blocked. */
  freeze(forMs: number): void {
    this.#nowMs += forMs;
  }

  #next(untilMs: number): Timer | undefined {
    const due = [...this.#timers].filter(({ atMs }) => atMs <= untilMs);
    return due.sort((a, b) => a.atMs - b.atMs)[0];
  }
}

/** A few turns of the event loop. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 5; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}
