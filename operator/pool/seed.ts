import { rootMessage } from '../../server/transfer/unreachable.ts';
import type { LoraAdapter } from '../api/lora-adapter.ts';
import type { Missing, Pod } from '../pods/pod.ts';
import type { PoolDeps } from './deps.ts';

const RETRY_MS = 2_000;
/** After this long a pod is let go as it is: what is missing then is missing elsewhere too, and idle pods serve nobody. */
const SEED_MS_MAX = 300_000;
/** A pod reports it at once; this only bounds how long that is waited for. */
const REPORT_MS = 1_000;

/** A pod that is not let in, because it cannot hold what other pods of its pool serve. */
export interface HeldPod {
  pod: Pod;
  name: string;
  refusal: string;
}

export interface Seeding {
  held: HeldPod[];
  /** When to look again at the latest; null: on a change. */
  againMs: number | null;
}

/** Tells each pod that holds what it should that it does. */
export async function seedPods(
  deps: PoolDeps,
  pods: readonly Pod[],
  adapters: readonly LoraAdapter[],
  signal: AbortSignal,
): Promise<Seeding> {
  const unseeded = pods
    .filter((pod) => pod.reachable && pod.state?.seeded === false)
    .map((pod) => ({ pod, missing: deps.missingFor(pod, pods, adapters) }));
  const held = unseeded.flatMap(({ pod, missing }) => heldFor(pod, missing));
  const others = unseeded.filter(({ pod }) => !held.some((item) => item.pod === pod));
  const waits = await Promise.all(others.map(({ pod, missing }) => seedPod(deps, pod, missing, signal)));
  const due = waits.filter((waitMs) => waitMs !== null);
  return { held, againMs: due.length === 0 ? null : Math.min(...due) };
}

/** Without a deadline: a rollout of pods that cannot serve what the old ones do must not complete. It ends with its cause. */
function heldFor(pod: Pod, missing: readonly Missing[]): HeldPod[] {
  const [first] = missing.flatMap(({ name, refusal }) => (refusal === null ? [] : [{ pod, name, refusal }]));
  return first === undefined ? [] : [first];
}

async function seedPod(
  deps: PoolDeps,
  pod: Pod,
  missing: readonly Missing[],
  signal: AbortSignal,
): Promise<number | null> {
  const leftMs = SEED_MS_MAX - deps.fleet.followedMs(pod);
  if (missing.length > 0 && leftMs > 0) return leftMs;
  const { leading } = deps.leader;
  if (leading === null) return null;
  const about = { pool: pod.poolKey, pod: pod.name };
  try {
    await pod.client.seeded({ term: leading.term, sequence: 0 }, signal);
    await deps.fleet.whenState(pod, (state) => state.seeded, REPORT_MS);
    if (missing.length > 0)
      deps.log.warn(
        { ...about, missing: missing.slice(0, 10).map(({ name }) => name) },
        'pod seeded without all adapters',
      );
    else deps.log.info({ ...about, adapters: pod.state?.adapters.length }, 'pod seeded');
    return null;
  } catch (error) {
    signal.throwIfAborted();
    deps.log.debug({ ...about, reason: rootMessage(error) }, 'pod could not be told that it is seeded');
    return RETRY_MS;
  }
}
