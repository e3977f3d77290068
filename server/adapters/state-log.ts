import type { PodChanges, PodState } from '../contract/adapter-api.ts';

/** Names that changed and are remembered, gone ones included. */
const NAMES_MAX = 4_096;

export interface StateLogOptions {
  state(): PodState;
  namesMax?: number;
}

/**
 * What of the pod's state changed since any earlier moment. A moment is a sequence number; of each name only its last
 * change counts, so that a watch that was away or reads slowly is given the sum of what it missed.
 */
export class StateLog {
  readonly #options: StateLogOptions;
  readonly #namesMax: number;
  /** Each adapter as it was written last. */
  #texts = new Map<string, string>();
  /** By name, the sequence of its last change; the latest last. */
  readonly #changedAt = new Map<string, number>();
  #state: PodState | null = null;
  #totals = '';
  #sequence = 0;
  /** Changes up to here may be forgotten. */
  #forgotten = 0;
  #isStale = true;

  constructor(options: StateLogOptions) {
    this.#options = options;
    this.#namesMax = options.namesMax ?? NAMES_MAX;
  }

  /** The pod's state may have changed. */
  invalidate(): void {
    this.#isStale = true;
  }

  get sequence(): number {
    this.#refresh();
    return this.#sequence;
  }

  get state(): PodState {
    return this.#refresh();
  }

  /** Of an event that leaves its reader at this moment. */
  get id(): string {
    const { bootId } = this.state;
    return `${bootId}.${this.#sequence}`;
  }

  /** The moment of an event's id; null where it is of another process, or none. */
  momentOf(id: string): number | null {
    const { bootId } = this.state;
    const digits = id.startsWith(`${bootId}.`) ? id.slice(bootId.length + 1) : '';
    return /^\d{1,15}$/.test(digits) ? Number(digits) : null;
  }

  /** Null where it is not known any more what has changed since. */
  since(moment: number): PodChanges | null {
    const { adapters, used, epoch, seeded } = this.state;
    if (moment < this.#forgotten || moment > this.#sequence) return null;
    const names = new Set<string>();
    for (const [name, sequence] of this.#changedAt) if (sequence > moment) names.add(name);
    const removed = [...names].filter((name) => !this.#texts.has(name));
    return { adapters: adapters.filter(({ name }) => names.has(name)), removed, used, epoch, seeded };
  }

  #refresh(): PodState {
    if (!this.#isStale && this.#state !== null) return this.#state;
    this.#isStale = false;
    const state = this.#options.state();
    const texts = new Map(state.adapters.map((adapter) => [adapter.name, JSON.stringify(adapter)]));
    const totals = JSON.stringify([state.used, state.epoch, state.seeded]);
    const changed = [...texts.keys()].filter((name) => texts.get(name) !== this.#texts.get(name));
    const removed = [...this.#texts.keys()].filter((name) => !texts.has(name));
    if (changed.length + removed.length > 0 || totals !== this.#totals) this.#sequence += 1;
    for (const name of [...changed, ...removed]) this.#note(name);
    this.#state = state;
    this.#texts = texts;
    this.#totals = totals;
    return state;
  }

  #note(name: string): void {
    this.#changedAt.delete(name);
    this.#changedAt.set(name, this.#sequence);
    const [oldest] = this.#changedAt;
    if (this.#changedAt.size <= this.#namesMax || oldest === undefined) return;
    this.#changedAt.delete(oldest[0]);
    this.#forgotten = oldest[1];
  }
}
