import type { LoraAdapter } from '../api/lora-adapter.ts';
import type { ServerPool } from '../api/server-pool.ts';
import type { Clock } from '../kube/clock.ts';
import type { EventRecorder } from '../kube/events.ts';
import type { Elector } from '../kube/leader.ts';
import type { Log } from '../kube/log.ts';
import type { StatusWriter } from '../kube/status-writer.ts';
import type { AdapterLookup } from '../placement/lookup.ts';
import type { Standing } from '../placement/tenancy.ts';
import type { Fleet } from '../pods/fleet.ts';
import type { Missing, Pod, Shortage } from '../pods/pod.ts';
import type { Announcements } from './announced.ts';

/** Everything that looking after a pool acts through. What it needs to know of adapters it asks for here. */
export interface PoolDeps {
  pools: { get(key: string): ServerPool | undefined };
  adapters: Pick<AdapterLookup, 'by'>;
  /** Whether an adapter may be in the pool that it names. */
  standing: (adapter: LoraAdapter) => Standing;
  /** False: only one namespace is watched. */
  watchesAll: boolean;
  fleet: Pick<Fleet, 'podsOf' | 'claimedOf' | 'followedMs' | 'whenState'>;
  leader: Pick<Elector, 'leading'>;
  /** What a new pod, one of `pods`, still has to wait for. */
  missingFor: (pod: Pod, pods: readonly Pod[], adapters: readonly LoraAdapter[]) => Missing[];
  /** Adapters that have fewer pods than they ask for, and why. */
  shortages: (poolKey: string) => Shortage[];
  /** In how long they may be placed elsewhere though nothing changes; null: they will not. */
  placesDueInMs: (poolKey: string) => number | null;
  /** Whether an adapter of this name was deleted while pods of the pool were silent. */
  isBuried: (poolKey: string, servedName: string) => boolean;
  nextSequence: () => number;
  /** All adapters of a namespace, or of all of them, as the API server has them now. */
  liveAdapters: (namespace: string | undefined, signal: AbortSignal) => Promise<LoraAdapter[]>;
  status: Pick<StatusWriter, 'write'>;
  events: Pick<EventRecorder, 'event'>;
  metrics: { removed(reason: 'orphaned' | 'pruned'): void };
  announced: Announcements;
  clock: Clock;
  log: Log;
}
