/** What a look at the engine shows. */
export interface Progress {
  step: number;
  running: number;
  waiting: number;
}

/** Tells an engine that hangs: its step counter stands still although there are sequences. Looked at with each probe. */
export class StepWatch {
  readonly #hangMs: number;
  readonly #now: () => number;
  /** The step that was under way at the last look; null: none. */
  #seen: { step: number; sinceMs: number } | null = null;

  /** 0: never. */
  constructor(hangMs: number, now: () => number = () => performance.now()) {
    this.#hangMs = hangMs;
    this.#now = now;
  }

  /** For how long the engine has been at one step, where that is too long; else null. */
  hangMs({ step, running, waiting }: Progress): number | null {
    const nowMs = this.#now();
    if (running + waiting === 0 || this.#hangMs === 0) {
      this.#seen = null;
      return null;
    }
    if (this.#seen?.step !== step) this.#seen = { step, sinceMs: nowMs };
    const tookMs = nowMs - this.#seen.sinceMs;
    return tookMs > this.#hangMs ? tookMs : null;
  }
}
