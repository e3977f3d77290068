import { assign, type Share } from './assign.ts';
import type { Claim, Site } from './claim.ts';

/** Where adapters are placed, and what room that leaves. */
export interface Answer {
  byId: Map<string, Share>;
  sites: readonly Site[];
  /** By place in `sites`, after all had their turn. */
  leftBytes: Float64Array;
  /** Somebody has fewer pods than it asks for. */
  lacks: boolean;
}

export function answerOf(claims: readonly Claim[], sites: readonly Site[]): Answer {
  const byId = assign(claims, sites);
  const shares = [...byId.values()];
  const afterEach = [...new Set(shares.map(({ freeBytes }) => freeBytes))];
  const leftBytes = Float64Array.from(sites, (_, at) => Math.min(...afterEach.map((free) => free[at] ?? 0)));
  return { byId, sites, leftBytes, lacks: shares.some(({ pods, least }) => pods.size < least) };
}

/**
 * Takes note that an adapter needs more room, where that moves nobody: all have what they ask for, and each of its pods
 * has so much left. Then all keep their pods, and with less room left nobody goes anywhere that it did not go before.
 * False: the answer may be another. What shares say of free room stays behind.
 */
export function absorb({ byId, sites, leftBytes, lacks }: Answer, id: string, bytes: number): boolean {
  const share = byId.get(id);
  const more = bytes - (share?.claim.bytes ?? Number.POSITIVE_INFINITY);
  if (share === undefined || lacks || !(more >= 0)) return false;
  const places = sites.flatMap((site, at) => (share.pods.has(site.id) ? [at] : []));
  const hasRoom = (at: number) => sites[at]?.roomBytes !== null && (leftBytes[at] as number) >= more;
  if (!places.every(hasRoom)) return false;
  for (const at of places) leftBytes[at] = (leftBytes[at] as number) - more;
  byId.set(id, { ...share, claim: { ...share.claim, bytes } });
  return true;
}
