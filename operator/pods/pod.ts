import type { AdapterState, PodState } from '../../server/contract/adapter-api.ts';
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

/** One that speaks TLS does not say so where it knows no CA of the others: those are served by the operator. */
export function mayRelay({ adminUrl, state }: Pick<Pod, 'adminUrl' | 'state'>): boolean {
  return state?.relays ?? adminUrl.startsWith('http:');
}

export function hasFreed(before: PodState['used'], after: PodState['used']): boolean {
  return after.slots < before.slots || after.pages < before.pages || after.hostBytes < before.hostBytes;
}

/** Served names whose revisions changed between two reports. Leases and tiers come and go without meaning here. */
export function changedAdapters(previous: PodState | null, next: PodState): 'all' | string[] {
  if (previous === null || previous.bootId !== next.bootId || previous.seeded !== next.seeded) return 'all';
  if (previous.baseModel.digest !== next.baseModel.digest) return 'all';
  // Of a pod that tells changes, what has not changed is the same object in the same place.
  const isOther = (_: AdapterState, at: number) => previous.adapters[at] !== next.adapters[at];
  const old = previous.adapters.filter(isOther);
  const before = new Map(old.map((adapter) => [adapter.name, adapter]));
  const changed: string[] = [];
  for (const adapter of next.adapters.filter(isOther)) {
    const known = before.get(adapter.name);
    before.delete(adapter.name);
    if (known === adapter) continue;
    if (known === undefined || fingerprint(known) !== fingerprint(adapter)) changed.push(adapter.name);
  }
  return [...changed, ...before.keys()];
}

function fingerprint({ current, fence, revisions }: AdapterState): string {
  return JSON.stringify([current, fence, revisions.map(({ digest, state }) => `${digest} ${state}`).sort()]);
}
