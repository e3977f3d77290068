import { setTimeout as sleep } from 'node:timers/promises';

export interface Patience {
  timeoutMs: number;
  everyMs?: number;
}

/** Repeats `attempt` until it neither throws nor answers undefined; at the deadline throws what it threw last. */
export async function eventually<T>(
  what: string,
  patience: Patience,
  attempt: () => Promise<T | undefined> | T | undefined,
): Promise<T> {
  const deadline = performance.now() + patience.timeoutMs;
  for (;;) {
    let cause: unknown;
    try {
      const value = await attempt();
      if (value !== undefined) return value;
    } catch (error) {
      cause = error;
    }
    if (performance.now() >= deadline)
      throw new Error(`not within ${patience.timeoutMs} ms: ${what}`, { cause });
    await sleep(patience.everyMs ?? 100);
  }
}
