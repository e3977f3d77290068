import type { Fence, Geometry } from '../../../server/contract/adapter-api.ts';
import type { LorikeetError } from '../../../server/contract/errors.ts';
import type { LoraAdapter, RevisionRecord } from '../../api/lora-adapter.ts';
import type { Pod } from '../../pods/pod.ts';

/** What a push must fit, as it is at this moment. */
export interface PushContext {
  adapter: LoraAdapter;
  servedName: string;
  /** Desired and reachable. */
  pods: Pod[];
  geometry: Geometry;
  maxRank: number;
  maxBytes: number;
  desired: { digest: string; step: number | null } | null;
  /** What a rollback may go back to, newest first. */
  earlier: readonly RevisionRecord[];
  /** adapter_config.json of the last push, for pushes that bring none. */
  config: unknown | null;
  /** What pods are shown with its bytes. */
  fence: Fence;
}

/** What is known of an adapter's revisions, whether it may be pushed to or not. */
export interface Held extends Pick<PushContext, 'servedName' | 'desired' | 'earlier'> {
  /** Desired, and they have reported. */
  pods: Pod[];
}

export interface PodOutcome {
  pod: Pod;
  ok: boolean;
  error: LorikeetError | null;
  ms: number;
}

export interface Publication {
  namespace: string;
  name: string;
  /** Under which it is staged. */
  servedName: string;
  digest: string;
  step: number | null;
  bytes: number;
  rank: number;
  targetModules: string[];
  config: unknown;
  pushedBy: string;
  /** A digest, `*`, or null for no check. */
  ifMatch: string | null;
  staged: PodOutcome[];
  wait: 'staged' | 'active';
  signal: AbortSignal;
}

export interface Rollback {
  namespace: string;
  name: string;
  /** A digest or a step; undefined: the revision before the desired one. */
  to: string | number | undefined;
  /** A digest, or null for no check. */
  expectCurrent: string | null;
  askedBy: string;
  signal: AbortSignal;
}

export interface PublishResult {
  revision: string;
  step: number | null;
  bytes: number;
  /** True where the digest was current already. */
  noop: boolean;
  pods: { name: string; state: 'active' | 'staged' | 'failed'; ms: number; error?: unknown }[];
  swap: { durationMs: number; skewMs: number } | null;
}

export interface RollbackResult extends PublishResult {
  /** Desired before; the revision itself where nothing changed. */
  previous: string;
  /** What it took until the pods had the revision. */
  stageMs: number;
}
