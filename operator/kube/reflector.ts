import { ApiError } from './api-error.ts';
import { backoffMs, type Clock, deadline, pause, systemClock } from './clock.ts';
import { listAll } from './list.ts';
import type { Log } from './log.ts';
import { type KubeObject, keyOf, pathOf, type Resource } from './resource.ts';
import type { Rest } from './rest.ts';
import { type Indexes, Store } from './store.ts';

export interface Change<T extends KubeObject> {
  type: 'added' | 'updated' | 'deleted';
  /** For `deleted`: the last that was known of it. */
  object: T;
  previous?: T;
}

export interface ReflectorOptions<T extends KubeObject, I extends string = never> {
  rest: Rest;
  resource: Resource;
  namespace?: string | undefined;
  labelSelector?: string | undefined;
  log: Log;
  /** Should do no more than put a key into a queue. What it throws is counted and logged. */
  onChange: (change: Change<T>) => void;
  indexes?: Indexes<T, I>;
  clock?: Clock;
  random?: () => number;
  relistMs?: number;
  inactivityMs?: number;
}

/** Why all is listed anew: it is time, the watch cannot go on from where it was, or no list or watch came through. */
export type RelistCause = 'due' | 'stale' | 'broken';

/** Counters since the start, for metrics. */
export interface ReflectorCounts {
  lists: number;
  /** Of these, all after the first. */
  relists: Record<RelistCause, number>;
  watches: number;
  events: number;
  /** Lists and watches that failed, the ends of watches that are part of the plan not counted. */
  failures: number;
  /** Objects that a planned relist found other than the watch had left them; a delete in between is counted too. */
  misses: number;
  handlerErrors: number;
}

interface WatchEvent<T> {
  type: string;
  object: T;
}

/** The watch has told something that cannot be trusted or cannot go on from where it was: only a list helps. */
class StaleWatch extends Error {}

const RETRY = { baseMs: 1_000, maxMs: 5_000 };
const RELIST_MS = 300_000;
const INACTIVITY_MS = 45_000;
const WATCH_SECONDS = { min: 240, span: 240 };
/** A watch that ends sooner than this is a failure, however politely it ended. */
const WATCH_MS_MIN = 1_000;

/**
 * A local copy of all objects of one kind, kept by list and watch, and never given up:
 *
 *     list ──▶ watch ──▶ ended, reset, 5xx, silent 45 s ──▶ back off ──▶ watch from the last resource version
 *      ▲         └─────▶ 410, bad line, ERROR, 5 minutes over ────────┐
 *      └───────────────────────────────────────────── back off ───────┘
 *
 * Objects handed out are deeply frozen. A changed uid under one name comes as `deleted`, then `added`.
 */
export class Reflector<T extends KubeObject, I extends string = never> {
  readonly #options: ReflectorOptions<T, I>;
  readonly #clock: Clock;
  readonly #random: () => number;
  readonly #store: Store<T, I>;
  readonly #synced = Promise.withResolvers<void>();
  readonly counts: ReflectorCounts = {
    lists: 0,
    relists: { due: 0, stale: 0, broken: 0 },
    watches: 0,
    events: 0,
    failures: 0,
    misses: 0,
    handlerErrors: 0,
  };
  #resourceVersion = '';
  #started = false;
  #failures = 0;

  constructor(options: ReflectorOptions<T, I>) {
    this.#options = options;
    this.#store = new Store(options.indexes);
    this.#clock = options.clock ?? systemClock;
    this.#random = options.random ?? Math.random;
    // Whoever never asks must not be told by an unhandled rejection.
    this.#synced.promise.catch(() => {});
  }

  get(key: string): T | undefined {
    return this.#store.get(key);
  }

  list(): T[] {
    return this.#store.list();
  }

  by(index: I, value: string): Iterable<T> {
    return this.#store.by(index, value);
  }

  versionOf(index: I, value: string): number {
    return this.#store.versionOf(index, value);
  }

  /** Resolves after the first whole list; rejects when `run` ends before. */
  whenSynced(): Promise<void> {
    return this.#synced.promise;
  }

