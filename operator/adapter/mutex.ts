/** Shown to what must happen under the mutex of `key`. */
export interface Lock {
  readonly key: string;
  readonly isHeld: boolean;
}

/** One holder per key at a time, in order of arrival. What it guards must take a bounded time. */
export class Mutexes {
  readonly #tails = new Map<string, Promise<void>>();

  async run<T>(key: string, task: (lock: Lock) => Promise<T>): Promise<T> {
    const before = this.#tails.get(key) ?? Promise.resolve();
    const { promise: tail, resolve: release } = Promise.withResolvers<void>();
    this.#tails.set(key, tail);
    await before;
    const lock = { key, isHeld: true };
    try {
      return await task(lock);
    } finally {
      lock.isHeld = false;
      if (this.#tails.get(key) === tail) this.#tails.delete(key);
      release();
    }
  }
}
