/** Time as the operator sees it; tests put their own in its place. */
export interface Clock {
  /** Never set back by an operator of the machine; only differences mean anything. */
  monotonicMs(): number;
  date(): Date;
  /** Calls back once after `delayMs`; the returned function cancels. */
  after(delayMs: number, callback: () => void): () => void;
}

/** Node fires a longer timer at once. */
const DELAY_MS_MAX = 2 ** 31 - 1;

export const systemClock: Clock = {
  monotonicMs: () => performance.now(),
  date: () => new Date(),
  after: (delayMs, callback) => {
    const timer = setTimeout(callback, Math.min(Math.max(0, delayMs), DELAY_MS_MAX));
    return () => clearTimeout(timer);
  },
};

/** Resolves after `delayMs`, or at once when the signal aborts: the caller looks at the signal. */
export function pause(clock: Clock, delayMs: number, signal?: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  if (signal?.aborted) return Promise.resolve();
  const wake = () => {
    cancel();
    signal?.removeEventListener('abort', wake);
    resolve();
  };
  const cancel = clock.after(delayMs, wake);
  signal?.addEventListener('abort', wake, { once: true });
  return promise;
}

export interface Deadline {
  signal: AbortSignal;
  /** Starts the time anew. */
  extend(): void;
  /** Must be called, or the parent signal keeps a listener. */
  clear(): void;
}

/** A signal that aborts with `reason()` after `delayMs` without `extend`, or when the parent does, with its reason. */
export function deadline(
  clock: Clock,
  delayMs: number,
  parent: AbortSignal | undefined,
  reason: () => Error,
): Deadline {
  const controller = new AbortController();
  const expire = () => controller.abort(reason());
  const follow = () => controller.abort(parent?.reason);
  let cancel = clock.after(delayMs, expire);
  if (parent?.aborted) follow();
  parent?.addEventListener('abort', follow, { once: true });
  return {
    signal: controller.signal,
    extend: () => {
      cancel();
      cancel = clock.after(delayMs, expire);
    },
    clear: () => {
      cancel();
      parent?.removeEventListener('abort', follow);
    },
  };
}

export interface BackoffOptions {
  baseMs: number;
  maxMs: number;
  /** In [0, 1). */
  random: () => number;
}

/** Doubles with each failure up to `maxMs`; the upper half of each delay is random, so that many do not retry as one. */
export function backoffMs(failures: number, { baseMs, maxMs, random }: BackoffOptions): number {
  const fullMs = Math.min(maxMs, baseMs * 2 ** Math.min(failures - 1, 40));
  return fullMs / 2 + (fullMs / 2) * random();
}

/** Waits for work that may take too long, at most so long; rejects where the work does before. */
export async function within(clock: Clock, ms: number, work: Promise<unknown>): Promise<void> {
  const late = new AbortController();
  try {
    await Promise.race([work, pause(clock, ms, late.signal)]);
  } finally {
    late.abort();
  }
}
