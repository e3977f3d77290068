import type { Logger } from 'pino';
import type { EngineLoader } from './loader.ts';

const LOOK_MS = 2_000;
/** Looks without an answer after which the engine is away; one that refuses connections is at once. */
const SILENT_LOOKS_MAX = 2;

export interface EngineWatchOptions {
  loader: EngineLoader;
  log: Logger;
  /** Runs a look when nothing is loaded or unloaded. */
  inTurn(look: () => Promise<void>): Promise<void>;
  /** Gives the engine, which has these adapters, what it lacks; says first that it lacks some, if it does. */
  restore(adapters: ReadonlySet<string>): Promise<void>;
  /** Takes out what it has and should not. */
  tidy(adapters: ReadonlySet<string>): Promise<void>;
}

/**
 * Looks at an engine of another project every two seconds, and when somebody asks.
 *
 *            answers, and has what it should              silent, or another process, or an adapter is missing
 *   away ───────────────────────────────────────▶ there ─────────────────────────────────────────────────────▶ away
 */
export class EngineWatch {
  readonly #options: EngineWatchOptions;
  readonly #life = new AbortController();
  readonly #listeners: ((reason: string | null) => void)[] = [];
  #away: string | null = 'it has not been looked at yet';
  #process: string | null = null;
  #silentLooks = 0;
  #next: NodeJS.Timeout | null = null;
  #asked: Promise<void> | null = null;

  constructor(options: EngineWatchOptions) {
    this.#options = options;
  }

  /** Why it is away; null while it is there. */
  get away(): string | null {
    return this.#away;
  }

  /** Hears of each change, with null where the engine is there again. */
  onAway(listener: (reason: string | null) => void): void {
    this.#listeners.push(listener);
  }

  /** Resolves after a whole look; one that waits for its turn is for all who ask meanwhile. */
  look(): Promise<void> {
    this.#asked ??= this.#lookInTurn();
    return this.#asked;
  }

  close(): void {
    this.#life.abort();
    if (this.#next !== null) clearTimeout(this.#next);
  }

  async #lookInTurn(): Promise<void> {
    if (this.#next !== null) clearTimeout(this.#next);
    try {
      await this.#options.inTurn(() => {
        this.#asked = null;
        return this.#lookAndMend();
      });
    } finally {
      if (!this.#life.signal.aborted) this.#next = setTimeout(() => void this.look(), LOOK_MS).unref();
    }
  }

  async #lookAndMend(): Promise<void> {
    const { loader, log, restore, tidy } = this.#options;
    try {
      const { process, adapters } = await loader.look(this.#life.signal);
      this.#silentLooks = 0;
      if (this.#process !== null && process !== this.#process) this.leave('its process is a new one');
      await restore(adapters);
      this.#process = process;
      this.#return();
      await tidy(adapters);
    } catch (error) {
      if (this.#life.signal.aborted) return;
      this.#silentLooks += 1;
      log.debug({ err: error }, 'the engine did not answer a look');
      const isAway = this.#away !== null || this.#silentLooks >= SILENT_LOOKS_MAX;
      if (isAway || isRefused(error)) this.leave((error as Error).message);
    }
  }

  /** Until a look finds that nothing is wrong. */
  leave(reason: string): void {
    const was = this.#away;
    this.#away = reason;
    if (was !== null) return;
    this.#options.log.warn({ reason }, 'the engine is away');
    for (const listener of this.#listeners) listener(reason);
  }

  #return(): void {
    if (this.#away === null) return;
    this.#away = null;
    this.#options.log.info({ process: this.#process }, 'the engine is there');
    for (const listener of this.#listeners) listener(null);
  }
}

function isRefused(error: unknown): boolean {
  const { cause } = error as Error;
  return (cause as NodeJS.ErrnoException | undefined)?.code === 'ECONNREFUSED';
}
