import type { AdapterConditionType, ProgressType } from '../api/conditions.ts';
import { type LoraAdapter, LoraAdapterSpec, servedNameOf } from '../api/lora-adapter.ts';
import { poolKeyOf } from '../api/names.ts';
import type { ServerPool } from '../api/server-pool.ts';
import { keyOf } from '../kube/resource.ts';
import { narrowed, type Placement, placementFor } from '../placement/placement.ts';
import type { Standing } from '../placement/tenancy.ts';
import type { AdapterDeps } from './deps.ts';
import type { AdapterRecord } from './record.ts';
import type { Verdict } from './status.ts';

/** One look at one adapter: what its phases go by. */
export interface Draft {
  readonly adapter: LoraAdapter;
  readonly key: string;
  readonly servedName: string;
  readonly poolKey: string;
  /** Null where there is none, or none that the adapter may be in. */
  readonly pool: ServerPool | null;
  readonly standing: Standing;
  readonly placement: Placement;
  readonly record: AdapterRecord;
  /** When to look again at the latest; null: when something changes. */
  againMs: number | null;
  /** How long ago its source was asked what it has not answered yet; null: nothing is open. */
  askedMs: number | null;
  /** How old the question may be before status tells of it. */
  quietMs: number;
}

export type Judged = Exclude<AdapterConditionType, 'Ready' | ProgressType>;
export type Verdicts = Partial<Record<Judged, Verdict>>;

export interface PhaseOutcome {
  /** The words of the condition that the phase owns; null: nothing new is known. */
  verdict: Verdict | null;
  /** False: the phases after this one have nothing to go on yet. */
  next: boolean;
}

export interface Phase {
  condition: Judged;
  /** Whether it runs while spec.suspend is set: it only looks, or keeps up what is served. */
  whenSuspended: boolean;
  run(draft: Draft, deps: AdapterDeps, signal: AbortSignal): Promise<PhaseOutcome>;
}

export const NEXT: PhaseOutcome = { verdict: null, next: true };
export const STOP: PhaseOutcome = { verdict: null, next: false };

export function openDraft(deps: AdapterDeps, adapter: LoraAdapter): Draft {
  const poolKey = poolKeyOf(adapter);
  const standing = deps.standing(adapter);
  const pool = standing === 'allowed' ? (deps.pools.get(poolKey) ?? null) : null;
  const pods = pool === null ? [] : deps.fleet.podsOf(poolKey);
  const spec = LoraAdapterSpec.safeParse(adapter.spec);
  const everywhere = placementFor(spec.success ? spec.data : null, pool, pods);
  const shares = deps.places.of(deps, poolKey, adapter);
  const share = shares?.byId.get(adapter.metadata.uid ?? '');
  return {
    // Defaults are filled in here too: the object may be older than the field.
    adapter: spec.success ? { ...adapter, spec: spec.data } : adapter,
    key: keyOf(adapter),
    servedName: servedNameOf(adapter),
    poolKey,
    pool,
    placement: shares && share ? narrowed(everywhere, share, shares.sites) : everywhere,
    standing,
    record: deps.records.of(keyOf(adapter), adapter.metadata.uid ?? '', deps.spool),
    againMs: null,
    askedMs: null,
    quietMs: 0,
  };
}

export function lookAgain(draft: Draft, afterMs: number): void {
  draft.againMs = Math.min(draft.againMs ?? Number.POSITIVE_INFINITY, Math.max(1, afterMs));
}
