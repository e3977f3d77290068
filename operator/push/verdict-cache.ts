import { LorikeetError } from '../../server/contract/errors.ts';
import type { Clock } from '../kube/clock.ts';

export interface VerdictLimits {
  positiveMs: number;
  negativeMs: number;
  /** Of each kind. */
  entriesMax: number;
  /** Questions that may be open at once; one more is answered with too_many_requests. */
  pendingMax: number;
}

interface Kept<T> {
  value: T;
  until: number;
}

/**
 * Remembers what the API server said. Good and bad answers are kept apart, so that a flood of wrong tokens pushes no
 * right one out; the same question asked twice at once is asked once.
 */
export class VerdictCache<T> {
  readonly #limits: VerdictLimits;
  readonly #clock: Clock;
  readonly #positive = new Map<string, Kept<T>>();
  readonly #negative = new Map<string, Kept<null>>();
  readonly #pending = new Map<string, Promise<T | null>>();

  constructor(limits: VerdictLimits, clock: Clock) {
    this.#limits = limits;
    this.#clock = clock;
  }

  /** Null = no. `ask` that throws is remembered by nobody. */
  async get(key: string, ask: () => Promise<T | null>): Promise<T | null> {
    const now = this.#clock.monotonicMs();
    const kept = this.#positive.get(key) ?? this.#negative.get(key);
    if (kept !== undefined && now < kept.until) return kept.value;
    const pending = this.#pending.get(key);
    if (pending !== undefined) return await pending;
    if (this.#pending.size >= this.#limits.pendingMax) {
      throw new LorikeetError('too_many_requests', 'Too many callers are being authenticated; try again.');
    }
    const asking = ask().finally(() => this.#pending.delete(key));
    this.#pending.set(key, asking);
    const value = await asking;
    if (value === null) this.#keep(this.#negative, key, { value, until: now + this.#limits.negativeMs });
    else this.#keep(this.#positive, key, { value, until: now + this.#limits.positiveMs });
    return value;
  }

  #keep<V>(kept: Map<string, Kept<V>>, key: string, entry: Kept<V>): void {
    this.#positive.delete(key);
    this.#negative.delete(key);
    kept.set(key, entry);
    const [oldest] = kept.keys();
    if (kept.size > this.#limits.entriesMax && oldest !== undefined) kept.delete(oldest);
  }
}
