/** The pushes under way, for whoever stops the process: those that it found may end. */
export class Running {
  readonly #pushes = new Set<Promise<unknown>>();

  async track<T>(push: Promise<T>): Promise<T> {
    this.#pushes.add(push);
    try {
      return await push;
    } finally {
      this.#pushes.delete(push);
    }
  }

  /** Resolves when all that run now have ended, however. */
  async settled(): Promise<void> {
    await Promise.allSettled(this.#pushes);
  }
}
