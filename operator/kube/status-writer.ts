import { isDeepStrictEqual } from 'node:util';
import { isApiError } from './api-error.ts';
import { type Clock, systemClock } from './clock.ts';
import type { Log } from './log.ts';
import { type KubeObject, keyOf, pathOf, type Resource } from './resource.ts';
import type { Rest } from './rest.ts';

export interface StatusWriterOptions {
  rest: Rest;
  resource: Resource;
  log: Log;
  /** The write did not happen; put the object into the queue again, to be read and computed anew. */
  onFailure: (key: string, error: unknown) => void;
  /** A status was written so long after the first decision that the object did not show. */
  onWritten?: (lagMs: number) => void;
  /** Whether the second is bad news after the first, which do not wait: nobody should go by the first any longer. */
  isWorse?: (before: unknown, after: unknown) => boolean;
  clock?: Clock;
  intervalMs?: number | undefined;
}

interface Written {
  resourceVersion: string;
  status: unknown;
}

interface Pending {
  object: KubeObject & { status?: unknown };
  status: unknown;
}

interface Entry {
  uid: string | undefined;
  /** What the last write of ours left. */
  written: Written | null;
  pending: Pending | null;
  /** When something was first decided that neither the object nor a write under way has; null: nothing is. */
  behindSinceMs: number | null;
  inFlight: Promise<void> | null;
  cancelTimer: (() => void) | null;
  notBeforeMs: number;
  failures: number;
}

const FIELD_MANAGER = 'lorikeet-operator';
const INTERVAL_MS = 2_000;
/** For the cache to see what somebody else wrote. */
const CONFLICT_MS = 200;
const INTERVAL_MS_MAX = 300_000;
const ENTRIES_MAX = 4_096;
/** What waits for its turn here is replaced by what is written later; what waits in the client is not. */
const WRITES_MAX = 16;

/**
 * Writes status, for one object at most once per interval: the first at once, of those that come in between only the
 * last, and bad news at once. A status that is there already is not written. Every write names the resource version that it was computed
 * from: whoever else wrote in between wins, and the object is computed anew.
 */
export class StatusWriter {
  readonly #options: StatusWriterOptions;
  readonly #clock: Clock;
  readonly #intervalMs: number;
  readonly #entries = new Map<string, Entry>();
  /** Keys that are due and wait for one of the writes under way to end, the first first. */
  readonly #due = new Set<string>();
  #underWay = 0;
  writes = 0;

  constructor(options: StatusWriterOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#intervalMs = options.intervalMs ?? INTERVAL_MS;
  }

  /** `object` is what the status was computed from, its own status included. */
  write(object: KubeObject & { status?: unknown }, status: unknown): void {
    const key = keyOf(object);
    const entry = this.#entryOf(key, object.metadata.uid);
    this.#drop(entry);
    entry.pending = { object, status: plain(status) };
    entry.behindSinceMs ??= this.#clock.monotonicMs();
    if (entry.inFlight === null) this.#schedule(key, entry, entry.pending);
  }

  /** Writes what is pending without waiting for the interval; resolves when it is written or has failed. */
  async flush(key: string): Promise<void> {
    const entry = this.#entries.get(key);
    await entry?.inFlight;
    if (!entry?.pending) return;
    this.#send(key, entry);
    await entry.inFlight;
  }

