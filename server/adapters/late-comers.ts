export interface LateComersOptions {
  /** Whether running requests are to go on with it. */
  isAwaited(digest: string): boolean;
  /** Whether a slot is free, or can be, and no request that has not begun waits for one. */
  hasRoom(): boolean;
  /** Puts a revision into a slot; false where none is free. */
  bringIn(digest: string): Promise<boolean>;
  onError(error: unknown, digest: string): void;
}

/**
 * Revisions that found no slot when they became current. New requests wait for theirs (SlotTurns); those that run and
 * may go on with it do not ask, so it comes in for them once there is room.
 */
export class LateComers {
  readonly #options: LateComersOptions;
  readonly #digests = new Set<string>();
  #isServing = false;

  constructor(options: LateComersOptions) {
    this.#options = options;
  }

  add(digest: string): void {
    this.#digests.add(digest);
  }

  /** Looks again: a slot may have become free. */
  wake(): void {
    if (this.#isServing || this.#digests.size === 0) return;
    this.#isServing = true;
    void this.#serve().finally(() => {
      this.#isServing = false;
    });
  }

  async #serve(): Promise<void> {
    const { isAwaited, hasRoom, bringIn, onError } = this.#options;
    for (const digest of this.#digests) {
      if (!isAwaited(digest)) {
        this.#digests.delete(digest);
        continue;
      }
      if (!hasRoom()) return;
      const isIn = await bringIn(digest).catch((error: unknown) => {
        onError(error, digest);
        return true;
      });
      if (isIn) this.#digests.delete(digest);
    }
  }
}
