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
  /** Which part of its KV blocks is free, 0 to 1; 1 where the pod does not tell. It decides where an adapter goes, never that it goes. */
  kvFree: number;
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
  /** Of mode Auto: how many pods its traffic asks for, which come on top of its least. */
  byTraffic: number;
  /** Ids of pods that report that they hold it. */
  held: ReadonlySet<string>;
}

export interface Wanted {
  /** Fewer is a shortage. */
  least: number;
  /** More than least only where there is room. */
  target: number;
}

/** How many of `pods` an adapter is to have. */
export function wantedBy(claim: Claim, pods: number): Wanted {
  if (claim.mode === 'All') return { least: pods, target: pods };
  const least = replicasOf(claim.replicas ?? 1, pods);
  return { least, target: claim.mode === 'Fixed' ? least : Math.max(least, claim.byTraffic) };
}

/** Who gets room first: the higher priority, then the older object. */
export function byPrecedence(a: Claim, b: Claim): number {
  return b.priority - a.priority || a.since - b.since || (a.id < b.id ? -1 : 1);
}
