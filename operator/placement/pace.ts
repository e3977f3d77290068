import type { PlacementSpec } from '../api/lora-adapter.ts';
import { replicasOf } from '../api/quantity.ts';

/** Above what its share of the traffic asks for, as a factor, an adapter keeps pods that it has. */
const KEPT_SHARE = 1.5;
/** After one step up it has so many times the pods that it had at most, and the next step comes after the pause. */
const GROWTH = 2;
const GROWTH_PAUSE_MS = 30_000;
/** For how long it must have asked for fewer before it has fewer. */
const SHRINK_AFTER_MS = 300_000;

/** How many pods an adapter by traffic has, and what is to become of that. Times are monotonic. */
export interface Pace {
  pods: number;
  /** When it last got more; null: not yet. */
  grownMs: number | null;
  /** Since when it asks for fewer, and the most that it asked for since; null: it does not. */
  fewer: { sinceMs: number; most: number } | null;
}

/** Numbers of pods between which traffic decides; where they contradict each other the least counts. */
export interface Bounds {
  least: number;
  most: number;
}

/** Requests in a minute: the adapter's, and those of all that are placed by traffic. */
export interface Demand {
  own: number;
  all: number;
}

export function boundsOf(
  { replicas = 1, maxReplicas = '100%' }: Pick<PlacementSpec, 'replicas' | 'maxReplicas'>,
  pods: number,
): Bounds {
  const least = replicasOf(replicas, pods);
  return { least, most: Math.max(least, replicasOf(maxReplicas, pods)) };
}

/** How many of `pods` its share of the traffic asks for; what it `has`, where that is not far off. */
export function askedBy(
  { least, most }: Bounds,
  { own, all }: Demand,
  [has, pods]: [number, number],
): number {
  const share = all > 0 ? (own / all) * pods : 0;
  const asked = Math.max(Math.ceil(share), Math.min(has, Math.ceil(share * KEPT_SHARE)));
  return Math.max(least, Math.min(most, asked));
}

/**
 * The next of a pace where traffic asks for so many pods, which is within the bounds. Pure.
 *
 *   asked | then
 *   ------|-------------------------------------------------------------------------------
 *   more  | at once, but at most twice as many, and the next step after half a minute
 *   same  | nothing
 *   fewer | once it has been fewer for five minutes: the most that was asked for meanwhile
 *
 * So in five minutes an adapter has fewer pods once at most, however its traffic jumps. New bounds count at once.
 */
export function nextPace(pace: Pace, asked: number, { least, most }: Bounds, nowMs: number): Pace {
  const pods = Math.max(least, Math.min(most, pace.pods));
  const { grownMs, fewer } = pace;
  if (asked < pods) return shrinking({ pods, grownMs, fewer }, asked, nowMs);
  if (asked === pods || (grownMs !== null && nowMs < grownMs + GROWTH_PAUSE_MS)) {
    return { pods, grownMs, fewer: null };
  }
  return { pods: Math.min(asked, Math.max(1, pods * GROWTH)), grownMs: nowMs, fewer: null };
}

function shrinking(pace: Pace, asked: number, nowMs: number): Pace {
  const { sinceMs, most } = pace.fewer ?? { sinceMs: nowMs, most: asked };
  const left = Math.max(most, asked);
  if (nowMs < sinceMs + SHRINK_AFTER_MS) return { ...pace, fewer: { sinceMs, most: left } };
  return { ...pace, pods: left, fewer: asked < left ? { sinceMs: nowMs, most: asked } : null };
}

/** When the pace may change though nothing else does; null: then it does not. */
export function paceDueMs({ pods, grownMs, fewer }: Pace, asked: number): number | null {
  if (fewer !== null) return fewer.sinceMs + SHRINK_AFTER_MS;
  return asked > pods && grownMs !== null ? grownMs + GROWTH_PAUSE_MS : null;
}
