import type { Clock } from '../kube/clock.ts';

const REREAD_MS = 5 * 60_000;
const REFUSED_REREAD_MS = 1_000;
/** Pods are given a rotated Secret one after the other, each within minutes. */
const PREVIOUS_MS = 15 * 60_000;

/** What a Secret says about the admin token of a pool's pods. */
export interface AdminTokens {
  token: string;
  /** The one before, while pods change over; null: the Secret does not keep it. */
  previous: string | null;
}

/**
 * The admin token of one pool's pods, read from its Secret when first needed, every few minutes, and after a 401. The one
 * before is remembered for a while: pods that have not seen the new one yet still want it.
 */
export class TokenSource {
  readonly #read: () => Promise<AdminTokens>;
  readonly #clock: Clock;
  #tokens: AdminTokens | null = null;
  #remembered: { token: string; untilMs: number } | null = null;
  #readAt = Number.NEGATIVE_INFINITY;
  #reading: Promise<AdminTokens> | null = null;

  constructor(read: () => Promise<AdminTokens>, clock: Clock) {
    this.#read = read;
    this.#clock = clock;
  }

  token(): Promise<string> {
    return this.#atMostAsOld(REREAD_MS);
  }

  /** After a pod refused the token: the Secret may have a new one. */
  tokenAfterRefusal(): Promise<string> {
    return this.#atMostAsOld(REFUSED_REREAD_MS);
  }

  /** Those before it, as the Secret keeps them and as this process remembers: the Secret's outlives the process. */
  get earlier(): string[] {
    const { token, untilMs } = this.#remembered ?? { token: null, untilMs: 0 };
    const remembered = this.#clock.monotonicMs() < untilMs ? token : null;
    return [this.#tokens?.previous ?? null, remembered].filter((item) => item !== null);
  }

  /** A Secret that cannot be read just now does not take the last good token away. */
  async #atMostAsOld(ageMs: number): Promise<string> {
    if (this.#tokens !== null && this.#clock.monotonicMs() - this.#readAt < ageMs) return this.#tokens.token;
    this.#reading ??= this.#reread();
    try {
      return (await this.#reading).token;
    } catch (error) {
      if (this.#tokens === null) throw error;
      return this.#tokens.token;
    }
  }

  async #reread(): Promise<AdminTokens> {
    try {
      const tokens = await this.#read();
      const before = this.#tokens;
      this.#readAt = this.#clock.monotonicMs();
      if (before !== null && before.token !== tokens.token) {
        this.#remembered = { token: before.token, untilMs: this.#readAt + PREVIOUS_MS };
      }
      this.#tokens = tokens;
      return tokens;
    } finally {
      this.#reading = null;
    }
  }
}
