import type { Fence } from '../../server/contract/adapter-api.ts';
import type { Serial } from '../../server/transfer/serial.ts';
import type { LoraAdapter } from '../api/lora-adapter.ts';
import type { ServerPool } from '../api/server-pool.ts';
import type { Clock } from '../kube/clock.ts';
import type { EventRecorder } from '../kube/events.ts';
import type { Elector } from '../kube/leader.ts';
import type { Log } from '../kube/log.ts';
import type { KubeObject } from '../kube/resource.ts';
import type { StatusWriter } from '../kube/status-writer.ts';
import type { AdapterLookup } from '../placement/lookup.ts';
import type { Standing } from '../placement/tenancy.ts';
import type { Fleet } from '../pods/fleet.ts';
import type { Archive } from '../source/archive.ts';
import type { Errands } from '../source/errands.ts';
import type { Sources } from '../source/index.ts';
import type { Spool } from '../spool/spool.ts';
import type { Objects } from './objects.ts';
import type { Places } from './places.ts';
import type { AdapterRecord } from './record.ts';
import type { Records } from './records.ts';
import type { Tombstones } from './tombstones.ts';
import type { Vigil } from './vigil.ts';

export interface Cache<T extends KubeObject> {
  get(key: string): T | undefined;
  list(): T[];
}

/** What reconciling tells the metrics; see telemetry/metrics.ts. */
export interface AdapterMetrics {
  phase(phase: 'resolve' | 'fetch' | 'stage' | 'activate', ms: number): void;
  swap(durationMs: number, skewMs: number): void;
  failure(reason: string): void;
  /** A pod was given a revision of this adapter. */
  loaded(podUid: string, adapterUid: string): void;
  removed(reason: 'deleted' | 'moved' | 'orphaned' | 'pruned'): void;
}

/** Everything that reconciling and publishing act through. */
export interface AdapterDeps {
  adapters: Cache<LoraAdapter> & AdapterLookup;
  pools: Cache<ServerPool>;
  /** Whether an adapter may be in the pool that it names. */
  standing: (adapter: LoraAdapter) => Standing;
  fleet: Pick<Fleet, 'podsOf' | 'formerOf' | 'followedMs' | 'whenState'>;
  sources: Sources;
  /** Where pushed revisions are kept that are to outlive pods and spool. */
  archive: Pick<Archive, 'keep'>;
  /** Sources are asked through it alone: they may be slow. */
  errands: Pick<Errands, 'ask' | 'drop'>;
  /** When to look again for what people are to put right. */
  vigil: Vigil;
  spool: Spool;
  leader: Pick<Elector, 'leading'>;
  records: Records;
  /** Which pods each adapter should be in. */
  places: Places;
  /** Held by whoever changes what is desired or current, for reconciling and publishing alike. */
  mutexes: Serial;
  tombstones: Tombstones;
  objects: Objects;
  status: Pick<StatusWriter, 'write'>;
  events: Pick<EventRecorder, 'event'>;
  /** Looks at an adapter again. */
  requeue: (key: string) => void;
  requeuePool: (poolKey: string) => void;
  metrics: AdapterMetrics;
  /** Base of status.pushURL; null where pushes are not advertised. */
  pushUrl: string | null;
  /** From so many pods on they pass a revision on to each other. */
  relayFrom: number;
  clock: Clock;
  random: () => number;
  log: Log;
}

export class NotLeading extends Error {
  constructor() {
    super('This process does not lead');
    this.name = 'NotLeading';
  }
}

/** Looks at the lease each time: a process that was frozen must not act on what it remembers. */
export function fenceOf(deps: Pick<AdapterDeps, 'leader'>, record: AdapterRecord): Fence {
  const { leading } = deps.leader;
  if (leading === null) throw new NotLeading();
  return { term: leading.term, sequence: record.sequence };
}
