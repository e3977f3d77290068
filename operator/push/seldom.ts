import type { Clock } from '../kube/clock.ts';

const EVERY_MS = 10_000;

/** Whether something that strangers can cause is to be logged now, and how often it was not since the last time. */
export class Seldom {
  readonly #clock: Clock;
  #nextAtMs = Number.NEGATIVE_INFINITY;
  #skipped = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Null: not now. */
  next(): { skipped: number } | null {
    const nowMs = this.#clock.monotonicMs();
    if (nowMs < this.#nextAtMs) {
      this.#skipped += 1;
      return null;
    }
    const skipped = this.#skipped;
    this.#skipped = 0;
    this.#nextAtMs = nowMs + EVERY_MS;
    return { skipped };
  }
}
