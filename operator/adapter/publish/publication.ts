import type { Fence, Geometry } from '../../../server/contract/adapter-api.ts';
import type { LorikeetError } from '../../../server/contract/errors.ts';
import type { LoraAdapter } from '../../api/lora-adapter.ts';
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
  /** adapter_config.json of the last push, for pushes that bring none. */
  config: unknown | null;
  /** What pods are shown with its bytes. */
  fence: Fence;
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

export interface PublishResult {
  revision: string;
  step: number | null;
  bytes: number;
  /** True where the digest was current already. */
  noop: boolean;
  pods: { name: string; state: 'active' | 'staged' | 'failed'; ms: number; error?: unknown }[];
  swap: { durationMs: number; skewMs: number } | null;
}
