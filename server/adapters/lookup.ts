import type { Adapters } from './adapters.ts';
import { findPinned } from './adapters.ts';
import type { HostTier } from './host-tier.ts';
import { adapterNotFound, revisionNotFound } from './refusals.ts';
import type { SlotTurns } from './slot-turns.ts';

export type ResolvedModel =
  | { kind: 'base' }
  | { kind: 'adapter'; name: string }
  | { kind: 'revision'; name: string; digest: string; step: number | null };

export interface LookupOptions {
  baseModelName: string;
  adapters: Adapters;
  tier: HostTier;
  turns: SlotTurns;
}

/** What requests ask of the pod's adapters: which revision a name means, and its turn for a slot. */
export class Lookup {
  readonly #options: LookupOptions;

  constructor(options: LookupOptions) {
    this.#options = options;
  }

  /** Which target a request's `model` names: the base, an adapter, or a pinned revision `name@step-42`, `name@3fa9c1`. */
  resolve(model: string): ResolvedModel {
    if (model === this.#options.baseModelName) return { kind: 'base' };
    const [name = '', ...pin] = model.split('@');
    const adapter = this.#options.adapters.find(name);
    if (adapter === undefined || (pin.length === 0 && adapter.current === null)) throw adapterNotFound(model);
    if (pin.length === 0) return { kind: 'adapter', name };
    const revision = findPinned(adapter, pin.join('@'));
    if (revision === undefined) throw revisionNotFound(name, pin.join('@'));
    this.#options.tier.touch(revision.digest);
    return { kind: 'revision', name, digest: revision.digest, step: revision.step };
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
    return this.#options.turns.enter(this.#wanted(name, digest), signal);
  }

  /** Resolves once the current (null) or the named revision has come into a slot, or another one is current. */
  waitForSlot(name: string, digest: string | null, signal: AbortSignal): Promise<void> {
    return this.#options.turns.wait(this.#wanted(name, digest), signal);
  }

  #wanted(name: string, digest: string | null): string {
    const adapter = this.#options.adapters.find(name);
    const wanted = digest ?? adapter?.current ?? null;
    if (adapter === undefined || wanted === null) throw adapterNotFound(name);
    if (adapter.revisions.get(wanted)?.retired !== false) throw revisionNotFound(name, wanted);
    return wanted;
  }
}
