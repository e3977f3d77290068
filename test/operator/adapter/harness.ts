import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { AdapterDeps } from '../../../operator/adapter/deps.ts';
import type { Objects } from '../../../operator/adapter/objects.ts';
import { Places } from '../../../operator/adapter/places.ts';
import { reconcile } from '../../../operator/adapter/reconcile.ts';
import { Records } from '../../../operator/adapter/records.ts';
import { missingFor } from '../../../operator/adapter/seeding.ts';
import { shortagesIn } from '../../../operator/adapter/shortages.ts';
import { Tombstones } from '../../../operator/adapter/tombstones.ts';
import { Vigil } from '../../../operator/adapter/vigil.ts';
import type { LoraAdapter, LoraAdapterStatus } from '../../../operator/api/lora-adapter.ts';
import { poolKeyOf } from '../../../operator/api/names.ts';
import type { ServerPool } from '../../../operator/api/server-pool.ts';
import { systemClock } from '../../../operator/kube/clock.ts';
import { silentLog } from '../../../operator/kube/log.ts';
import type { Outcome } from '../../../operator/kube/queue.ts';
import { keyOf } from '../../../operator/kube/resource.ts';
import { ADAPTER_INDEXES, type AdapterIndex } from '../../../operator/placement/lookup.ts';
import { standingOf } from '../../../operator/placement/tenancy.ts';
import { openDispatcher } from '../../../operator/pods/dispatcher.ts';
import { Fleet } from '../../../operator/pods/fleet.ts';
import type { PodTls } from '../../../operator/pods/tls.ts';
import type { PoolDeps } from '../../../operator/pool/deps.ts';
import { Errands } from '../../../operator/source/errands.ts';
import { Spool } from '../../../operator/spool/spool.ts';
import { Serial } from '../../../server/transfer/serial.ts';
import { POD_TOKEN, ScriptedPod, type ScriptedPodOptions } from '../../support/pod/scripted-pod.ts';
import { FakeSource } from './fake-source.ts';
import { kubePod, serverPool } from './objects.ts';

const TIMEOUTS = { shortMs: 400, stallMs: 400, silenceMs: 600, transferMs: 3_000, watchIdleMs: 25_000 };
const PASSES_MAX = 100;

/** Whom the operator expects pods to be, and what it calls them with. */
interface HarnessTls {
  serverName: string;
  shown: PodTls;
}

class AdapterCache extends Map<string, LoraAdapter> {
  #version = 0;

  override set(key: string, adapter: LoraAdapter): this {
    this.#version += 1;
    return super.set(key, adapter);
  }

  override delete(key: string): boolean {
    this.#version += 1;
    return super.delete(key);
  }

  list(): LoraAdapter[] {
    return [...this.values()];
  }

  by(index: AdapterIndex, value: string): LoraAdapter[] {
    return this.list().filter((adapter) => ADAPTER_INDEXES[index](adapter) === value);
  }

  versionOf(): number {
    return this.#version;
  }
}

export type Harness = Awaited<ReturnType<typeof startHarness>>;

/** An operator without an API server: caches that tests write, real links to pods with the real admin API. */
export async function startHarness(
  pods: Omit<ScriptedPodOptions, 'host' | 'port'>[] = [{}, {}],
  tls: HarnessTls | null = null,
) {
  const servers: ScriptedPod[] = [];
  for (const [index, options] of pods.entries()) {
    const host = `127.0.1.${index + 1}`;
    const port = servers[0]?.port ?? 0;
    servers.push(await ScriptedPod.start({ ...options, host, port }));
  }
  const pool = serverPool(servers[0]?.port ?? 1);
  if (tls !== null)
    pool.spec.admin.tls = { serverName: tls.serverName, caSecretRef: { name: 'ca', key: 'ca' } };
  const pools = new Map<string, ServerPool>([[keyOf(pool), pool]]);
  const adapters = new AdapterCache();
  const kubePods = servers.map((server, index) => kubePod(`pod-${index}`, server.host));
  const dispatcher = openDispatcher();
  const fleet = new Fleet({
    pools: { list: () => [...pools.values()] },
    pods: { list: () => kubePods },
    readToken: async () => ({ token: POD_TOKEN, previous: null }),
    readTls: async () => tls?.shown ?? {},
    dispatcher,
    clock: systemClock,
    random: () => 0,
    log: silentLog,
    timeouts: TIMEOUTS,
  });
  const dir = mkdtempSync(join(tmpdir(), 'lorikeet-test-'));
  const source = new FakeSource();
  const answered = new Set<string>();
  const labelsOf: World['labelsOf'] = () => null;
  const world = { statusWrites: 0, term: 7 as number | null, events: [] as string[], answered, labelsOf };
  const deps = makeDeps({ adapters, pools, fleet, source, dir, world });
  fleet.sync();
  await fleet.whenHeard(2_000);

  const signal = new AbortController().signal;
  /** One look, and another one each time that the source has answered. */
  const once = async (name: string): Promise<Outcome> => {
    const key = `lora/${name}`;
    for (;;) {
      const outcome = await reconcile(deps, key, signal);
      await source.whenIdle();
      if (!world.answered.delete(key)) return outcome;
    }
  };
  return {
    deps,
    fleet,
    source,
    world,
    pools,
    adapters,
    kubePods,
    servers,
    once,
    poolDeps: makePoolDeps(deps, fleet, world),
    apply(adapter: LoraAdapter): void {
      const known = adapters.get(keyOf(adapter));
      adapters.set(keyOf(adapter), known?.status ? { ...adapter, status: known.status } : adapter);
    },
    statusOf: (name: string): LoraAdapterStatus => adapters.get(`lora/${name}`)?.status ?? {},
    conditionOf: (name: string, type: string) =>
      adapters.get(`lora/${name}`)?.status?.conditions?.find((condition) => condition.type === type),
    /** Looks at the adapter until it has nothing more to do, or is as the test wants it. */
    async settle(name: string, until: (() => boolean) | null = null): Promise<void> {
      for (let pass = 0; pass < PASSES_MAX; pass += 1) {
        const outcome = await once(name);
        if (until === null ? outcome.kind === 'done' && pass > 0 : until()) return;
        await new Promise((resolve) =>
          setTimeout(resolve, outcome.kind === 'again' ? Math.min(outcome.afterMs, 100) : 20),
        );
      }
      throw new Error(
        `${name} did not settle: ${JSON.stringify(adapters.get(`lora/${name}`)?.status?.conditions)}`,
      );
    },
    /** What an operator that starts anew knows: nothing. */
    forget(): void {
      deps.records = new Records();
      deps.places = new Places();
    },
    emptySpool(): void {
      deps.spool = new Spool({ dir: mkdtempSync(join(dir, 'spool-')), maxBytes: 64 << 20 });
    },
    async stop(): Promise<void> {
      await fleet.close();
      await Promise.all(servers.map((server) => server.stop()));
      await dispatcher.destroy();
      rmSync(dir, { recursive: true, force: true });
    },
  };
}

