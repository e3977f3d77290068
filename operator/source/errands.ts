import type { Clock } from '../kube/clock.ts';

export interface ErrandLimits {
  /** At the same time, of all together. */
  total: number;
  /** Of one namespace, so that one tenant with slow stores leaves room for the others. */
  perTenant: number;
  perHost: number;
}

export interface Errand<T> {
  /** Of the adapter; it has at most one errand of each kind. */
  key: string;
  kind: string;
  /** What is asked. Another question takes the place of the one before, whose answer nobody wants any more. */
  question: string;
  lane: Lane;
  /** Of the whole process. */
  signal: AbortSignal;
  run(signal: AbortSignal): Promise<T>;
}

export interface Lane {
  tenant: string;
  host: string;
}

/** `result` null: not yet; `ageMs` is how long ago it was first asked for; it may still wait for its turn. */
export interface Answer<T> {
  ageMs: number;
  begun: boolean;
  result: Promise<T> | null;
}

interface Entry {
  errand: Errand<unknown>;
  sinceMs: number;
  running: AbortController | null;
  result: Promise<unknown> | null;
}

export const ERRAND_LIMITS: ErrandLimits = { total: 16, perTenant: 6, perHost: 6 };

/**
 * What is asked of sources, beside reconciling: who asks gets no answer at first, and is told by `onAnswer` to ask again.
 * So a store that gives a byte now and then holds a place here, and nobody who reconciles. Of those that wait, the first
 * of the tenant with the fewest under way goes next.
 */
export class Errands {
  readonly #limits: ErrandLimits;
  readonly #clock: Clock;
  readonly #onAnswer: (key: string) => void;
  /** In order of arrival. */
  readonly #entries = new Map<string, Entry>();
  readonly #underWay = new Set<Errand<unknown>>();

  constructor(options: { limits?: ErrandLimits; clock: Clock; onAnswer: (key: string) => void }) {
    this.#limits = options.limits ?? ERRAND_LIMITS;
    this.#clock = options.clock;
    this.#onAnswer = options.onAnswer;
  }

  /** An answer is given once: who asks again then, asks anew. */
  ask<T>(errand: Errand<T>): Answer<T> {
    const id = idOf(errand.key, errand.kind);
    const nowMs = this.#clock.monotonicMs();
    const known = this.#entries.get(id);
    if (known === undefined || known.errand.question !== errand.question) {
      known?.running?.abort();
      this.#entries.delete(id);
      const entry: Entry = { errand, sinceMs: nowMs, running: null, result: null };
      this.#entries.set(id, entry);
      this.#start();
      return { ageMs: 0, begun: entry.running !== null, result: null };
    }
    if (known.result !== null) this.#entries.delete(id);
    const begun = known.running !== null;
    return { ageMs: nowMs - known.sinceMs, begun, result: known.result as Promise<T> | null };
  }

  /** Nobody wants to know any more. */
  drop(key: string): void {
    for (const [id, entry] of this.#entries) {
      if (entry.errand.key !== key) continue;
      entry.running?.abort();
      this.#entries.delete(id);
    }
  }

  #start(): void {
    for (let entry = this.#next(); entry !== null; entry = this.#next()) void this.#run(entry);
  }

  #next(): Entry | null {
    if (this.#underWay.size >= this.#limits.total) return null;
    const underWay = [...this.#underWay].map(({ lane }) => lane);
    let next: Entry | null = null;
    let fewest = this.#limits.perTenant;
    for (const entry of this.#entries.values()) {
      if (entry.running !== null) continue;
      const { tenant, host } = entry.errand.lane;
      const ofHost = underWay.filter((lane) => lane.host === host).length;
      const ofTenant = underWay.filter((lane) => lane.tenant === tenant).length;
      if (ofHost >= this.#limits.perHost || ofTenant >= fewest) continue;
      next = entry;
      fewest = ofTenant;
    }
    return next;
  }

  async #run(entry: Entry): Promise<void> {
    const { errand } = entry;
    entry.running = new AbortController();
    this.#underWay.add(errand);
    const result = errand.run(AbortSignal.any([errand.signal, entry.running.signal]));
    await Promise.allSettled([result]);
    this.#underWay.delete(errand);
    entry.result = result;
    if (this.#entries.get(idOf(errand.key, errand.kind)) === entry) this.#onAnswer(errand.key);
    this.#start();
  }
}

function idOf(key: string, kind: string): string {
  return `${key} ${kind}`;
}
