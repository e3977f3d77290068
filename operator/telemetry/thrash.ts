const WINDOW_MS = 600_000;
const LOADS_MAX = 3;
const KEYS_MAX = 10_000;

/** Notices an adapter that is loaded into one pod again and again. Remembers a bounded number of pairs. */
export class Thrash {
  readonly #monotonicMs: () => number;
  readonly #loads = new Map<string, number[]>();

  constructor(monotonicMs: () => number) {
    this.#monotonicMs = monotonicMs;
  }

  /** True for each load beyond LOADS_MAX within the window. */
  note(key: string): boolean {
    const nowMs = this.#monotonicMs();
    const recent = (this.#loads.get(key) ?? []).filter((atMs) => nowMs - atMs < WINDOW_MS).slice(-LOADS_MAX);
    this.#loads.delete(key);
    this.#loads.set(key, [...recent, nowMs]);
    const [oldest] = this.#loads.keys();
    if (this.#loads.size > KEYS_MAX && oldest !== undefined) this.#loads.delete(oldest);
    return recent.length >= LOADS_MAX;
  }
}
