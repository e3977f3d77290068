import { Serial } from '../server/transfer/serial.ts';
import type { AdapterDeps } from './adapter/deps.ts';
import { Objects } from './adapter/objects.ts';
import { Places } from './adapter/places.ts';
import { Records } from './adapter/records.ts';
import { missingFor } from './adapter/seeding.ts';
import { shortagesIn } from './adapter/shortages.ts';
import { Tombstones } from './adapter/tombstones.ts';
import { Vigil } from './adapter/vigil.ts';
import { isNoLongerReady } from './api/conditions.ts';
import { LORA_ADAPTERS, type LoraAdapter } from './api/lora-adapter.ts';
import { poolKeyOf } from './api/names.ts';
import { SERVER_POOLS } from './api/server-pool.ts';
import type { OperatorConfig } from './config.ts';
import { systemClock } from './kube/clock.ts';
import { type DropCause, EventRecorder } from './kube/events.ts';
import type { Elector } from './kube/leader.ts';
import type { Log } from './kube/log.ts';
import type { Rest } from './kube/rest.ts';
import { secretsOf } from './kube/secrets.ts';
import { StatusWriter } from './kube/status-writer.ts';
import { standingOf } from './placement/tenancy.ts';
import type { Fleet } from './pods/fleet.ts';
import type { PoolDeps } from './pool/deps.ts';
import { AddressGuard } from './source/address-guard.ts';
import { Errands } from './source/errands.ts';
import { openSources } from './source/index.ts';
import type { RangeLimits } from './source/ranges.ts';
import type { Spool } from './spool/spool.ts';
import type { OperatorMetrics } from './telemetry/metrics.ts';
import { POOL_DELAY_MS, type Queues, type Watches } from './watches.ts';

export interface Parts {
  config: OperatorConfig;
  rest: Rest;
  log: Log;
  metrics: OperatorMetrics;
  spool: Spool;
  queues: Queues;
  watches: Watches;
  fleet: Fleet;
  elector: Elector;
  /** See StatusWriterOptions. */
  statusIntervalMs?: number | undefined;
  /** See SourceOptions. */
  sourceRanges?: Partial<RangeLimits> | undefined;
}

/** What the two reconcilers act through. `flush` writes what is still pending. */
export function assemble(parts: Parts): {
  adapterDeps: AdapterDeps;
  poolDeps: PoolDeps;
  flush: () => Promise<void>;
} {
  const { config, rest, log, metrics, spool, queues, watches, fleet, elector, statusIntervalMs } = parts;
  const component = 'lorikeet-operator';
  const onDrop = (cause: DropCause) => metrics.eventDropped(cause);
  const events = new EventRecorder({ rest, component, instance: config.identity, log, onDrop });
  const adapterStatus = new StatusWriter({
    rest,
    log,
    intervalMs: statusIntervalMs,
    resource: LORA_ADAPTERS,
    isWorse: isNoLongerReady,
    onFailure: (key) => queues.adapters.add(key),
    onWritten: (lagMs) => metrics.statusWritten('adapters', lagMs),
  });
  const poolStatus = new StatusWriter({
    rest,
    log,
    intervalMs: statusIntervalMs,
    resource: SERVER_POOLS,
    isWorse: isNoLongerReady,
    onFailure: (key) => queues.pools.add(key),
    onWritten: (lagMs) => metrics.statusWritten('pools', lagMs),
  });
  const standing = (adapter: LoraAdapter) =>
    standingOf(adapter, watches.pools.get(poolKeyOf(adapter)), (namespace) => watches.labelsOf(namespace));
  const adapterDeps: AdapterDeps = {
    adapters: watches.adapters,
    pools: watches.pools,
    standing,
    fleet,
    errands: new Errands({ clock: systemClock, onAnswer: (key) => queues.adapters.add(key) }),
    ...openSources({
      readSecret: secretsOf(rest),
      guard: new AddressGuard({ allowed: config.allowedEndpointCidrs, apiServer: rest.server }),
      clock: systemClock,
      ranges: parts.sourceRanges,
      ambientCredentials: config.awsIdentity === 'ambient',
    }),
    spool,
    leader: elector,
    records: new Records(),
    places: new Places(),
    vigil: new Vigil(systemClock),
    mutexes: new Serial(),
    tombstones: new Tombstones(),
    objects: new Objects(rest),
    status: adapterStatus,
    events,
    requeue: (key) => queues.adapters.add(key),
    requeuePool: (poolKey) => queues.pools.addAfter(poolKey, POOL_DELAY_MS),
    metrics,
    pushUrl: config.pushUrl,
    relayFrom: config.relayFrom,
    clock: systemClock,
    random: Math.random,
    log,
  };
  const { records, places, tombstones, objects, leader } = adapterDeps;
  const poolDeps: PoolDeps = {
    pools: watches.pools,
    adapters: watches.adapters,
    standing,
    watchesAll: config.watchNamespace === null,
    fleet,
    leader,
    missingFor: (pod, pods, adapters) => {
      const shares = places.of(adapterDeps, pod.poolKey);
      return missingFor(pod, { pods, adapters, records, shares });
    },
    shortages: (poolKey) => shortagesIn(adapterDeps, poolKey),
    placesDueInMs: (poolKey) => places.dueInMs(adapterDeps, poolKey),
    isBuried: (poolKey, servedName) => tombstones.has(poolKey, servedName),
    nextSequence: () => records.nextSequence(),
    liveAdapters: (namespace, signal) => objects.liveIn(namespace, signal),
    status: poolStatus,
    events,
    metrics,
    announced: new Map(),
    clock: systemClock,
    log,
  };
  const flush = async () => {
    await Promise.all([adapterStatus.flushAll(), poolStatus.flushAll(), events.flush()]);
  };
  return { adapterDeps, poolDeps, flush };
}
