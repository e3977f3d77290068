import type { Clock } from '../kube/clock.ts';

const REREAD_MS = 5 * 60_000;
const REFUSED_REREAD_MS = 1_000;
/** Pods are given a rotated Secret one after the other, each within minutes. */
const PREVIOUS_MS = 15 * 60_000;

/**
 * The admin token of one pool's pods, read from its Secret when first needed, every few minutes, and after a 401. The one
 * before is remembered for a while: pods that have not seen the new one yet still want it.
 */
export class TokenSource {
  readonly #read: () => Promise<string | null>;
  readonly #clock: Clock;
  #token: string | null = null;
  #previous: { token: string | null; untilMs: number } | null = null;
  #readAt = Number.NEGATIVE_INFINITY;
  #reading: Promise<string | null> | null = null;

  constructor(read: () => Promise<string | null>, clock: Clock) {
    this.#read = read;
    this.#clock = clock;
  }

  token(): Promise<string | null> {
    return this.#atMostAsOld(REREAD_MS);
  }

  /** After a pod refused the token: the Secret may have a new one. */
  tokenAfterRefusal(): Promise<string | null> {
    return this.#atMostAsOld(REFUSED_REREAD_MS);
  }

  /** Null: there was none, or too long ago. */
  get previous(): string | null {
    const { token = null, untilMs = 0 } = this.#previous ?? {};
    return this.#clock.monotonicMs() < untilMs ? token : null;
  }

  /** A Secret that cannot be read just now does not take the last good token away. */
  async #atMostAsOld(ageMs: number): Promise<string | null> {
    if (this.#clock.monotonicMs() - this.#readAt < ageMs) return this.#token;
    this.#reading ??= this.#reread();
    try {
      return await this.#reading;
    } catch (error) {
      if (this.#token === null) throw error;
      return this.#token;
    }
  }

  async #reread(): Promise<string | null> {
    try {
      const token = await this.#read();
      this.#readAt = this.#clock.monotonicMs();
      if (this.#token !== null && this.#token !== token) {
        this.#previous = { token: this.#token, untilMs: this.#readAt + PREVIOUS_MS };
      }
      this.#token = token;
      return this.#token;
    } finally {
      this.#reading = null;
    }
  }
}
