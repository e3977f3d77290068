import { backoffMs, type Clock } from '../kube/clock.ts';

const FAILURES_MAX = 3;
const BASE_MS = 500;
const MAX_MS = 30_000;

/**
 * Keeps calls away from a pod that does not answer. After FAILURES_MAX failures in a row the next calls fail at once,
 * for a time that doubles with each further failure; one success (or a state arriving on the watch) closes it.
 */
export class Breaker {
  readonly #clock: Clock;
  readonly #random: () => number;
  #failures = 0;
  #openUntil = 0;

  constructor(clock: Clock, random: () => number = Math.random) {
    this.#clock = clock;
    this.#random = random;
  }

  /** Milliseconds until the next call is let through; 0 when closed. */
  get waitMs(): number {
    return Math.max(0, this.#openUntil - this.#clock.monotonicMs());
  }

  succeeded(): void {
    this.#failures = 0;
    this.#openUntil = 0;
  }

  failed(): void {
    this.#failures += 1;
    if (this.#failures < FAILURES_MAX) return;
    const options = { baseMs: BASE_MS, maxMs: MAX_MS, random: this.#random };
    this.#openUntil = this.#clock.monotonicMs() + backoffMs(this.#failures - FAILURES_MAX + 1, options);
  }
}
