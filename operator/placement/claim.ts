import type { PlacementSpec } from '../api/lora-adapter.ts';
import { replicasOf } from '../api/quantity.ts';

/** A pod as placement sees it. */
export interface Site {
  /** Its uid. */
  id: string;
  name: string;
  /** Of the label topology.kubernetes.io/zone; null where the pod has none. */
  zone: string | null;
  slots: number;
  /** Host memory for the adapters that are placed; null: the pod does not report. */
  roomBytes: number | null;
}

/** An adapter as placement sees it: what it asks for, and what is so. */
export interface Claim extends Pick<PlacementSpec, 'mode' | 'replicas' | 'priority'> {
  /** The uid of its object. */
  id: string;
  spread: boolean;
  /** When the object was made: of equals the older comes first. */
  since: number;
  /** Host memory that a pod needs for it; 0: not known yet. */
  bytes: number;
  /** Requests per second. */
  traffic: number;
  /** Ids of pods that report that they hold it. */
  held: ReadonlySet<string>;
}

export interface Wanted {
  /** Fewer is a shortage. */
  least: number;
  /** More than least only where there is room. */
  target: number;
}

/** Above what its share of the traffic asks for, as a factor, an adapter by traffic keeps pods that it has. */
const KEPT_SHARE = 1.5;

/**
 * How many pods an adapter is to have. By traffic: its share of it, of all pods; more at once, fewer only when its share
 * times KEPT_SHARE asks for fewer than it has.
 */
export function wantedBy(
  claim: Claim,
  { pods, holders, traffic }: { pods: number; holders: number; traffic: number },
): Wanted {
  if (claim.mode === 'All') return { least: pods, target: pods };
  const least = replicasOf(claim.replicas ?? 1, pods);
  if (claim.mode === 'Fixed') return { least, target: least };
  const share = traffic > 0 ? (claim.traffic / traffic) * pods : 0;
  const within = (replicas: number) => Math.max(least, Math.min(pods, Math.ceil(replicas)));
  const up = within(share);
  return { least, target: Math.max(up, Math.min(within(share * KEPT_SHARE), holders)) };
}

/** Who gets room first: the higher priority, then the older object. */
export function byPrecedence(a: Claim, b: Claim): number {
  return b.priority - a.priority || a.since - b.since || (a.id < b.id ? -1 : 1);
}
