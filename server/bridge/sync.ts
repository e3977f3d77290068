import { setTimeout as delay } from 'node:timers/promises';
import type { Fleet } from './fleet.ts';
import { isCurrent, type Pod } from './pods.ts';

const PAUSE_MS_MIN = 5;
const PAUSE_MS_MAX = 200;

export interface Seen {
  pods: number;
  /** From the first pod that had it to the last. */
  skewMs: number;
}

/** Pods that had it not when the time was over; none: no pod was ready. */
export class Lag extends Error {
  readonly pods: string[];

  constructor(pods: string[]) {
    super(pods.length === 0 ? 'no pod is ready' : `not on ${pods.join(', ')}`);
    this.pods = pods;
  }
}

/**
 * Returns once every pod that is ready has this revision as its current one, those among them that became ready
 * meanwhile; throws Lag where the signal comes first.
 */
export async function everywhere(
  fleet: Pick<Fleet, 'ready'>,
  { served, revision }: { served: string; revision: string },
  signal: AbortSignal,
): Promise<Seen> {
  const seenMs = new Map<Pod, number>();
  for (let pauseMs = PAUSE_MS_MIN; ; pauseMs = Math.min(2 * pauseMs, PAUSE_MS_MAX)) {
    await Promise.all(fleet.ready().map((pod) => look(pod)));
    const ready = fleet.ready();
    const lagging = ready.filter((pod) => !seenMs.has(pod));
    if (ready.length > 0 && lagging.length === 0) {
      const times = ready.map((pod) => seenMs.get(pod) as number);
      return { pods: ready.length, skewMs: Math.max(...times) - Math.min(...times) };
    }
    if (signal.aborted) throw new Lag(lagging.map(({ url }) => url));
    await delay(pauseMs, undefined, { signal }).catch(() => undefined);
  }

  async function look(pod: Pod): Promise<void> {
    if (seenMs.has(pod)) return;
    // One that gives no answer lags, until it is not ready any more.
    const cards = await pod.models().catch(() => []);
    if (isCurrent(cards, served, revision)) seenMs.set(pod, performance.now());
  }
}
