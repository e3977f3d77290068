import type { Clock } from '../kube/clock.ts';

const REREAD_MS = 5 * 60_000;
const REFUSED_REREAD_MS = 1_000;

/** The admin token of one pool's pods, read from its Secret when first needed, every few minutes, and after a 401. */
export class TokenSource {
  readonly #read: () => Promise<string | null>;
  readonly #clock: Clock;
  #token: string | null = null;
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
      this.#token = await this.#read();
      this.#readAt = this.#clock.monotonicMs();
      return this.#token;
    } finally {
      this.#reading = null;
    }
  }
}
