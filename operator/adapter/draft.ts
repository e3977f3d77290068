import type { Condition, Reason } from '../api/conditions.ts';
import { type AdapterConditionType, findCondition, setCondition } from '../api/conditions.ts';
import {
  type LoraAdapter,
  LoraAdapterSpec,
  type LoraAdapterStatus,
  servedNameOf,
} from '../api/lora-adapter.ts';
import { poolKeyOf } from '../api/names.ts';
import type { ServerPool } from '../api/server-pool.ts';
import { keyOf } from '../kube/resource.ts';
import { type Placement, placementOf } from '../placement/placement.ts';
import type { AdapterDeps } from './deps.ts';
import type { Failure } from './failures.ts';
import { plan, type Row } from './plan.ts';
import type { AdapterRecord } from './record.ts';

/** One look at one adapter: what stages read, and the copy of status that they write. */
export interface Draft {
  readonly adapter: LoraAdapter;
  readonly key: string;
  readonly servedName: string;
  readonly poolKey: string;
  readonly pool: ServerPool | null;
  readonly placement: Placement;
  readonly record: AdapterRecord;
  readonly generation: number;
  status: LoraAdapterStatus;
  /** The adapter has pods, and its name in them. */
  isPlaced: boolean;
  /** Why the revision could not be brought to any pod. */
  loadFailure: Failure | null;
  /** When to look again at the latest; null: when something changes. */
  againMs: number | null;
}

export interface StageOutcome {
  /** False: the stages after this one have nothing to go on yet. */
  next: boolean;
}

export interface Stage {
  condition: Exclude<AdapterConditionType, 'Ready'>;
  /** Whether it only looks, so that it runs while spec.suspend is set. */
  whenSuspended: boolean;
  run(draft: Draft, deps: AdapterDeps, signal: AbortSignal): Promise<StageOutcome>;
}

export const NEXT: StageOutcome = { next: true };
export const STOP: StageOutcome = { next: false };

export function openDraft(deps: AdapterDeps, adapter: LoraAdapter): Draft {
  const poolKey = poolKeyOf(adapter);
  const pool = deps.pools.get(poolKey) ?? null;
  const pods = deps.fleet.podsOf(poolKey);
  const nowhere = { desired: [], mismatched: [], fit: null, maxBytes: Number.MAX_SAFE_INTEGER };
  const spec = LoraAdapterSpec.safeParse(adapter.spec);
  return {
    // Defaults are filled in here too: the object may be older than the field.
    adapter: spec.success ? { ...adapter, spec: spec.data } : adapter,
    key: keyOf(adapter),
    servedName: servedNameOf(adapter),
    poolKey,
    pool,
    placement: pool === null ? nowhere : placementOf(pool, pods),
    record: deps.records.of(keyOf(adapter), adapter.metadata.uid ?? ''),
    generation: adapter.metadata.generation ?? 0,
    status: { ...adapter.status },
    isPlaced: false,
    loadFailure: null,
    againMs: null,
  };
}

export function lookAgain(draft: Draft, afterMs: number): void {
  draft.againMs = Math.min(draft.againMs ?? Number.POSITIVE_INFINITY, Math.max(1, afterMs));
}

export interface ConditionWords {
  status: Condition['status'];
  reason: Reason;
  message?: string;
}

export function mark(
  draft: Draft,
  deps: AdapterDeps,
  type: AdapterConditionType,
  { status, reason, message }: ConditionWords,
): void {
  draft.status.conditions = setCondition(draft.status.conditions ?? [], {
    type,
    status,
    reason,
    observedGeneration: draft.generation,
    now: deps.clock.date(),
    ...(message === undefined ? {} : { message }),
  });
}

export function conditionOf(
  draft: Draft,
  type: AdapterConditionType,
): Condition<AdapterConditionType> | undefined {
  return findCondition(draft.status.conditions, type);
}

/** The plan as things stand at this moment. */
export function rowsOf(draft: Draft, deps: AdapterDeps): Row[] {
  const { record, placement, servedName } = draft;
  const digest = record.target?.digest ?? null;
  return plan({
    servedName,
    digest,
    pods: placement.desired,
    attemptOf: (pod) => record.attemptOf(pod.uid),
    refusedSomewhere:
      digest !== null && record.refusalOf(digest) !== null && record.current?.digest !== digest,
    nowMs: deps.clock.monotonicMs(),
  });
}
