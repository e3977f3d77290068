import { quantityBytes } from '../api/quantity.ts';
import type { TenantQuota } from '../api/server-pool.ts';

/** What one adapter of a namespace has in a pool, and what it wants there. */
export interface Claim {
  uid: string;
  /** RFC 3339; the older comes first. */
  createdAt: string;
  /** Of the revision that pods serve; null: none yet. */
  servedBytes: number | null;
  /** Of the revision that they should serve; 0 where it is not known yet. */
  wantedBytes: number;
}

export interface Excess {
  limit: 'adapters' | 'bytes';
  max: number;
  /** By what comes before. */
  used: number;
  wanted: number;
}

/**
 * Which claims are beyond what their namespace may have. Who serves keeps what it serves before anybody gets more; then
 * the older come first, and one that does not fit leaves its place to those that do. So nobody is pushed out by
 * another's growth, and a newcomer changes nothing for anybody. Pure.
 */
export function beyondQuota(claims: readonly Claim[], quota: TenantQuota): Map<string, Excess> {
  const adaptersMax = quota.adapters ?? Number.POSITIVE_INFINITY;
  const bytesMax = quota.bytes === undefined ? Number.POSITIVE_INFINITY : quantityBytes(quota.bytes);
  const beyond = new Map<string, Excess>();
  let adapters = 0;
  let bytes = 0;
  const take = (uid: string, wanted: { adapters: number; bytes: number }) => {
    if (adapters + wanted.adapters > adaptersMax)
      beyond.set(uid, { limit: 'adapters', max: adaptersMax, used: adapters, wanted: 1 });
    else if (bytes + wanted.bytes > bytesMax)
      beyond.set(uid, { limit: 'bytes', max: bytesMax, used: bytes, wanted: wanted.bytes });
    else {
      adapters += wanted.adapters;
      bytes += wanted.bytes;
    }
  };
  const ordered = claims.toSorted(byAge);
  for (const { uid, servedBytes } of ordered) {
    if (servedBytes !== null) take(uid, { adapters: 1, bytes: servedBytes });
  }
  for (const { uid, servedBytes, wantedBytes } of ordered) {
    if (servedBytes === null) take(uid, { adapters: 1, bytes: wantedBytes });
    else if (wantedBytes > servedBytes && !beyond.has(uid))
      take(uid, { adapters: 0, bytes: wantedBytes - servedBytes });
  }
  return beyond;
}

function byAge(a: Claim, b: Claim): number {
  const age = Date.parse(a.createdAt) - Date.parse(b.createdAt);
  return age !== 0 ? age : a.uid < b.uid ? -1 : 1;
}

const MINUTE_MS = 60_000;

/**
 * Whether one more push may begin after those at `times`, oldest first: at most `max` in any minute. `waitMs` is zero
 * where it may; `times` are what to remember. Pure.
 */
export function nextPush(
  times: readonly number[],
  max: number,
  nowMs: number,
): { times: number[]; waitMs: number } {
  const recent = times.filter((atMs) => atMs > nowMs - MINUTE_MS);
  if (recent.length < max) return { times: [...recent, nowMs], waitMs: 0 };
  const blocking = recent[recent.length - max] as number;
  return { times: recent, waitMs: blocking + MINUTE_MS - nowMs };
}
