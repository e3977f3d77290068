export const TICK_MS = 10_000;
/** Ticks that a rate is taken over: together a minute. */
const TICKS = 6;
/** The rate that was told stands until it is off by more than this factor. */
const FACTOR = 1.5;
/** And by more than chance explains: three standard deviations of the root of a count. */
const CHANCE = 1.5;
/** Where none are told, fewer are as good as none; and where some are, as good as these, down to none at all. */
const LEAST = 3;

interface Count {
  /** The latest last; the tick that goes on is the last one. */
  ticks: number[];
  /** Requests in a minute, as last told. */
  told: number;
}

/**
 * Requests in the last minute, by adapter, roughly: what is told moves at a tick only, and only by steps that mean
 * something, so that steady traffic is told once.
 */
export class Traffic {
  /** Bounded by the adapters that were asked for in the last minute. */
  readonly #counts = new Map<string, Count>();

  count(name: string): void {
    const known = this.#counts.get(name);
    if (known === undefined) this.#counts.set(name, { ticks: [1], told: 0 });
    else known.ticks.push((known.ticks.pop() ?? 0) + 1);
  }

  /** 0 also where there are too few to tell. */
  perMinute(name: string): number {
    return this.#counts.get(name)?.told ?? 0;
  }

  get size(): number {
    return this.#counts.size;
  }

  /** Ends a tick; answers with the adapters of which something else is told now. */
  tick(): string[] {
    const moved: string[] = [];
    for (const [name, count] of this.#counts) {
      const all = count.ticks.reduce((sum, each) => sum + each, 0);
      const requests = all < LEAST && count.told * all === 0 ? 0 : Math.max(all, LEAST);
      if (isNews(count.told, requests)) {
        count.told = requests;
        moved.push(name);
      }
      if (all === 0 && count.told === 0) this.#counts.delete(name);
      count.ticks = [...count.ticks, 0].slice(-TICKS);
    }
    return moved;
  }
}

function isNews(told: number, requests: number): boolean {
  const [low, high] = [Math.min(told, requests), Math.max(told, requests)];
  return high > low * FACTOR && Math.sqrt(high) - Math.sqrt(low) > CHANCE;
}
