import type { PlacementSpec } from '../api/lora-adapter.ts';
import { type Fit, fitsOf } from '../placement/explain.ts';
import type { AdapterDeps } from './deps.ts';
import { trafficOf } from './paces.ts';
import { placementRefusal } from './phases/place.ts';
import { holdersIn } from './places.ts';
import { openNamed } from './publish/pushable.ts';

export interface Why {
  servedName: string;
  /** `namespace/name` */
  pool: string;
  mode: PlacementSpec['mode'];
  priority: number;
  /** Of the pool's pods together, as they report it: what mode Auto goes by. */
  requestsPerMinute: number;
  /** How many pods it asks for, and how many it is placed on. */
  wanted: number;
  placed: number;
  /** Why it is placed on fewer; null: it is not. */
  refusal: { reason: string; message: string } | null;
  pods: (Fit | { pod: string; state: 'mismatched'; why: string })[];
}

/** What would fit where, and why not, as things stand. */
export function whyOf(deps: AdapterDeps, namespace: string, name: string): Why {
  const draft = openNamed(deps, namespace, name);
  const { adapter, servedName, poolKey, placement } = draft;
  const shares = deps.places.explain(deps, poolKey);
  const share = shares?.byId.get(adapter.metadata.uid ?? '');
  const held = holdersIn(placement.members).get(servedName) ?? new Set();
  const refused = placementRefusal(draft, deps);
  const short = placement.shortage === null ? null : { reason: 'NoRoom', message: placement.shortage };
  const others = placement.mismatched.map(({ name: pod }) => {
    return { pod, state: 'mismatched' as const, why: 'It has another base model than the pool.' };
  });
  return {
    ...{ servedName, pool: poolKey },
    mode: share?.claim.mode ?? 'All',
    priority: share?.claim.priority ?? 0,
    requestsPerMinute: placement.members.reduce((sum, pod) => sum + (trafficOf(pod).get(servedName) ?? 0), 0),
    wanted: share?.least ?? 0,
    placed: share?.pods.size ?? 0,
    refusal: refused === null ? short : { reason: refused.reason, message: refused.message },
    pods: [...(shares && share ? fitsOf(share, { sites: shares.sites, held }) : []), ...others],
  };
}
