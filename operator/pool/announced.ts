import type { ServerPool } from '../api/server-pool.ts';
import { keyOf } from '../kube/resource.ts';

/** What people have been told of one pool. */
export interface Announced {
  readonly uid: string;
  /** The reason of Ready. */
  ready: string | null;
  unmanaged: string | null;
}

/** By pool key; a pool that was made again under one name starts anew. */
export type Announcements = Map<string, Announced>;

export function announcedOf(announcements: Announcements, pool: ServerPool): Announced {
  const uid = pool.metadata.uid ?? '';
  const known = announcements.get(keyOf(pool));
  if (known?.uid === uid) return known;
  const announced = { uid, ready: null, unmanaged: null };
  announcements.set(keyOf(pool), announced);
  return announced;
}
