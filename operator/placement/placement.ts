import type { Geometry } from '../../server/contract/adapter-api.ts';
import type { LoraAdapterSpec } from '../api/lora-adapter.ts';
import { quantityBytes } from '../api/quantity.ts';
import type { ServerPool } from '../api/server-pool.ts';
import type { Pod } from '../pods/pod.ts';
import type { Share } from './assign.ts';
import type { Site } from './claim.ts';
import { shortageText } from './explain.ts';

export interface Placement {
  /** Pods that have the base model of the pool; one that has not reported yet is among them. */
  members: Pod[];
  /** Those that should hold the adapter; of a pool as such, and of an adapter that goes everywhere, all. */
  desired: Pod[];
  /** That too few pods have room for it, and which; null: it has all that it asks for. */
  shortage: string | null;
  /** Pods that report another base model than the pool is about: left alone. */
  mismatched: Pod[];
  /** What an adapter must fit; null until a desired pod has reported. */
  fit: { geometry: Geometry; maxRank: number } | null;
  maxBytes: number;
}

const NOWHERE: Placement = {
  members: [],
  desired: [],
  shortage: null,
  mismatched: [],
  fit: null,
  maxBytes: Number.MAX_SAFE_INTEGER,
};

/** Where one adapter goes and what it must fit; `spec` is null where the object's cannot be read. */
export function placementFor(
  spec: LoraAdapterSpec | null,
  pool: ServerPool | null,
  pods: readonly Pod[],
): Placement {
  if (pool === null) return NOWHERE;
  const placement = placementOf(pool, pods);
  const { maxBytes } = spec?.source.push ?? {};
  if (maxBytes === undefined) return placement;
  return { ...placement, maxBytes: Math.min(placement.maxBytes, quantityBytes(maxBytes)) };
}

/** The same for an adapter that goes to these of the pool's pods. */
export function narrowed(placement: Placement, share: Share, sites: readonly Site[]): Placement {
  if (share.claim.mode === 'All') return placement;
  const desired = placement.members.filter(({ uid }) => share.pods.has(uid));
  return { ...placement, desired, shortage: shortageText(share, sites) };
}

/** Splits a pool's pods by their base model and takes the narrowest of all limits. */
export function placementOf(pool: ServerPool, pods: readonly Pod[]): Placement {
  const digest = pool.spec.baseModel.digest ?? commonestDigest(pool, pods);
  const fits = (pod: Pod) =>
    pod.state === null ||
    (pod.state.baseModel.name === pool.spec.baseModel.name && pod.state.baseModel.digest === digest);
  const members = pods.filter(fits);
  const mismatched = pods.filter((pod) => !fits(pod));
  const states = members.flatMap((pod) => (pod.state ? [pod.state] : []));
  const { maxRank, maxAdapterBytes } = pool.spec.limits;
  const ranks = states.map((state) => state.limits.maxRank);
  const sizes = states.map((state) => state.limits.maxAdapterBytes);
  const geometry = states[0]?.baseModel.geometry;
  return {
    members,
    desired: members,
    shortage: null,
    mismatched,
    fit: geometry ? { geometry, maxRank: Math.min(...ranks, maxRank ?? Number.POSITIVE_INFINITY) } : null,
    maxBytes: Math.min(...sizes, maxAdapterBytes ? quantityBytes(maxAdapterBytes) : Number.MAX_SAFE_INTEGER),
  };
}

/** Where the pool names no digest: that of most pods with the right name; of equally many, the smallest. */
function commonestDigest(pool: ServerPool, pods: readonly Pod[]): string | null {
  const counts = new Map<string, number>();
  for (const { state } of pods) {
    if (state?.baseModel.name !== pool.spec.baseModel.name) continue;
    counts.set(state.baseModel.digest, (counts.get(state.baseModel.digest) ?? 0) + 1);
  }
  const ranked = [...counts].sort(([a, n], [b, m]) => m - n || (a < b ? -1 : 1));
  return ranked[0]?.[0] ?? null;
}
