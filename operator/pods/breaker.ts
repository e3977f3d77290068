import { backoffMs, type Clock } from '../kube/clock.ts';

const FAILURES_MAX = 3;
const BASE_MS = 500;
const SUSPECT_MS = 5_000;
const MAX_MS = 30_000;

/**
 * Keeps calls away from a pod that does not answer. After FAILURES_MAX failures in a row the next calls fail at once,
 * for a time that doubles with each further failure; one success (or a state arriving on the watch) closes it.
 */
export class Breaker {
  readonly #clock: Clock;
  readonly #random: () => number;
  #failures = 0;
  #suspicions = 0;
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
    this.#suspicions = 0;
    this.#openUntil = 0;
  }

  /** Opens at once: the pod hung where others did not, and whoever waited for it waited for nothing. */
  suspect(): void {
    this.#suspicions += 1;
    this.#open({ baseMs: SUSPECT_MS, failures: this.#suspicions });
  }

  failed(): void {
    this.#failures += 1;
    if (this.#failures < FAILURES_MAX) return;
    this.#open({ baseMs: BASE_MS, failures: this.#failures - FAILURES_MAX + 1 });
  }

  #open({ baseMs, failures }: { baseMs: number; failures: number }): void {
    const waitMs = backoffMs(failures, { baseMs, maxMs: MAX_MS, random: this.#random });
    this.#openUntil = Math.max(this.#openUntil, this.#clock.monotonicMs() + waitMs);
  }
}
