import { type LoraAdapter, servedNameOf } from '../api/lora-adapter.ts';
import { askedBy, boundsOf, nextPace, type Pace, paceDueMs } from '../placement/pace.ts';
import type { Pod } from '../pods/pod.ts';

/** How many pods the adapters of a pool have by traffic. */
export interface Paces {
  /** By the uid of their objects. */
  byId: ReadonlyMap<string, Pace>;
  /** When to look again though nothing changes, monotonic; null: not at all. */
  dueMs: number | null;
}

/** Requests in a minute by served name, as a pod that can be reached reports them. */
export function trafficOf({ state, reachable }: Pod): ReadonlyMap<string, number> {
  const traffic = new Map<string, number>();
  if (!reachable) return traffic;
  for (const { name, requestsPerMinute = 0 } of state?.adapters ?? []) {
    if (requestsPerMinute > 0) traffic.set(name, requestsPerMinute);
  }
  return traffic;
}

/** Carried on from before; of an adapter that is new here, from the number of pods that hold it. */
export function pacesOf(
  adapters: readonly LoraAdapter[],
  traffic: readonly ReadonlyMap<string, number>[],
  {
    before,
    heldBy,
    nowMs,
  }: { before: Paces | undefined; heldBy: (adapter: LoraAdapter) => number; nowMs: number },
): Paces {
  const byTraffic = adapters.filter(({ spec }) => spec.placement?.mode === 'Auto');
  const totals = new Map(
    byTraffic.map((adapter) => {
      const name = servedNameOf(adapter);
      return [name, traffic.reduce((sum, each) => sum + (each.get(name) ?? 0), 0)];
    }),
  );
  const all = [...totals.values()].reduce((sum, each) => sum + each, 0);
  const byId = new Map<string, Pace>();
  let dueMs = Number.POSITIVE_INFINITY;
  for (const adapter of byTraffic) {
    const { uid = '' } = adapter.metadata;
    const pace = before?.byId.get(uid) ?? { pods: heldBy(adapter), grownMs: null, fewer: null };
    const bounds = boundsOf(adapter.spec.placement, traffic.length);
    const demand = { own: totals.get(servedNameOf(adapter)) ?? 0, all };
    const asked = askedBy(bounds, demand, [pace.pods, traffic.length]);
    const next = nextPace(pace, asked, bounds, nowMs);
    byId.set(uid, next);
    dueMs = Math.min(dueMs, paceDueMs(next, asked) ?? dueMs);
  }
  return { byId, dueMs: Number.isFinite(dueMs) ? dueMs : null };
}
