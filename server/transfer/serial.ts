/** Shown to what must happen in its key's turn. */
export interface Lock {
  readonly key: string;
  readonly isHeld: boolean;
}

/** Runs tasks of one key one after the other, in the order they came; keys do not wait for each other. A task must end. */
export class Serial {
  readonly #tails = new Map<string, Promise<void>>();

  async run<T>(key: string, task: (lock: Lock) => Promise<T>): Promise<T> {
    const before = this.#tails.get(key);
    const done = Promise.withResolvers<void>();
    this.#tails.set(key, done.promise);
    const lock = { key, isHeld: true };
    try {
      await before;
      return await task(lock);
    } finally {
      lock.isHeld = false;
      if (this.#tails.get(key) === done.promise) this.#tails.delete(key);
      done.resolve();
    }
  }

  /** True while a task of this key runs or waits. */
  isBusy(key: string): boolean {
    return this.#tails.has(key);
  }
}
