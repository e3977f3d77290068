import { shortageText } from '../placement/explain.ts';
import type { Shortage } from '../pods/pod.ts';
import type { AdapterDeps } from './deps.ts';

/** Adapters of a pool that have fewer pods than they ask for for want of room, by the name of their object. */
export function shortagesIn(deps: AdapterDeps, poolKey: string): Shortage[] {
  const shares = deps.places.of(deps, poolKey);
  if (shares === null) return [];
  return [...shares.byId].flatMap(([id, share]) => {
    const why = share.claim.mode === 'All' ? null : shortageText(share, shares.sites);
    const name = shares.keys.get(id)?.split('/')[1] ?? id;
    return why === null ? [] : [{ name, why }];
  });
}
