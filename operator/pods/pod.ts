import type { PodState } from '../../server/contract/adapter-api.ts';
import type { PodClient } from './client.ts';

/** A server pod as the operator sees it now: observed, never remembered across its restarts. */
export interface Pod {
  /** `namespace/name` */
  key: string;
  name: string;
  namespace: string;
  uid: string;
  ip: string;
  poolKey: string;
  adminUrl: string;
  /** Of the label topology.kubernetes.io/zone; null or absent where the pod has none. */
  zone?: string | null;
  client: PodClient;
  /** The last that it reported; null until the first report. Trust it only while `reachable`. */
  state: PodState | null;
  reachable: boolean;
  /** Why it is not reachable; null where it is, or has only just begun to be followed. */
  error: string | null;
  /** The reason is that the operator has no admin token for it. */
  lacksToken?: boolean;
}

/** An adapter that a new pod still has to wait for. */
export interface Missing {
  name: string;
  /** Why the pod cannot hold it, though other pods of the pool serve it: a code of the contract. Null: it is on its way. */
  refusal: string | null;
}

/** An adapter that too few pods have room for. */
export interface Shortage {
  name: string;
  why: string;
}

/** What changed in a pod: served names, or everything (it came, went, restarted, or became (un)reachable). */
export interface FleetChange {
  poolKey: string;
  adapters: 'all' | string[];
  /** The pod has room that it had not: for those that wait for it. */
  freed?: boolean;
}

export function hasFreed(before: PodState['used'], after: PodState['used']): boolean {
  return after.slots < before.slots || after.pages < before.pages || after.hostBytes < before.hostBytes;
}

/** Served names whose revisions changed between two reports. Leases and tiers come and go without meaning here. */
export function changedAdapters(previous: PodState | null, next: PodState): 'all' | string[] {
  if (previous === null || previous.bootId !== next.bootId || previous.seeded !== next.seeded) return 'all';
  if (previous.baseModel.digest !== next.baseModel.digest) return 'all';
  const before = fingerprints(previous);
  const after = fingerprints(next);
  const names = new Set([...before.keys(), ...after.keys()]);
  return [...names].filter((name) => before.get(name) !== after.get(name));
}

function fingerprints(state: PodState): Map<string, string> {
  return new Map(
    state.adapters.map((adapter) => {
      const revisions = adapter.revisions.map((revision) => `${revision.digest} ${revision.state}`).sort();
      return [adapter.name, JSON.stringify([adapter.current, adapter.fence, revisions])];
    }),
  );
}
