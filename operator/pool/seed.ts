import type { LoraAdapter } from '../api/lora-adapter.ts';
import { rootMessage } from '../pods/errors.ts';
import type { Pod } from '../pods/pod.ts';
import type { PoolDeps } from './deps.ts';

const RETRY_MS = 2_000;
/** After this long a pod is let go as it is: what is missing then is missing elsewhere too, and idle pods serve nobody. */
const SEED_MS_MAX = 300_000;
/** A pod reports it at once; this only bounds how long that is waited for. */
const REPORT_MS = 1_000;

/** Tells each pod that holds what it should that it does. Returns when to look again at the latest; null: on a change. */
export async function seedPods(
  deps: PoolDeps,
  pods: readonly Pod[],
  adapters: readonly LoraAdapter[],
  signal: AbortSignal,
): Promise<number | null> {
  const unseeded = pods.filter((pod) => pod.reachable && pod.state?.seeded === false);
  const waits = await Promise.all(unseeded.map((pod) => seedPod(deps, pod, adapters, signal)));
  const due = waits.filter((waitMs) => waitMs !== null);
  return due.length === 0 ? null : Math.min(...due);
}

async function seedPod(
  deps: PoolDeps,
  pod: Pod,
  adapters: readonly LoraAdapter[],
  signal: AbortSignal,
): Promise<number | null> {
  const missing = deps.missingFor(pod, adapters);
  const leftMs = SEED_MS_MAX - deps.fleet.followedMs(pod);
  if (missing.length > 0 && leftMs > 0) return leftMs;
  const { leading } = deps.leader;
  if (leading === null) return null;
  const about = { pool: pod.poolKey, pod: pod.name };
  try {
    await pod.client.seeded({ term: leading.term, sequence: 0 }, signal);
    await deps.fleet.whenState(pod, (state) => state.seeded, REPORT_MS);
    if (missing.length > 0)
      deps.log.warn({ ...about, missing: missing.slice(0, 10) }, 'pod seeded without all adapters');
    else deps.log.info({ ...about, adapters: pod.state?.adapters.length }, 'pod seeded');
    return null;
  } catch (error) {
    signal.throwIfAborted();
    deps.log.debug({ ...about, reason: rootMessage(error) }, 'pod could not be told that it is seeded');
    return RETRY_MS;
  }
}
