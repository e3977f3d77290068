import { type Clock, pause } from './clock.ts';

export interface PaceOptions {
  clock: Clock;
  /** Calls per second while the server is well. */
  perSecondMax: number;
  burst: number;
}

const PER_SECOND_MIN = 2;

/**
 * How fast calls of one lane may go out to the API server. The rate halves with each sign of distress (429, 5xx, no answer), down
 * to two calls a second, and grows by one a second with each success, so that a storm is not fed and ends soon after.
 */
export class CallPace {
  readonly #clock: Clock;
  readonly #perSecondMax: number;
  readonly #burst: number;
  #perSecond: number;
  #tokens: number;
  #filledAtMs: number;
  #closedUntilMs = 0;

  constructor({ clock, perSecondMax, burst }: PaceOptions) {
    this.#clock = clock;
    this.#perSecondMax = perSecondMax;
    this.#burst = burst;
    this.#perSecond = perSecondMax;
    this.#tokens = burst;
    this.#filledAtMs = clock.monotonicMs();
  }

  get perSecond(): number {
    return this.#perSecond;
  }

  /** Resolves when the call may go out; returns early when the signal aborts, and then the call must not go out. */
  async turn(signal: AbortSignal | undefined): Promise<void> {
    const nowMs = this.#clock.monotonicMs();
    const grown = ((nowMs - this.#filledAtMs) / 1000) * this.#perSecond;
    this.#tokens = Math.min(this.#capacity, this.#tokens + grown);
    this.#filledAtMs = nowMs;
    // A negative balance is the queue: each waiting call has taken its token already and knows its own time.
    this.#tokens -= 1;
    const forTokenMs = this.#tokens < 0 ? (-this.#tokens / this.#perSecond) * 1000 : 0;
    const waitMs = Math.max(forTokenMs, this.#closedUntilMs - nowMs);
    if (waitMs <= 0) return;
    await pause(this.#clock, waitMs, signal);
    if (signal?.aborted) this.#tokens += 1;
  }

  succeeded(): void {
    this.#perSecond = Math.min(this.#perSecondMax, this.#perSecond + 1);
  }

  failed(retryAfterMs: number | null): void {
    this.#perSecond = Math.max(PER_SECOND_MIN, this.#perSecond / 2);
    this.#tokens = Math.min(this.#tokens, this.#capacity);
    if (retryAfterMs === null) return;
    this.#closedUntilMs = Math.max(this.#closedUntilMs, this.#clock.monotonicMs() + retryAfterMs);
  }

  /** A server in distress gets no burst. */
  get #capacity(): number {
    return this.#burst * (this.#perSecond / this.#perSecondMax);
  }
}
