import type { Clock } from '../kube/clock.ts';

export interface ErrandLimits {
  /** At the same time, of all together. */
  total: number;
  /** Of one namespace, so that one tenant with slow stores leaves room for the others. */
  perTenant: number;
  perHost: number;
}

const KINDS = ['content', 'bytes'] as const;

export interface Errand<T> {
  /** Of the adapter; it has at most one errand of each kind. */
  key: string;
  kind: (typeof KINDS)[number];
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
  /** Of all: the lower, the earlier it came. */
  arrival: number;
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
  readonly #entries = new Map<string, Entry>();
  /** Those that have not begun, by lane, each in order of arrival: lanes are few where errands are thousands. */
  readonly #waiting = new Map<string, Set<Entry>>();
  #arrivals = 0;
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
      this.#remove(id);
      this.#arrivals += 1;
      const entry: Entry = { errand, sinceMs: nowMs, running: null, result: null, arrival: this.#arrivals };
      this.#entries.set(id, entry);
      this.#queue(entry);
      this.#start();
      return { ageMs: 0, begun: entry.running !== null, result: null };
    }
    if (known.result !== null) this.#entries.delete(id);
    const begun = known.running !== null;
    return { ageMs: nowMs - known.sinceMs, begun, result: known.result as Promise<T> | null };
  }

  /** Nobody wants to know any more. */
  drop(key: string): void {
    for (const kind of KINDS) this.#remove(idOf(key, kind));
  }

  #remove(id: string): void {
    const entry = this.#entries.get(id);
    if (entry === undefined) return;
    entry.running?.abort();
    this.#entries.delete(id);
    this.#leave(entry);
  }

  #queue(entry: Entry): void {
    const lane = laneKey(entry.errand.lane);
    this.#waiting.set(lane, (this.#waiting.get(lane) ?? new Set()).add(entry));
  }

  #leave(entry: Entry): void {
    const lane = laneKey(entry.errand.lane);
    const queued = this.#waiting.get(lane);
    queued?.delete(entry);
    if (queued?.size === 0) this.#waiting.delete(lane);
  }

  #start(): void {
    for (let entry = this.#next(); entry !== null; entry = this.#next()) void this.#run(entry);
  }

  #next(): Entry | null {
    if (this.#underWay.size >= this.#limits.total) return null;
    const underWay = [...this.#underWay].map(({ lane }) => lane);
    let next: Entry | null = null;
    let fewest = this.#limits.perTenant;
    for (const [entry] of this.#waiting.values()) {
      if (entry === undefined) continue;
      const { tenant, host } = entry.errand.lane;
      const ofHost = underWay.filter((lane) => lane.host === host).length;
      const ofTenant = underWay.filter((lane) => lane.tenant === tenant).length;
      if (ofHost >= this.#limits.perHost || ofTenant >= this.#limits.perTenant) continue;
      const isEarlier = next === null || entry.arrival < next.arrival;
      if (ofTenant > fewest || (ofTenant === fewest && !isEarlier)) continue;
      next = entry;
      fewest = ofTenant;
    }
    return next;
  }

  async #run(entry: Entry): Promise<void> {
    const { errand } = entry;
    entry.running = new AbortController();
    this.#leave(entry);
    this.#underWay.add(errand);
    const result = errand.run(AbortSignal.any([errand.signal, entry.running.signal]));
    await Promise.allSettled([result]);
    this.#underWay.delete(errand);
    entry.result = result;
    if (this.#entries.get(idOf(errand.key, errand.kind)) === entry) this.#onAnswer(errand.key);
    this.#start();
  }
}

function laneKey({ tenant, host }: Lane): string {
  return `${tenant} ${host}`;
}

function idOf(key: string, kind: string): string {
  return `${key} ${kind}`;
}
