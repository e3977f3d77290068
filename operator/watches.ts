import { LORA_ADAPTERS, type LoraAdapter, servedNameOf } from './api/lora-adapter.ts';
import { poolKeyOf } from './api/names.ts';
import { SERVER_POOLS, type ServerPool } from './api/server-pool.ts';
import { isApiError } from './kube/api-error.ts';
import type { Log } from './kube/log.ts';
import { type HandlerFailure, WorkQueue } from './kube/queue.ts';
import { Reflector } from './kube/reflector.ts';
import { type KubeObject, keyOf, NAMESPACES, PODS } from './kube/resource.ts';
import type { Rest } from './kube/rest.ts';
import { ADAPTER_INDEXES, type AdapterIndex } from './placement/lookup.ts';
import { usesNamespaceLabels } from './placement/tenancy.ts';
import type { Fleet, KubePod } from './pods/fleet.ts';
import type { FleetChange } from './pods/pod.ts';

const ADAPTERS_AT_ONCE = 16;
const POOLS_AT_ONCE = 4;
/** Pods report each request's lease, and adapters come by the thousand; a pool need not be looked at for each of them. */
export const POOL_DELAY_MS = 200;

export interface Queues {
  adapters: WorkQueue;
  pools: WorkQueue;
}

export function openQueues(log: Log, failed: (reason: string) => void): Queues {
  const onFailure = ({ key, error, failures, retryMs }: HandlerFailure) => {
    // Somebody wrote the object first: it is read again, and nothing is wrong.
    if (isApiError(error, 409)) return;
    failed('Exception');
    log.error({ key, err: error, failures, retryMs: Math.round(retryMs) }, 'reconcile failed');
  };
  return {
    adapters: new WorkQueue({ concurrency: ADAPTERS_AT_ONCE, onFailure }),
    pools: new WorkQueue({ concurrency: POOLS_AT_ONCE, onFailure }),
  };
}

export interface WatchOptions {
  rest: Rest;
  log: Log;
  namespace: string | undefined;
  queues: Queues;
  relistMs?: number;
  inactivityMs?: number;
}

/** Copies of the three kinds that the operator looks at, and who must be looked at when one of them changes. */
export class Watches {
  readonly adapters: Reflector<LoraAdapter, AdapterIndex>;
  readonly pools: Reflector<ServerPool>;
  readonly pods: Reflector<KubePod>;
  readonly #options: WatchOptions;
  readonly #queues: Queues;
  /** Only where the tenancy of some pool goes by labels; null: nobody has asked yet. */
  #namespaces: Reflector<KubeObject> | null = null;
  #namespacesSynced = false;
  readonly #started = Promise.withResolvers<AbortSignal>();
  #fleet: Fleet | null = null;
  #waitsForRoom: (key: string) => boolean = () => false;
  #synced = false;

  constructor(options: WatchOptions) {
    const { queues, ...common } = options;
    this.#options = options;
    this.#queues = queues;
    this.adapters = new Reflector<LoraAdapter, AdapterIndex>({
      ...common,
      indexes: ADAPTER_INDEXES,
      resource: LORA_ADAPTERS,
      onChange: ({ type, object }) => this.#adapterChanged(type, object),
    });
    this.pools = new Reflector<ServerPool>({
      ...common,
      resource: SERVER_POOLS,
      onChange: ({ object }) => this.#poolChanged(object),
    });
    this.pods = new Reflector<KubePod>({ ...common, resource: PODS, onChange: () => this.#fleet?.sync() });
  }

  get synced(): boolean {
    return this.#synced;
  }

  /** From here on the fleet is told of pools and pods, and tells of what pods report. */
  follow(fleet: Fleet, waitsForRoom: (key: string) => boolean): void {
    this.#fleet = fleet;
    this.#waitsForRoom = waitsForRoom;
    fleet.onChange((change) => this.#fleetChanged(change));
  }

  /** Runs until the signal aborts. */
  async run(signal: AbortSignal): Promise<void> {
    this.#started.resolve(signal);
    await Promise.all([this.adapters.run(signal), this.pools.run(signal), this.pods.run(signal)]);
  }

  async whenSynced(): Promise<void> {
    await Promise.all([this.adapters.whenSynced(), this.pools.whenSynced(), this.pods.whenSynced()]);
    this.#fleet?.sync();
    this.#synced = true;
  }

  #adapterChanged(type: string, adapter: LoraAdapter): void {
    const poolKey = poolKeyOf(adapter);
    this.#queues.adapters.add(keyOf(adapter));
    this.#queues.pools.addAfter(poolKey, POOL_DELAY_MS);
    // Its name may be free now for another one.
    if (type === 'deleted') this.#lookAt(poolKey, [servedNameOf(adapter)]);
  }

  /** Of a namespace; null where there is none of that name, or where only one is watched. */
  labelsOf(namespace: string): Record<string, string> | 'unknown' | null {
    if (this.#options.namespace !== undefined) return null;
    if (!this.#namespacesSynced) return 'unknown';
    const found = this.#namespaces?.get(`/${namespace}`);
    return found === undefined ? null : { ...found.metadata.labels };
  }

  async #followNamespaces(): Promise<void> {
    const { rest, log } = this.#options;
    const namespaces = new Reflector<KubeObject>({
      ...{ rest, log, resource: NAMESPACES },
      onChange: ({ object }) => this.#namespaceChanged(object.metadata.name),
    });
    this.#namespaces = namespaces;
    const signal = await this.#started.promise;
    const running = namespaces.run(signal);
    await namespaces.whenSynced();
    this.#namespacesSynced = true;
    for (const { metadata } of namespaces.list()) this.#namespaceChanged(metadata.name);
    await running;
  }

  #namespaceChanged(name: string): void {
    if (!this.#namespacesSynced) return;
    for (const adapter of this.adapters.by('guests', name)) {
      this.#queues.adapters.add(keyOf(adapter));
      this.#queues.pools.add(poolKeyOf(adapter));
    }
  }

  #poolChanged(pool: ServerPool): void {
    const poolKey = keyOf(pool);
    const needsLabels = usesNamespaceLabels(pool) && this.#options.namespace === undefined;
    // It ends with the others: what it rejects with then is the reason of their end.
    if (needsLabels && this.#namespaces === null) this.#followNamespaces().catch(() => {});
    this.#fleet?.sync();
    this.#queues.pools.add(poolKey);
    this.#lookAt(poolKey, 'all');
  }

  #fleetChanged({ poolKey, adapters, freed = false }: FleetChange): void {
    this.#queues.pools.addAfter(poolKey, POOL_DELAY_MS);
    this.#lookAt(poolKey, adapters);
    if (freed) this.#wakeWaiting(poolKey);
  }

  #wakeWaiting(poolKey: string): void {
    for (const adapter of this.adapters.by('pool', poolKey)) {
      const key = keyOf(adapter);
      if (this.#waitsForRoom(key)) this.#queues.adapters.add(key);
    }
  }

  #lookAt(poolKey: string, names: 'all' | string[]): void {
    const found =
      names === 'all'
        ? this.adapters.by('pool', poolKey)
        : names.flatMap((name) => [...this.adapters.by('name', `${poolKey} ${name}`)]);
    for (const adapter of found) this.#queues.adapters.add(keyOf(adapter));
  }
}