interface World {
  statusWrites: number;
  term: number | null;
  events: string[];
  /** Of namespaces. */
  labelsOf: (namespace: string) => Record<string, string> | 'unknown' | null;
  /** Adapters whose source has answered. */
  answered: Set<string>;
}

interface Made {
  adapters: AdapterCache;
  pools: Map<string, ServerPool>;
  fleet: Fleet;
  source: FakeSource;
  dir: string;
  world: World;
}

function makeDeps({ adapters, pools, fleet, source, dir, world }: Made): AdapterDeps {
  return {
    adapters,
    pools: Object.assign(pools, { list: () => [...pools.values()] }),
    standing: (adapter) => standingOf(adapter, pools.get(poolKeyOf(adapter)), (name) => world.labelsOf(name)),
    fleet,
    sources: { objectStore: source, huggingFace: source, http: source, oci: source },
    archive: source,
    errands: new Errands({ clock: systemClock, onAnswer: (key) => void world.answered.add(key) }),
    spool: new Spool({ dir: mkdtempSync(join(dir, 'spool-')), maxBytes: 64 << 20 }),
    leader: {
      get leading() {
        return world.term === null ? null : { term: world.term };
      },
    },
    records: new Records(),
    places: new Places(),
    vigil: new Vigil(systemClock),
    mutexes: new Serial(),
    tombstones: new Tombstones(),
    objects: fakeObjects(adapters),
    status: {
      write(object, status) {
        const key = keyOf(object);
        const known = adapters.get(key);
        if (!known || JSON.stringify(known.status) === JSON.stringify(status)) return;
        world.statusWrites += 1;
        adapters.set(key, { ...known, status: structuredClone(status) as LoraAdapterStatus });
      },
    },
    events: {
      event: (_object, type, reason, message) => void world.events.push(`${type} ${reason} ${message}`),
    },
    requeue: () => {},
    requeuePool: () => {},
    metrics: { phase() {}, swap() {}, failure() {}, loaded() {}, removed() {} },
    pushUrl: 'http://push.test',
    relayFrom: 4,
    clock: systemClock,
    random: () => 0,
    log: silentLog,
  };
}

function makePoolDeps(deps: AdapterDeps, fleet: Fleet, world: World): PoolDeps {
  return {
    pools: deps.pools,
    adapters: deps.adapters,
    standing: deps.standing,
    watchesAll: true,
    fleet,
    leader: deps.leader,
    missingFor: (pod, pods, adapters) => {
      const shares = deps.places.of(deps, pod.poolKey);
      return missingFor(pod, { pods, adapters, records: deps.records, shares });
    },
    shortages: (poolKey) => shortagesIn(deps, poolKey),
    placesDueInMs: (poolKey) => deps.places.dueInMs(deps, poolKey),
    isBuried: (poolKey, name) => deps.tombstones.has(poolKey, name),
    nextSequence: () => deps.records.nextSequence(),
    liveAdapters: async () => deps.adapters.list(),
    status: {
      write(object, status) {
        const pool = object as ServerPool;
        world.statusWrites += 1;
        (deps.pools as unknown as Map<string, ServerPool>).set(keyOf(pool), {
          ...pool,
          status: structuredClone(status) as NonNullable<ServerPool['status']>,
        });
      },
    },
    events: deps.events,
    metrics: deps.metrics,
    announced: new Map(),
    clock: deps.clock,
    log: silentLog,
  };
}

/** What the API server would do with the object. */
function fakeObjects(adapters: AdapterCache): Objects {
  const patch = (adapter: LoraAdapter, metadata: Partial<LoraAdapter['metadata']>) => {
    const known = adapters.get(keyOf(adapter));
    if (known) adapters.set(keyOf(adapter), { ...known, metadata: { ...known.metadata, ...metadata } });
  };
  const fake = {
    addFinalizer: async (adapter: LoraAdapter) => patch(adapter, { finalizers: ['lorikeet.dev/adapter'] }),
    removeFinalizer: async (adapter: LoraAdapter) => void adapters.delete(keyOf(adapter)),
    noteRefreshed: async (adapter: LoraAdapter, value: string) =>
      patch(adapter, { annotations: { ...adapter.metadata.annotations, 'lorikeet.dev/refreshed': value } }),
    live: async (adapter: LoraAdapter) => adapters.get(keyOf(adapter)) ?? null,
    liveIn: async () => adapters.list(),
  };
  return fake as unknown as Objects;
}