  async flushAll(): Promise<void> {
    await Promise.all([...this.#entries.keys()].map((key) => this.flush(key)));
  }

  #schedule(key: string, entry: Entry, pending: Pending): void {
    if (isThere(entry, pending)) {
      this.#drop(entry);
      entry.behindSinceMs = null;
      return;
    }
    const isUrgent = entry.failures === 0 && this.#options.isWorse?.(shown(entry, pending), pending.status);
    const waitMs = isUrgent ? 0 : entry.notBeforeMs - this.#clock.monotonicMs();
    if (waitMs <= 0) this.#sendInTurn(key, entry);
    else entry.cancelTimer = this.#clock.after(waitMs, () => this.#sendInTurn(key, entry));
  }

  #sendInTurn(key: string, entry: Entry): void {
    if (this.#underWay >= WRITES_MAX) this.#due.add(key);
    else this.#send(key, entry);
  }

  #sendNext(): void {
    const [key] = this.#due;
    if (key === undefined || this.#underWay >= WRITES_MAX) return;
    this.#due.delete(key);
    const entry = this.#entries.get(key);
    if (entry !== undefined && entry.inFlight === null) this.#send(key, entry);
    this.#sendNext();
  }

  #send(key: string, entry: Entry): void {
    const pending = entry.pending;
    this.#drop(entry);
    if (pending === null) return;
    this.#underWay += 1;
    entry.inFlight = this.#put(key, entry, pending).finally(() => {
      this.#underWay -= 1;
      entry.inFlight = null;
      if (entry.pending !== null) this.#schedule(key, entry, entry.pending);
      this.#sendNext();
    });
  }

  async #put(key: string, entry: Entry, { object, status }: Pending): Promise<void> {
    const { rest, resource } = this.#options;
    const { name, namespace, uid, resourceVersion } = object.metadata;
    const ours =
      entry.written !== null && !isPast(entry.written, object) ? entry.written.resourceVersion : null;
    const sinceMs = entry.behindSinceMs ?? this.#clock.monotonicMs();
    entry.behindSinceMs = null;
    this.writes += 1;
    try {
      const written = await rest.request<KubeObject>({
        method: 'PUT',
        path: pathOf(resource, { namespace, name, subresource: 'status' }),
        query: { fieldManager: FIELD_MANAGER },
        body: {
          apiVersion: object.apiVersion,
          kind: object.kind,
          metadata: { name, namespace, uid, resourceVersion: ours ?? resourceVersion },
          status,
        },
      });
      entry.written = { resourceVersion: written.metadata.resourceVersion ?? '', status };
      entry.failures = 0;
      const nowMs = this.#clock.monotonicMs();
      entry.notBeforeMs = nowMs + this.#intervalMs;
      this.#options.onWritten?.(nowMs - sinceMs);
    } catch (error) {
      entry.behindSinceMs = sinceMs;
      this.#failed(key, entry, error);
    }
  }

  #failed(key: string, entry: Entry, error: unknown): void {
    this.#drop(entry);
    if (isApiError(error, 404)) {
      this.#entries.delete(key);
      return;
    }
    // A conflict is everyday life: somebody else wrote. Anything else gets rarer the longer it lasts.
    const conflict = isApiError(error, 409);
    if (!conflict) entry.failures += 1;
    const backoffMs = Math.min(INTERVAL_MS_MAX, this.#intervalMs * 2 ** Math.min(entry.failures, 20));
    const delayMs = conflict ? Math.min(CONFLICT_MS, backoffMs) : backoffMs;
    entry.notBeforeMs = this.#clock.monotonicMs() + delayMs;
    if (!conflict) this.#options.log.warn({ err: error, key, delayMs }, 'a status could not be written');
    this.#options.onFailure(key, error);
  }

  #drop(entry: Entry): void {
    entry.pending = null;
    entry.cancelTimer?.();
    entry.cancelTimer = null;
  }

  #entryOf(key: string, uid: string | undefined): Entry {
    const known = this.#entries.get(key);
    const entry: Entry =
      known?.uid === uid && known !== undefined
        ? known
        : {
            uid,
            written: null,
            pending: null,
            behindSinceMs: null,
            inFlight: null,
            cancelTimer: null,
            notBeforeMs: 0,
            failures: 0,
          };
    if (known !== undefined && known !== entry) this.#drop(known);
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    if (this.#entries.size > ENTRIES_MAX) this.#evict();
    return entry;
  }

  /** An idle entry knows little: the next write of its object may meet a conflict, and is then computed anew. */
  #evict(): void {
    for (const [key, entry] of this.#entries) {
      if (entry.pending !== null || entry.inFlight !== null) continue;
      this.#entries.delete(key);
      return;
    }
  }
}

/**
 * Whether the object is newer than what we wrote last. If it is not, the cache has not seen our write yet; and since
 * that write succeeded from the object's version, nobody else wrote in between.
 */
function isPast(written: Written, object: KubeObject): boolean {
  const { resourceVersion = '' } = object.metadata;
  if (!/^\d+$/.test(resourceVersion) || !/^\d+$/.test(written.resourceVersion)) return true;
  return BigInt(resourceVersion) > BigInt(written.resourceVersion);
}

function isThere(entry: Entry, pending: Pending): boolean {
  return isDeepStrictEqual(shown(entry, pending), pending.status);
}

/** What the object says now, as far as is known. */
function shown({ written }: Entry, { object }: Pending): unknown {
  return written !== null && !isPast(written, object) ? written.status : plain(object.status);
}

/** As the API server will hold it: without undefined members, and frozen in this moment. */
function plain(status: unknown): unknown {
  return JSON.parse(JSON.stringify(status ?? {}));
}
