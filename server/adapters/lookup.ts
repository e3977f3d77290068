import { type Expectation, meetsExpectation } from '../contract/expectation.ts';
import type { AdapterEngine } from '../engine/port.ts';
import type { Adapters, Revision } from './adapters.ts';
import { findExpected, findPinned } from './adapters.ts';
import type { ChangeWaits } from './change-waits.ts';
import type { HostTier } from './host-tier.ts';
import { Load } from './load.ts';
import { adapterNotFound, revisionNotFound } from './refusals.ts';
import type { SlotTurns } from './slot-turns.ts';

export type ResolvedModel =
  | { kind: 'base' }
  | { kind: 'adapter'; name: string }
  | { kind: 'revision'; name: string; digest: string; step: number | null };

/** No revision that the request may run on. */
export interface Unmet {
  kind: 'unmet';
  /** What `model` stands for instead; null where it stands for nothing. */
  actual: { digest: string; step: number | null } | null;
  /** Whether an activation can bring one. */
  mayCome: boolean;
}

export interface LookupOptions {
  baseModelName: string;
  adapters: Adapters;
  tier: HostTier;
  turns: SlotTurns;
  changes: ChangeWaits;
  engine: AdapterEngine;
}

/** What requests ask of the pod's adapters: which revision a name means, and its turn for a slot. */
export class Lookup {
  readonly load: Load;
  readonly #options: LookupOptions;

  constructor(options: LookupOptions) {
    this.#options = options;
    this.load = new Load(options.engine);
  }

  /** Which target a request's `model` names: the base, an adapter, or a pinned revision `name@step-42`, `name@3fa9c1`. */
  resolve(model: string): ResolvedModel {
    if (model === this.#options.baseModelName) {
      const isShadowed = (this.#options.adapters.find(model)?.current ?? null) !== null;
      return isShadowed ? { kind: 'adapter', name: model } : { kind: 'base' };
    }
    const { adapters } = this.#options;
    // A name may have an @ of its own.
    const named = adapters.find(model);
    if (named !== undefined && named.current !== null) return { kind: 'adapter', name: model };
    const at = model.lastIndexOf('@');
    const [name, pin] = [model.slice(0, at), model.slice(at + 1)];
    const adapter = at < 0 ? undefined : adapters.find(name);
    if (adapter === undefined) throw adapterNotFound(model);
    const revision = findPinned(adapter, pin);
    if (revision === undefined) throw revisionNotFound(name, pin);
    return this.#pinned(name, revision);
  }

  /** The same for a request that runs on no other than the revision it expects: now, as it may be gone any time. */
  resolveExpected(model: string, expectation: Expectation): ResolvedModel | Unmet {
    if (model === this.#options.baseModelName) return { kind: 'base' };
    const adapter = this.#options.adapters.find(model);
    if (adapter === undefined && model.includes('@')) {
      const pinned = this.resolve(model);
      if (pinned.kind !== 'revision') return { kind: 'unmet', actual: null, mayCome: false };
      if (meetsExpectation(pinned, expectation)) return pinned;
      return { kind: 'unmet', actual: pinned, mayCome: false };
    }
    const revision = adapter === undefined ? undefined : findExpected(adapter, expectation);
    if (revision !== undefined) return this.#pinned(model, revision);
    const current = adapter?.revisions.get(adapter.current ?? '');
    return { kind: 'unmet', actual: current ?? null, mayCome: true };
  }

  /** The revision that a name means now; null where it is the base. */
  pin(model: string): { name: string; digest: string; step: number | null } | null {
    const resolved = this.resolve(model);
    if (resolved.kind === 'base') return null;
    if (resolved.kind === 'revision') return resolved;
    const { name } = resolved;
    const digest = this.#wanted(name, null);
    return { name, digest, step: this.describe(name, digest).step };
  }

  /** Resolves after the next change of names and revisions, and at the latest after `waitMs`. */
  nextChange(waitMs: number, signal: AbortSignal): Promise<void> {
    return this.#options.changes.next(waitMs, signal);
  }

  describe(name: string, digest: string): { name: string; revision: string; step: number | null } {
    const step = this.#options.adapters.find(name)?.revisions.get(digest)?.step ?? null;
    return { name, revision: digest, step };
  }

  /** Adapters that can be asked for, with their current revisions. `createdAt` in Unix seconds. */
  models(): { name: string; revision: string; step: number | null; createdAt: number; bytes: number }[] {
    return this.#options.adapters.all().flatMap(({ name, current, revisions }) => {
      const revision = current === null ? undefined : revisions.get(current);
      if (revision === undefined) return [];
      const { digest, step, createdAt, bytes } = revision;
      return [{ name, revision: digest, step, createdAt, bytes }];
    });
  }

  /** Resolves when a request for the current (null) or the named revision may be submitted. */
  enter(name: string, digest: string | null, signal: AbortSignal): Promise<void> {
    const wanted = this.#wanted(name, digest);
    this.load.traffic.count(name);
    return this.#options.turns.enter(wanted, signal);
  }

  /** Resolves once the current (null) or the named revision has come into a slot, or another one is current. */
  waitForSlot(name: string, digest: string | null, signal: AbortSignal): Promise<void> {
    return this.#options.turns.wait(this.#wanted(name, digest), signal);
  }

  #pinned(name: string, { digest, step }: Revision): Extract<ResolvedModel, { kind: 'revision' }> {
    this.#options.tier.touch(digest);
    return { kind: 'revision', name, digest, step };
  }

  #wanted(name: string, digest: string | null): string {
    const adapter = this.#options.adapters.find(name);
    const wanted = digest ?? adapter?.current ?? null;
    if (adapter === undefined || wanted === null) throw adapterNotFound(name);
    if (adapter.revisions.get(wanted)?.retired !== false) throw revisionNotFound(name, wanted);
    return wanted;
  }
}
