import { type Condition, setCondition, type Verdict } from '../api/conditions.ts';
import type { LoraAdapter } from '../api/lora-adapter.ts';
import { podsSummary } from '../api/lora-adapter.ts';
import { setProgress } from '../api/progress.ts';
import type { ServerPool, ServerPoolStatus } from '../api/server-pool.ts';
import type { Outcome } from '../kube/queue.ts';
import { keyOf } from '../kube/resource.ts';
import { tenantsOf } from '../placement/lookup.ts';
import { placementOf } from '../placement/placement.ts';
import { announcedOf } from './announced.ts';
import type { PoolDeps } from './deps.ts';
import {
  capacityVerdict,
  isStalled,
  type PoolPods,
  poolPodErrors,
  poolVerdict,
  usageOf,
} from './describe.ts';
import { seedPods } from './seed.ts';
import { cleanPods, type Unowned } from './unowned.ts';

const CLEAN_RETRY_MS = 10_000;
/** A leader that pauses may go on in the same term. */
const PAUSED_RETRY_MS = 1_000;

/** What a pool's pods are, together; and what they hold that no object asks for. */
export async function reconcilePool(deps: PoolDeps, key: string, signal: AbortSignal): Promise<Outcome> {
  const pool = deps.pools.get(key);
  if (pool === undefined) deps.announced.delete(key);
  if (pool === undefined || pool.metadata.deletionTimestamp !== undefined) return { kind: 'done' };
  if (deps.leader.leading === null) return { kind: 'again', afterMs: PAUSED_RETRY_MS };
  const pods = deps.fleet.podsOf(key);
  const placement = placementOf(pool, pods);
  const adapters = tenantsOf(deps, key);
  const { left, failed } = await cleanPods(deps, { pool, pods: placement.desired, adapters }, signal);
  const seeding = await seedPods(deps, placement.desired, adapters, signal);
  const { held } = seeding;
  const status = describePool(
    pool,
    { pods, claimed: deps.fleet.claimedOf(key), placement, adapters, left, held },
    deps,
  );
  announcePool(deps, pool, status);
  deps.status.write(pool, status);
  const againMs = Math.min(
    seeding.againMs ?? Number.POSITIVE_INFINITY,
    failed ? CLEAN_RETRY_MS : Number.POSITIVE_INFINITY,
    deps.placesDueInMs(key) ?? Number.POSITIVE_INFINITY,
  );
  return Number.isFinite(againMs) ? { kind: 'again', afterMs: againMs } : { kind: 'done' };
}

interface Facts extends PoolPods {
  adapters: LoraAdapter[];
  /** Unowned and not removed. */
  left: Unowned[];
}

function describePool(
  pool: ServerPool,
  { adapters, left, ...known }: Facts,
  deps: PoolDeps,
): ServerPoolStatus {
  const { pods, placement } = known;
  const readyPods = placement.desired.filter((pod) => pod.reachable && pod.state !== null).length;
  const generation = pool.metadata.generation ?? 0;
  const now = deps.clock.date();
  const update = <T extends 'Ready' | 'CapacityPressure'>(type: T, verdict: Verdict) => ({
    type,
    ...verdict,
    observedGeneration: generation,
    now,
  });
  let conditions: NonNullable<ServerPoolStatus['conditions']> = [...(pool.status?.conditions ?? [])];
  const ready = poolVerdict(pool, { ...known, watchesAll: deps.watchesAll });
  conditions = setCondition(conditions, update('Ready', ready));
  conditions = setCondition(
    conditions,
    update('CapacityPressure', capacityVerdict(placement.desired, deps.shortages(keyOf(pool)))),
  );
  conditions = setProgress(conditions, {
    isStalled: isStalled(ready),
    observedGeneration: generation,
    now,
  });
  return {
    observedGeneration: generation,
    conditions,
    pods: pods.length,
    readyPods,
    podsSummary: podsSummary({ desired: pods.length, ready: readyPods }),
    ...usageOf(placement.desired),
    adapters: adapters.length,
    podErrors: poolPodErrors(pool, known),
    unmanaged: left.map(({ pod, name }) => ({ pod: pod.name, name })),
  };
}

function announcePool(deps: PoolDeps, pool: ServerPool, status: ServerPoolStatus): void {
  const announced = announcedOf(deps.announced, pool);
  const ready = status.conditions?.find(({ type }) => type === 'Ready') as Condition;
  const known = announced.ready ?? pool.status?.conditions?.find(({ type }) => type === 'Ready')?.reason;
  announced.ready = ready.reason;
  if (known === ready.reason) return;
  const isGood = ready.status === 'True';
  const about = { pool: `${pool.metadata.namespace}/${pool.metadata.name}`, pods: status.podsSummary };
  if (isGood) deps.log.info(about, 'pool ready');
  else deps.log.warn({ ...about, code: ready.reason, reason: ready.message }, 'pool not ready');
  deps.events.event(pool, isGood ? 'Normal' : 'Warning', ready.reason, ready.message);
}
