import type { AdapterState, PodChanges, PodState } from '../contract/adapter-api.ts';
import type { PodTotals } from './pod-state.ts';

/** Names that changed and are remembered, gone ones included. */
const NAMES_MAX = 4_096;

/** See PodReport. */
export interface Reported {
  look(): PodTotals;
  names(): Iterable<string>;
  adapter(name: string): AdapterState | null;
  onTouched(listener: (name: string) => void): void;
}

export interface StateLogOptions {
  report: Reported;
  namesMax?: number;
}

interface Entry {
  name: string;
  sequence: number;
}

/**
 * What of the pod's state changed since any earlier moment. A moment is a sequence number; of each name only its last
 * change counts, so that a watch that was away or reads slowly is given the sum of what it missed. What a change costs
 * goes by the names that it touched, not by how many the pod has.
 */
export class StateLog {
  readonly #report: Reported;
  readonly #namesMax: number;
  /** As they were at the last look. */
  readonly #adapters = new Map<string, AdapterState>();
  /** Names that may not be so any more; null: any of them. */
  #touched: Set<string> | null = null;
  /** By name, the sequence of its last change; the latest last. */
  readonly #changedAt = new Map<string, number>();
  /** The same, so that it can be read from its end; and changes that are not the last of their name any more. */
  #entries: Entry[] = [];
  #totals: PodTotals | null = null;
  #sequence = 0;
  /** Changes up to here may be forgotten. */
  #forgotten = 0;
  #isStale = true;

  constructor({ report, namesMax = NAMES_MAX }: StateLogOptions) {
    this.#report = report;
    this.#namesMax = namesMax;
    report.onTouched((name) => {
      this.#touched?.add(name);
      if ((this.#touched?.size ?? 0) > namesMax) this.#touched = null;
    });
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
    const totals = this.#refresh();
    return { ...totals, adapters: [...this.#adapters.values()] };
  }

  /** Of an event that leaves its reader at this moment. */
  get id(): string {
    const { bootId } = this.#refresh();
    return `${bootId}.${this.#sequence}`;
  }

  /** The moment of an event's id; null where it is of another process, or none. */
  momentOf(id: string): number | null {
    const { bootId } = this.#refresh();
    const digits = id.startsWith(`${bootId}.`) ? id.slice(bootId.length + 1) : '';
    return /^\d{1,15}$/.test(digits) ? Number(digits) : null;
  }

  /** Null where it is not known any more what has changed since. */
  since(moment: number): PodChanges | null {
    const { used, epoch, seeded } = this.#refresh();
    if (moment < this.#forgotten || moment > this.#sequence) return null;
    const first = this.#entries.findLastIndex(({ sequence }) => sequence <= moment) + 1;
    const names = new Set(this.#entries.slice(first).map(({ name }) => name));
    const adapters = [...names].flatMap((name) => this.#adapters.get(name) ?? []);
    const removed = [...names].filter((name) => !this.#adapters.has(name));
    return { adapters, removed, used, epoch, seeded };
  }

  #refresh(): PodTotals {
    if (!this.#isStale && this.#totals !== null) return this.#totals;
    this.#isStale = false;
    const totals = this.#report.look();
    const touched = this.#touched ?? new Set([...this.#adapters.keys(), ...this.#report.names()]);
    this.#touched = new Set();
    const changed = [...touched].filter((name) => this.#follow(name));
    if (changed.length > 0 || !isSame(totals, this.#totals)) this.#sequence += 1;
    for (const name of changed) this.#note(name);
    this.#totals = totals;
    return totals;
  }

  /** Whether it is not as it was. */
  #follow(name: string): boolean {
    const next = this.#report.adapter(name);
    const before = this.#adapters.get(name) ?? null;
    if (JSON.stringify(next) === JSON.stringify(before)) return false;
    if (next === null) this.#adapters.delete(name);
    else this.#adapters.set(name, next);
    return true;
  }

  #note(name: string): void {
    this.#changedAt.delete(name);
    this.#changedAt.set(name, this.#sequence);
    this.#entries.push({ name, sequence: this.#sequence });
    const [oldest] = this.#changedAt;
    if (this.#changedAt.size > this.#namesMax && oldest !== undefined) {
      this.#changedAt.delete(oldest[0]);
      this.#forgotten = oldest[1];
    }
    if (this.#entries.length > 2 * this.#namesMax) {
      this.#entries = this.#entries.filter((entry) => this.#changedAt.get(entry.name) === entry.sequence);
    }
  }
}

function isSame(totals: PodTotals, before: PodTotals | null): boolean {
  const text = (of: PodTotals | null) => of && JSON.stringify([of.used, of.epoch, of.seeded]);
  return text(totals) === text(before);
}
