import type { AdapterState, PodState } from '../contract/adapter-api.ts';
import type { Adapter, Adapters } from './adapters.ts';
import type { Load } from './load.ts';
import {
  changedSlots,
  describeAdapter,
  describeTotals,
  type PodFacts,
  type PodTotals,
  type Slots,
  slotsOf,
} from './pod-state.ts';

export interface PodReportOptions {
  pod: PodFacts;
  adapters: Adapters;
  load: Load;
}

/** What the admin API says of the pod: whole, or of one name, for whoever remembers which names may have changed. */
export class PodReport {
  readonly #options: PodReportOptions;
  readonly #listeners: ((name: string) => void)[] = [];
  /** As they were at the last look. */
  #slots: Slots = new Map();

  constructor(options: PodReportOptions) {
    this.#options = options;
    options.adapters.onTouched((name) => this.#touch(name));
  }

  state(): PodState {
    const { pod, adapters, load } = this.#options;
    const snapshot = load.engine.snapshot();
    const slots = slotsOf(snapshot);
    return {
      ...describeTotals(pod, load, snapshot),
      adapters: adapters.all().map((adapter) => this.#describe(adapter, slots)),
    };
  }

  /** Looks at the engine, and tells of names whose slots are not as they were at the look before. */
  look(): PodTotals {
    const { pod, adapters, load } = this.#options;
    const snapshot = load.engine.snapshot();
    const slots = slotsOf(snapshot);
    for (const revision of changedSlots(this.#slots, slots)) {
      for (const { name } of adapters.having(revision)) this.#touch(name);
    }
    this.#slots = slots;
    return describeTotals(pod, load, snapshot);
  }

  names(): string[] {
    return this.#options.adapters.all().map(({ name }) => name);
  }

  /** As of the last look; null where there is none of that name. */
  adapter(name: string): AdapterState | null {
    const adapter = this.#options.adapters.find(name);
    return adapter === undefined ? null : this.#describe(adapter, this.#slots);
  }

  /** Calls the listener with each name of which `adapter` may say something else than before; it must not throw. */
  onTouched(listener: (name: string) => void): void {
    this.#listeners.push(listener);
  }

  /** Ends a tick of the load. True where what is told of it has moved. */
  tick(): boolean {
    const { moved, names } = this.#options.load.tick();
    for (const name of names) this.#touch(name);
    return moved;
  }

  #describe(adapter: Adapter, slots: Slots): AdapterState {
    return describeAdapter(adapter, slots, this.#options.load.traffic.perMinute(adapter.name));
  }

  #touch(name: string): void {
    for (const listener of this.#listeners) listener(name);
  }
}
