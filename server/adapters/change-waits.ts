import { LorikeetError } from '../contract/errors.ts';

export interface ChangeWaitsOptions {
  /** Calls the listener after each change; returns how to end it. */
  subscribe(listener: () => void): () => void;
  /** Requests that may wait; one more is refused with `no_capacity`. */
  waitingMax: number;
}

/** Requests that wait for a change of the pod's adapters. */
export class ChangeWaits {
  readonly #options: ChangeWaitsOptions;
  #waiters = 0;

  constructor(options: ChangeWaitsOptions) {
    this.#options = options;
  }

  /** Resolves after the next change, and at the latest after `waitMs`. */
  async next(waitMs: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const { subscribe, waitingMax } = this.#options;
    if (this.#waiters >= waitingMax) {
      throw new LorikeetError('no_capacity', 'Too many requests wait for a revision already', {
        field: 'waiting',
        expected: `at most ${waitingMax}`,
        actual: this.#waiters,
      });
    }
    this.#waiters += 1;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const leave = () => reject(signal.reason);
    signal.addEventListener('abort', leave, { once: true });
    const unsubscribe = subscribe(resolve);
    const timer = setTimeout(resolve, waitMs);
    try {
      await promise;
    } finally {
      clearTimeout(timer);
      unsubscribe();
      signal.removeEventListener('abort', leave);
      this.#waiters -= 1;
    }
  }
}