  /** Runs until the signal aborts. May be called once. */
  async run(signal: AbortSignal): Promise<void> {
    if (this.#started) throw new Error('Expected run to be called once per Reflector');
    this.#started = true;
    let cause: RelistCause | null = null;
    while (!signal.aborted) {
      try {
        if (cause !== null) this.counts.relists[cause] += 1;
        await this.#list({ planned: cause === 'due' }, signal);
        await this.#watchUntilRelist(signal);
        cause = this.#failures === 0 ? 'due' : 'broken';
      } catch (error) {
        cause = error instanceof StaleWatch ? 'stale' : 'broken';
        await this.#backOff(error, signal);
      }
    }
    this.#synced.reject(signal.reason);
  }

  async #list({ planned }: { planned: boolean }, signal: AbortSignal): Promise<void> {
    const { rest, resource, namespace, labelSelector, log } = this.#options;
    this.counts.lists += 1;
    const { objects, resourceVersion } = await listAll<T>({
      rest,
      resource,
      namespace,
      labelSelector,
      signal,
    });
    const changes = this.#store.replace(objects);
    if (planned) {
      const missed = changes.filter(
        ({ object }) => !isNewer(object.metadata.resourceVersion, this.#resourceVersion),
      );
      this.counts.misses += missed.length;
      if (missed.length > 0)
        log.warn({ plural: resource.plural, missed: missed.length }, 'the watch had missed changes');
    }
    this.#resourceVersion = resourceVersion;
    for (const change of changes) this.#tell(change);
    this.#synced.resolve();
  }

  /** Returns when the next planned relist is due; throws StaleWatch when one is needed now. */
  async #watchUntilRelist(signal: AbortSignal): Promise<void> {
    const { relistMs = RELIST_MS } = this.#options;
    const due = deadline(
      this.#clock,
      relistMs * (0.9 + 0.2 * this.#random()),
      signal,
      () => new Error('relist is due'),
    );
    try {
      while (!due.signal.aborted) {
        try {
          await this.#watch(due.signal);
        } catch (error) {
          if (error instanceof StaleWatch) throw error;
          if (!due.signal.aborted) await this.#backOff(error, due.signal);
        }
      }
    } finally {
      due.clear();
    }
  }

  async #watch(signal: AbortSignal): Promise<void> {
    const { rest, resource, namespace, labelSelector, inactivityMs = INACTIVITY_MS } = this.#options;
    this.counts.watches += 1;
    const startedMs = this.#clock.monotonicMs();
    const query = {
      watch: true,
      allowWatchBookmarks: true,
      resourceVersion: this.#resourceVersion,
      timeoutSeconds: Math.floor(WATCH_SECONDS.min + WATCH_SECONDS.span * this.#random()),
      labelSelector,
    };
    try {
      for await (const line of rest.stream({
        path: pathOf(resource, { namespace }),
        query,
        signal,
        inactivityMs,
      })) {
        this.#take(line);
        this.#failures = 0;
      }
    } catch (error) {
      if (error instanceof ApiError && error.status === 410)
        throw new StaleWatch(error.message, { cause: error });
      const silent = error instanceof ApiError && error.reason === 'Timeout';
      // A quiet kind sends a bookmark a minute at best: silence is part of the plan, and the next watch finds out.
      if (silent && this.#clock.monotonicMs() - startedMs >= inactivityMs) {
        this.#failures = 0;
        return;
      }
      throw error;
    }
    if (this.#clock.monotonicMs() - startedMs < WATCH_MS_MIN) throw new Error('the watch ended at once');
  }

  #take(line: string): void {
    const { type, object } = parseEvent<T>(line);
    if (type === 'ERROR') throw new StaleWatch(`the watch sent an error: ${line.slice(0, 256)}`);
    const resourceVersion = object.metadata?.resourceVersion;
    if (resourceVersion === undefined)
      throw new StaleWatch(`the watch sent ${type} without a resource version`);
    if (type !== 'BOOKMARK') {
      this.counts.events += 1;
      const changes = type === 'DELETED' ? this.#store.remove(object) : this.#store.put(object);
      for (const change of changes) this.#tell(change);
    }
    this.#resourceVersion = resourceVersion;
  }

  #tell(change: Change<T>): void {
    try {
      this.#options.onChange(change);
    } catch (error) {
      this.counts.handlerErrors += 1;
      const { plural } = this.#options.resource;
      this.#options.log.error(
        { err: error, plural, key: keyOf(change.object) },
        'a change could not be handled',
      );
    }
  }

  async #backOff(error: unknown, signal: AbortSignal): Promise<void> {
    if (signal.aborted) return;
    this.counts.failures += 1;
    this.#failures += 1;
    const askedMs = error instanceof ApiError ? (error.retryAfterMs ?? 0) : 0;
    const delayMs = Math.max(askedMs, backoffMs(this.#failures, { ...RETRY, random: this.#random }));
    const { plural } = this.#options.resource;
    this.#options.log.warn({ err: error, plural, failures: this.#failures, delayMs }, 'list or watch failed');
    await pause(this.#clock, delayMs, signal);
  }
}

function parseEvent<T>(line: string): WatchEvent<T> {
  try {
    const event = JSON.parse(line) as WatchEvent<T> | null;
    if (typeof event?.type === 'string' && typeof event.object === 'object' && event.object !== null)
      return event;
  } catch (error) {
    throw new StaleWatch(`the watch sent a line that is not JSON: ${line.slice(0, 256)}`, { cause: error });
  }
  throw new StaleWatch(`the watch sent a line that is no event: ${line.slice(0, 256)}`);
}

/** Resource versions are whole numbers that grow; one that is not is taken as newer. */
function isNewer(version: string | undefined, than: string): boolean {
  if (version === undefined || !/^\d+$/.test(version) || !/^\d+$/.test(than)) return true;
  return BigInt(version) > BigInt(than);
}
